"""Commands that ask a daemon: what they say, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from prunella.cli._client import BadAddressError, Client
from prunella.runtime.notices import Topic
from prunella.testing.orchestrator import ScriptedOrchestrator, service
from prunella.wire import DebtRecord, DecisionRecord, HealingAction, Replicas

ASKING = [
    ["status"],
    ["events"],
    ["history"],
    ["debt"],
]


FROM_A_STORE_TOO = ["history", "debt"]


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_without_a_daemon_it_says_what_to_do_and_ends_with_3(alone: Any, words: list[str]) -> None:
    done = alone(*words)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[0] == (
        "no daemon answers at http://127.0.0.1:1: start one with "
        '"prunella run FILE", or name its address with --api'
    )
    assert len(done.stderr.splitlines()) == (2 if words[0] in FROM_A_STORE_TOO else 1)


def test_an_address_may_stand_before_or_after_the_command(prunella: Any) -> None:
    wrong = {"PRUNELLA_API": "http://127.0.0.1:1"}
    assert prunella("--api", prunella.api, "status", environ=wrong).returncode == 0
    assert prunella("status", "--api", prunella.api, environ=wrong).returncode == 0


def test_an_address_that_cannot_be_one_is_a_wrong_word(alone: Any) -> None:
    done = alone("status", "--api", "nonsense")
    assert done.returncode == 2
    assert "expected http://127.0.0.1:7110" in done.stderr


@pytest.mark.parametrize(
    "url", ["", "https://127.0.0.1:7110", "http://x:y", "http://h/p", "http://u@h"]
)
def test_an_address_is_plain_http_with_host_and_port(url: str) -> None:
    with pytest.raises(BadAddressError, match="is no address of an API"):
        Client(url)


def test_status_counts_and_lists_services_without_raw_controls(prunella: Any) -> None:
    done = prunella("status")
    assert done.returncode == 0
    assert done.stdout.startswith("2 services (1 healthy, 1 failed), 50 % healthy")
    assert "\\x1b[31mred\\x07 [bold]x[/bold]\\u202e" in done.stdout
    assert not any(ord(letter) < 32 and letter != "\n" for letter in done.stdout)


def test_status_speaks_of_one_as_one(prunella: Any, orchestrator: ScriptedOrchestrator) -> None:
    orchestrator.begin_anew(service("web", restart_count=1))
    first = prunella("status").stdout.splitlines()[0]
    assert first.startswith("1 service (1 healthy), 100 % healthy, 1 restart, 0 healing actions,")


def test_status_as_json_is_the_system_health_as_it_is(
    prunella: Any, orchestrator: ScriptedOrchestrator
) -> None:
    done = prunella("status", "--json")
    assert json.loads(done.stdout) == orchestrator.get_system_health().model_dump(mode="json")
    assert done.stdout.isascii()


def test_status_shows_replicas_and_versions_where_they_are_known(
    prunella: Any, orchestrator: ScriptedOrchestrator
) -> None:
    header = prunella("status").stdout.splitlines()[2].split()
    assert "REPLICAS" not in header
    assert "VERSION" not in header
    digest = f"sha256:{'0a' * 32}"
    orchestrator.services["web"] = service(
        "web", replicas=Replicas(running=1, desired=2), revision=digest
    )
    lines = prunella("status").stdout.splitlines()
    rows = [dict(zip(lines[2].split(), line.split(), strict=False)) for line in lines[3:5]]
    assert [row["REPLICAS"] for row in rows] == ["1/2", "-"]
    assert [line.split()[-1] for line in lines[2:5]] == ["VERSION", "0a0a0a0a", "-"]
    seen = prunella("why", "web").stdout.splitlines()[1]
    assert seen == f"Seen: 1 of 2 replicas, version {digest}, last check 2026-01-01 12:00:00"


@pytest.mark.parametrize(("outcome", "code"), [("recovered", 0), ("ineffective", 1)])
def test_heal_ends_as_the_healing_did(
    prunella: Any, orchestrator: ScriptedOrchestrator, outcome: str, code: int
) -> None:
    orchestrator.outcomes["web"] = outcome
    done = prunella("heal", "web", "--reason", "stuck", "--action", "scale-up")
    assert done.returncode == code
    assert done.stdout.startswith(f"web: scale-up {outcome}")
    action = orchestrator.actions[0]
    assert action.reason == "stuck"
    assert action.actor.startswith("cli:")


@pytest.mark.parametrize("words", [["heal"], ["resume"]], ids=" ".join)
def test_an_unknown_service_ends_with_2(prunella: Any, words: list[str]) -> None:
    done = prunella(*words, "nosuch")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "no service 'nosuch'\n"


def test_a_refused_heal_names_the_guard_and_how_to_pass_it(
    prunella: Any, orchestrator: ScriptedOrchestrator
) -> None:
    orchestrator.vetoes["db"] = {"min_healthy": "too few are well"}
    done = prunella("heal", "db")
    assert done.returncode == 1
    assert "min_healthy: too few are well (pass it with --override min_healthy)" in done.stderr
    assert prunella("heal", "db", "--override", "min_healthy").returncode == 0


def test_a_heal_that_is_not_waited_for_ends_well(prunella: Any) -> None:
    done = prunella("heal", "web", "--no-wait", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["success"] is None


def test_why_says_what_was_not_done(prunella: Any, orchestrator: ScriptedOrchestrator) -> None:
    orchestrator.vetoes["db"] = {"backoff": "wait 3 s"}
    orchestrator.decided = [
        DecisionRecord(
            id=1, service_id="db", timestamp=datetime(2026, 1, 1, tzinfo=UTC),
            reason="vetoed", detail="restart", guards=["backoff"],
        )
    ]  # fmt: skip
    lines = prunella("why", "db").stdout.splitlines()
    assert lines[0].startswith("db is failed (down): ")
    assert lines[1:5] == [
        "Seen: last check 2026-01-01 12:00:00",
        "Healing is watching. waiting",
        "  refused by backoff: wait 3 s",
        "Next look: 2026-01-01 12:00:05",
    ]
    assert lines[-1] == "  2026-01-01 00:00:00  vetoed: restart [backoff]"


def test_why_tells_what_a_platform_says_of_the_configuration(
    prunella: Any, orchestrator: ScriptedOrchestrator
) -> None:
    orchestrator.remarks = ["docker restarts it by itself as well"]
    lines = prunella("why", "web").stdout.splitlines()
    assert "  its configuration: docker restarts it by itself as well" in lines


def test_a_pause_has_an_end_and_a_resume_lifts_it(prunella: Any) -> None:
    done = prunella("pause", "web", "--for", "1h", "--reason", "works")
    assert done.returncode == 0
    assert done.stdout.startswith("web is paused until 2026-01-01 13:00:00 by cli:")
    assert prunella("resume", "web").stdout == "web: 1 hold or quarantine lifted\n"
    assert prunella("resume", "web").stdout == "web was not paused\n"


def test_a_pause_of_everything_needs_no_service(
    prunella: Any, orchestrator: ScriptedOrchestrator
) -> None:
    assert prunella("pause", "--for", "90").stdout.startswith("everything is paused until")
    assert [hold.service_id for hold in orchestrator.held] == [None]


def test_a_pause_for_no_duration_is_a_wrong_word(prunella: Any) -> None:
    done = prunella("pause", "--for", "soon")
    assert done.returncode == 2
    assert "expected a duration" in done.stderr


def test_history_is_newest_first_and_limited(
    prunella: Any, orchestrator: ScriptedOrchestrator
) -> None:
    for _ in range(3):
        heal = orchestrator.force_heal("web")
        asyncio.run_coroutine_threadsafe(heal, orchestrator.loop).result(timeout=10)
    shown = json.loads(prunella("history", "-n", "2", "--json").stdout)
    assert [action["id"] for action in shown] == ["3", "2"]
    assert prunella("history", "--service", "db").stdout == "nothing was healed yet\n"
    assert len(prunella("history").stdout.splitlines()) == 4


def test_debt_shows_what_is_still_to_be_taken_back(
    prunella: Any, orchestrator: ScriptedOrchestrator
) -> None:
    assert prunella("debt").stdout == "nothing is to be taken back\n"
    orchestrator.owed = [
        DebtRecord(
            service_id="web", kind="scale-up", before=2, granted=4, extended_count=1, action_id="7",
            due=datetime(2026, 1, 1, 12, 10, tzinfo=UTC),
        )
    ]  # fmt: skip
    (line,) = prunella("debt").stdout.splitlines()[1:]
    assert line.split() == ["web", "scale-up", "2", "→", "4", "2026-01-01", "12:10:00", "1", "7"]
    told = json.loads(prunella("debt", "--json").stdout)
    assert told == [debt.model_dump(mode="json") for debt in orchestrator.owed]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"action": "restart"}, "restart"),
        ({"action": "scale-up", "replicas": 5, "before": "4"}, "scale-up 4 → 5"),
        ({"action": "rollback", "revision": "v1", "before": "v2"}, "rollback v2 → v1"),
        (
            {"action": "rollback", "revision": f"shop@sha256:{'0a' * 32}", "before": "b1" * 20},
            "rollback b1b1b1b1 → shop@0a0a0a0a",
        ),
        ({"action": "scale-up", "replicas": 5}, "scale-up to 5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_history_says_from_what_to_what(
    prunella: Any, orchestrator: ScriptedOrchestrator, fields: dict[str, Any], words: str
) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    done = HealingAction(
        id="7", service_id="web", reason="why", timestamp=at, outcome="relapsed", **fields
    )
    orchestrator.actions = [done]
    (line,) = prunella("history").stdout.splitlines()[1:]
    assert " ".join(line.split()) == f"7 2026-01-01 00:00:00 web {words} relapsed - why"


def test_events_are_followed_until_interrupted(
    prunella: Any, orchestrator: ScriptedOrchestrator
) -> None:
    process = subprocess.Popen(
        prunella.line("events", "--json", "--service", "db"),
        env=prunella.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = None
    with process:
        try:
            waiting = _publisher(orchestrator)
            told = json.loads(process.stdout.readline())
            waiting.set()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert (told["topic"], told["serviceId"]) == ("service-failed", "db")


def _publisher(orchestrator: ScriptedOrchestrator) -> Any:
    """Say the same again and again until told to stop: nobody knows when they listen."""
    stop = threading.Event()

    def say() -> None:
        for _ in range(400):
            orchestrator.publish(Topic.SERVICE_FAILED, "db")
            if stop.wait(0.05):
                return

    threading.Thread(target=say).start()
    return stop


@pytest.mark.parametrize(
    "words", ["heal ", "why ", "pause ", "resume ", "history --service ", "events --service "]
)
def test_a_shell_can_complete_the_names_of_services(prunella: Any, words: str) -> None:
    for typed, offered in (("", ["db", "web"]), ("w", ["web"]), ("x", [])):
        assert prunella.offered(words + typed) == offered


def on_a_terminal(prunella: Any, *words: str, **environ: str) -> bytes:
    """What a command shows on a terminal of 80 columns."""
    ours, its = pty.openpty()
    environ = prunella.environ | {"TERM": "xterm-256color", "COLUMNS": "80"} | environ
    process = subprocess.Popen(
        prunella.line(*words), env=environ, stdout=its, stdin=its, stderr=its
    )
    os.close(its)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # how a terminal ends
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=20) == 0
    return shown


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_colour_is_for_terminals_whose_owner_wants_it(prunella: Any, no_colour: str) -> None:
    shown = on_a_terminal(prunella, "status", NO_COLOR=no_colour)
    assert (b"\x1b[" in shown) == (not no_colour)


def test_status_fits_a_terminal_of_80_columns(
    prunella: Any, orchestrator: ScriptedOrchestrator
) -> None:
    orchestrator.begin_anew(
        service(
            "payments-1", "recovering", uptime=99.98, response_time=9999.0, error_rate=1.0,
            restart_count=12345, replicas=Replicas(running=10, desired=12), revision="0a" * 20,
        )
    )  # fmt: skip
    lines = on_a_terminal(prunella, "status", NO_COLOR="1").decode().splitlines()
    table = lines[lines.index("") + 1 :]
    assert len(table) == 2, "nothing is folded"
    assert max(map(len, table)) <= 80
    assert table[1].split()[5:] == ["9999", "ms", "100", "%", "12345", "0a0a0a0a"]
