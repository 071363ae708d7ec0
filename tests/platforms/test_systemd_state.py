"""What the properties of a unit mean: every row was seen on a real systemd, or is in its source."""

import signal
from typing import Any

import pytest

from prunella.core.model import InstanceState
from prunella.platforms._systemd_state import Unit, read
from prunella.platforms._systemd_units import _Known

RUNNING, EXITED, STOPPED = InstanceState.RUNNING, InstanceState.EXITED, InstanceState.STOPPED
EXIT, KILL, DUMP = 1, 2, 3
BEGAN, LEFT = 1_000, 2_000
BEFORE, AFTER = LEFT - 1, LEFT + 1  # when the main process ended, as seen from its unit


def unit(active: str, result: str = "success", **fields: Any) -> Unit:
    shop = Unit("shop.service", "loaded", active, "", "ab", result, began_us=BEGAN)
    return shop._replace(**fields)


def ended(active: str, result: str, at_us: int, how: int, status: int, **fields: Any) -> Unit:
    fields = {
        "left_us": LEFT,
        "exited_us": at_us,
        "exit_kind": how,
        "exit_status": status,
    } | fields
    return unit(active, result, **fields)


ROWS = {
    "it runs": (unit("active", sub="running"), RUNNING, ""),
    "it is reloading": (unit("reloading"), RUNNING, ""),
    "it starts": (unit("activating", sub="start"), RUNNING, ""),
    "a state of a newer systemd": (unit("refreshing"), RUNNING, ""),
    "its processes have ended, and that is how it is meant": (
        unit("active", sub="exited", rests=True),
        RUNNING,
        "",
    ),
    "systemd will restart it": (
        ended("activating", "exit-code", BEFORE, EXIT, 3, sub="auto-restart", began_us=LEFT + 5),
        RUNNING,
        "systemd restarts it: exit code 3",
    ),
    "it was killed": (
        ended("failed", "signal", BEFORE, KILL, signal.SIGKILL),
        EXITED,
        "killed by SIGKILL",
    ),
    "killed by a signal without a name": (
        ended("failed", "signal", BEFORE, KILL, 40),
        EXITED,
        "killed by signal 40",
    ),
    "it crashed": (
        ended("failed", "core-dump", BEFORE, DUMP, signal.SIGSEGV),
        EXITED,
        "killed by SIGSEGV, core dumped",
    ),
    "it ended with a code": (ended("failed", "exit-code", BEFORE, EXIT, 3), EXITED, "exit code 3"),
    "its command cannot be run": (
        ended("failed", "exit-code", BEFORE, EXIT, 203),
        EXITED,
        "exit code 203 (its command cannot be run)",
    ),
    "it ran out of memory": (
        ended("failed", "oom-kill", AFTER, KILL, signal.SIGKILL),
        EXITED,
        "out of memory, killed by SIGKILL",
    ),
    "its watchdog ended it": (
        ended("failed", "watchdog", AFTER, KILL, signal.SIGABRT),
        EXITED,
        "its watchdog did not hear from it, killed by SIGABRT",
    ),
    "it was started too often": (
        ended("failed", "start-limit-hit", BEFORE, EXIT, 1),
        EXITED,
        "started too often in a short time (start limit)",
    ),
    "it was restarted too often": (
        ended("failed", "start-limit-hit", AFTER, KILL, signal.SIGTERM),
        EXITED,
        "started too often in a short time (start limit)",
    ),
    "it died while it started": (
        ended("failed", "exit-code", BEGAN + 5, EXIT, 1, left_us=BEGAN - 5),
        EXITED,
        "exit code 1",
    ),
    "it took too long to start": (
        ended("failed", "timeout", BEGAN + 5, KILL, signal.SIGTERM, left_us=0),
        EXITED,
        "it took too long, killed by SIGTERM",
    ),
    "it has no main process and failed": (
        unit("failed", "exit-code", left_us=LEFT),
        EXITED,
        "exit-code",
    ),
    "it ended by itself, and well": (
        ended("inactive", "success", BEFORE, EXIT, 0),
        EXITED,
        "exit code 0",
    ),
    "somebody sent it a signal": (
        ended("inactive", "success", BEFORE, KILL, signal.SIGTERM),
        EXITED,
        "killed by SIGTERM",
    ),
    "it was stopped": (
        ended("inactive", "success", AFTER, KILL, signal.SIGTERM),
        STOPPED,
        "stopped, killed by SIGTERM",
    ),
    "it was stopped, and ended badly": (
        ended("failed", "exit-code", AFTER, EXIT, 1),
        STOPPED,
        "stopped, exit code 1",
    ),
    "it was stopped, and that took too long": (
        ended("failed", "timeout", AFTER, KILL, signal.SIGKILL),
        STOPPED,
        "stopped, it took too long, killed by SIGKILL",
    ),
    "it was stopped while systemd was to restart it": (
        ended("inactive", "signal", BEFORE, KILL, signal.SIGKILL, began_us=LEFT + 5),
        STOPPED,
        "stopped, killed by SIGKILL",
    ),
    "it had failed, and somebody has reset it": (
        ended("inactive", "success", BEFORE, EXIT, 3),
        STOPPED,
        "stopped, exit code 3",
    ),
    "it has never run": (unit("inactive", run=""), STOPPED, "not started"),
    "it has done its work": (
        ended("inactive", "success", BEFORE, EXIT, 0, rests=True),
        STOPPED,
        "stopped, exit code 0",
    ),
    "a socket starts it again when it is needed": (
        ended("inactive", "success", BEFORE, EXIT, 0, rests=True),
        STOPPED,
        "stopped, exit code 0",
    ),
    "it is being stopped": (unit("deactivating", left_us=LEFT), STOPPED, "stopped"),
    "it is ending by itself": (ended("deactivating", "exit-code", BEFORE, EXIT, 3), RUNNING, ""),
    "it ended by itself, and its unit was told of that late": (
        ended("failed", "exit-code", AFTER, EXIT, 3, asked=False),
        EXITED,
        "exit code 3",
    ),
    "it was stopped while it started, and ended badly": (
        ended("failed", "exit-code", BEGAN + 5, EXIT, 1, left_us=0, asked=True),
        STOPPED,
        "stopped, exit code 1",
    ),
    "its watchdog ended it in the course of a job": (
        ended("failed", "watchdog", AFTER, KILL, signal.SIGABRT, asked=True),
        EXITED,
        "its watchdog did not hear from it, killed by SIGABRT",
    ),
    "between the two halves of a restart": (
        ended("inactive", "success", AFTER, KILL, signal.SIGTERM, job=7),
        STOPPED,
        "stopped, killed by SIGTERM",
    ),
    "it has failed, and somebody starts it": (
        ended("failed", "signal", BEFORE, KILL, signal.SIGKILL, job=7),
        RUNNING,
        "",
    ),
}


