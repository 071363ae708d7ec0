"""What the properties of a service unit say of its run: pure, so that all cases fit in one table.

systemd's ``failed`` and ``inactive`` do not say who ended a run: a service that exits with 1 when
it is asked to stop has failed, and one that ends with 0 in the middle of its work is inactive. Who
was there knows: a stop is a job, and an end of its own is not. Who was not there can tell by the
order of two moments: a process that ends by itself does so before its unit leaves ``active``, and
one that is stopped after that. Who resets a failed unit has seen it: from then on it counts as
stopped on purpose.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import Any, NamedTuple

from prunella.core.model import InstanceState

NUMBERED = re.compile(r"(?P<head>[^@]+)@(?P<number>0|[1-9][0-9]*)?\.service")
"""A numbered instance of a template, or without a number the template itself."""

_EXITED, _KILLED, _DUMPED = 1, 2, 3  # as in CLD_EXITED, CLD_KILLED, CLD_DUMPED
_GENTLE = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE}  # no failure to systemd
_FAULTS = {
    "oom-kill": "out of memory",
    "watchdog": "its watchdog did not hear from it",
    "start-limit-hit": "started too often in a short time (start limit)",
    "resources": "systemd could not set it up",
    "protocol": "it did not start as its Type= promises",
}
_CODES = {
    200: "its WorkingDirectory= cannot be entered",
    203: "its command cannot be run",
    217: "its User= does not exist",
}


class Unit(NamedTuple):
    """A unit as its manager describes it; microseconds on the manager's monotonic clock, 0: never.

    Attributes:
        run: InvocationID, new with each start; empty: it has not run, or systemd has forgotten.
        began_us: when it last left ``inactive`` or ``failed``.
        left_us: when it last left ``active``.
        exited_us: when the main process of this run ended, where there is a main process.
        job: the number of a job that waits or works on it; 0: none.
        asked: it has left ``active`` in the course of a job, such as a stop, or has not; None:
            nobody was there.
        rests: that it is inactive is no fault: it has done its work, or something starts it when
            there is some.
    """

    name: str
    load: str = ""
    active: str = ""
    sub: str = ""
    run: str = ""
    result: str = ""
    exit_kind: int = 0
    exit_status: int = 0
    began_us: int = 0
    left_us: int = 0
    exited_us: int = 0
    job: int = 0
    asked: bool | None = None
    rests: bool = False
    main_pid: int = 0
    restart_count: int = 0
    group: str = ""

    @property
    def state(self) -> InstanceState:
        return _state(self)

    @property
    def is_restarting(self) -> bool:
        return self.sub == "auto-restart"

    @property
    def detail(self) -> str:
        """How the run ended, or what is odd about it; empty while all is plain."""
        if self.is_restarting:
            return f"systemd restarts it: {_end(self)}"
        return "" if _state(self) is InstanceState.RUNNING else _end(self)


_NAMES = {
    "LoadState": "load",
    "ActiveState": "active",
    "SubState": "sub",
    "Result": "result",
    "ExecMainCode": "exit_kind",
    "ExecMainStatus": "exit_status",
    "InactiveExitTimestampMonotonic": "began_us",
    "ActiveExitTimestampMonotonic": "left_us",
    "ExecMainExitTimestampMonotonic": "exited_us",
    "MainPID": "main_pid",
    "NRestarts": "restart_count",
    "ControlGroup": "group",
}
PROPERTIES = frozenset(
    {*_NAMES, "InvocationID", "Job", "RemainAfterExit", "Restart", "Type", "TriggeredBy"}
)
UP = frozenset({"active", "activating", "reloading", "refreshing"})


def read(name: str, properties: Mapping[str, Any], *, asked: bool | None = None) -> Unit:
    """The unit that these properties describe; those that are missing count as unset."""
    fields = {field: properties[key] for key, field in _NAMES.items() if key in properties}
    return Unit(
        name,
        run=bytes(properties.get("InvocationID", b"")).hex(),
        job=properties.get("Job", (0,))[0],
        asked=asked,
        rests=properties.get("Type") == "oneshot"
        or bool(properties.get("RemainAfterExit") or properties.get("TriggeredBy")),
        **fields,
    )


def _state(unit: Unit) -> InstanceState:
    match unit.active:
        case "deactivating":
            # An end of its own is not settled before ExecStopPost= has run.
            return InstanceState.RUNNING if _ended_by_itself(unit) else InstanceState.STOPPED
        case "failed" | "inactive" if not _is_fault(unit):
            return InstanceState.STOPPED
        case "failed" | "inactive":
            # With a job it is on its way back.
            return InstanceState.RUNNING if unit.job else InstanceState.EXITED
        case _:
            return InstanceState.RUNNING


def _is_fault(unit: Unit) -> bool:
    if unit.active == "inactive" and unit.rests:
        return False
    return _ended_by_itself(unit) and (unit.active == "failed" or _ended_well(unit))


def _ended_by_itself(unit: Unit) -> bool:
    if unit.result in _FAULTS:
        return True
    if unit.asked is not None:
        return not unit.asked
    was_up = unit.left_us >= unit.began_us
    if not was_up or not unit.exited_us:
        return unit.active == "failed"  # died while it started, or without a main process
    return unit.exited_us <= unit.left_us


def _ended_well(unit: Unit) -> bool:
    if unit.exit_kind == _EXITED:
        return unit.exit_status == 0
    return unit.exit_kind == _KILLED and unit.exit_status in _GENTLE


def _end(unit: Unit) -> str:
    if not unit.run:
        return "not started"
    words = [_FAULTS[unit.result]] if unit.result in _FAULTS else []
    if unit.result == "timeout":
        words.append("it took too long")
    if unit.result != "start-limit-hit" and unit.exited_us:
        words.append(_exit(unit))
    if _state(unit) is InstanceState.STOPPED:
        words.insert(0, "stopped")
    return ", ".join(words) or unit.result


def _exit(unit: Unit) -> str:
    if unit.exit_kind in {_KILLED, _DUMPED}:
        dumped = ", core dumped" if unit.exit_kind == _DUMPED else ""
        return f"killed by {_signal_name(unit.exit_status)}{dumped}"
    why = _CODES.get(unit.exit_status)
    return f"exit code {unit.exit_status}" + (f" ({why})" if why else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