@pytest.mark.parametrize(("seen", "state", "detail"), ROWS.values(), ids=ROWS)
def test_a_unit_is_judged_by_who_ended_it(seen: Unit, state: InstanceState, detail: str) -> None:
    assert (seen.state, seen.detail) == (state, detail)


def test_properties_are_read_and_missing_ones_are_unset() -> None:
    told = {
        "ActiveState": "active",
        "InvocationID": bytes.fromhex("0a1b"),
        "Job": (12, "/org/freedesktop/systemd1/job/12"),
        "NRestarts": 3,
        "Unheard": "of",
    }
    assert read("shop.service", told, asked=True) == Unit(
        "shop.service", active="active", run="0a1b", job=12, restart_count=3, asked=True
    )


@pytest.mark.parametrize(
    "told", [{"Type": "oneshot"}, {"RemainAfterExit": True}, {"TriggeredBy": ["shop.socket"]}]
)
def test_what_does_work_once_or_on_demand_rests_in_between(told: dict[str, Any]) -> None:
    assert read("shop.service", told).rests
    assert not read("shop.service", {"Type": "simple", "TriggeredBy": []}).rests


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("active 0, failed 0", False),
        ("active 0, deactivating 0, inactive 0", False),
        ("active 5, deactivating 5, inactive 5, inactive 0", True),
        ("active 5, deactivating 5, failed 0", True),
        ("active 0, deactivating 5, failed 0", True),
        ("active 0, failed 0, failed 7", False),
        ("active 0, deactivating 0, deactivating 8, failed 0", True),
        ("activating 5, deactivating 5, failed 0", False),
        ("activating 5, deactivating 6, failed 0", True),
        ("activating 5, activating 6, deactivating 6, failed 0", True),
        ("activating 5, active 5, active 0, active 7, deactivating 7, failed 0", True),
        ("active 5, reloading 5, deactivating 5, failed 0", False),
        ("active 5, deactivating 5, inactive 5, activating 5, failed 0", False),
        ("active 5, deactivating 5, inactive 5, activating 5, active 0", None),
    ],
)
def test_who_was_there_knows_whether_a_unit_was_asked_to_end(
    told: str,
    asked: bool | None,  # noqa: FBT001 - three values
) -> None:
    known = _Known("shop.service", "/shop", {"ActiveState": "active", "Job": (0, "/")})
    for step in told.split(", "):
        state, job = step.split()
        known.hear({"ActiveState": state, "Job": (int(job), "/")})
    assert known.asked is asked


def test_what_systemd_is_about_to_restart_is_restarting() -> None:
    back = {name: one.is_restarting for name, (one, *_) in ROWS.items()}
    assert [name for name, restarting in back.items() if restarting] == ["systemd will restart it"]
