"""Commands that need no daemon."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pytest

from prunella import plugins
from prunella.cli.heal import Remedy
from prunella.core.ledger import Finish, Grant, Holder, Intent, Step
from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    IncidentId,
    Instant,
    Outcome,
    ServiceId,
    Stamp,
    SymptomKind,
)
from prunella.testing.remarking import UNREACHABLE

HEAVY = [
    "asyncio", "fastapi", "psutil", "pydantic", "rich", "sqlalchemy", "structlog", "yaml",
]  # fmt: skip


def at(second: float) -> Stamp:
    return Stamp(datetime(2026, 1, 1, 0, 0, int(second), tzinfo=UTC), Instant(second), "boot")


async def fill(url: str) -> None:
    """A store with one action that recovered and one that still runs."""
    store = plugins.stores()["sqlite"].open(url, False)  # noqa: FBT003 - the plugin's shape
    epoch = await store.claim(Holder("host", os.getpid(), "1", "boot", "id"), at(0))
    for second, name in enumerate(("web", "db"), start=1):
        service = ServiceId(name)
        action = Action(ActionKind.RESTART, service)
        if name == "db":
            action = Action(ActionKind.SCALE_UP, service, replicas=4, before="2")
        intent = Intent(
            action, IncidentId(f"i{second}"), "it is down",
            SymptomKind.DOWN, "prunella", at(second), at(0), Event.CONFIRMED,
            grant=Grant(2, 4, at(30)) if name == "db" else None,
        )  # fmt: skip
        begun = await store.begin(intent, lambda _: (), at(second), epoch=epoch)
        assert isinstance(begun, int)
        if name == "web":
            finish = Finish(ActionId(begun), Outcome.RECOVERED, recovery_time_ms=1500.0)
            executed = Step(service, Event.EXECUTED, Phase.VERIFYING, at(5), "done")
            await store.advance(executed, epoch=epoch)
            recovered = Step(service, Event.RECOVERED, Phase.WATCHING, at(9), "well", finish=finish)
            await store.advance(recovered, epoch=epoch)
    await store.release(epoch=epoch)
    await store.close()


@pytest.fixture
def filled(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/state/prunella.db"
    (tmp_path / "state").mkdir()
    asyncio.run(fill(url))
    return url


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.yaml"
    file.write_text(
        f"store: sqlite:///{tmp_path}/state/prunella.db\n"
        "services:\n"
        "  web:\n"
        "    platform: process\n"
        "    process: {command: [sleep, '1000']}\n"
    )
    return file


@pytest.mark.parametrize("way", ["usual", "--config", "here"])
def test_history_is_read_from_the_store_when_no_daemon_answers(
    alone: Any, filled: str, good: Path, way: str
) -> None:
    words = {"--store": ["--store", filled], "--config": ["-c", str(good)]}.get(way, [])
    if way == "here":
        good.rename(good.with_name("prunella.yaml"))
    done = alone("history", "--json", *words)
    assert done.returncode == 0, done.stderr
    shown = [(one["serviceId"], one["outcome"]) for one in json.loads(done.stdout)]
    assert shown == [("db", None), ("web", "recovered")]


def test_history_from_the_store_speaks_to_people_too(alone: Any, filled: str) -> None:
    lines = alone("history", "--store", filled, "--service", "web").stdout.splitlines()
    assert " ".join(lines[0].split()) == "ID TIME SERVICE ACTION OUTCOME RECOVERY REASON"
    words = " ".join(lines[1].split()).partition(" ")[2]
    assert words == "2026-01-01 00:00:01 web restart recovered 1500 ms it is down"


def test_debts_are_read_from_the_store_when_no_daemon_answers(alone: Any, filled: str) -> None:
    (debt,) = json.loads(alone("debt", "--json").stdout)
    assert (debt["serviceId"], debt["kind"]) == ("db", "scale-up")
    assert (debt["before"], debt["granted"], debt["extendedCount"]) == (2, 4, 0)
    assert "scale-up 2 → 4" in alone("debt", "--store", filled).stdout


@pytest.mark.parametrize("url", ["nope:///x", "sqlite:///nowhere/x.db"])
def test_a_store_that_cannot_be_read_is_one_clear_line(alone: Any, url: str) -> None:
    done = alone("history", "--store", url)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_check_counts_the_services_of_a_good_file(alone: Any, good: Path) -> None:
    done = alone("check", good)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == f"{good}: valid, 1 service"
    told = json.loads(alone("check", good, "--json").stdout)
    assert told["valid"] is True
    assert told["services"][0]["id"] == "web"


def test_check_names_every_fault_with_its_place(alone: Any, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("colour: red\nservices:\n  web:\n    platform: procses\n")
    done = alone("check", file)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"{file}:1:1: unknown key 'colour'")
    assert any(line.startswith(f"{file}:4:15: ") for line in lines)
    told = json.loads(alone("check", file, "--json").stdout)
    assert told["valid"] is False
    assert len(told["faults"]) == len(lines)


def test_check_of_a_file_that_is_not_there_ends_with_2(alone: Any) -> None:
    done = alone("check", "nowhere.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("nowhere.yaml: cannot be read")


def test_run_of_a_bad_file_ends_with_2_and_its_faults(alone: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("services: 7\n")
    done = alone("run", "bad.yaml")
    assert done.returncode == 2
    assert "bad.yaml:1:11: " in done.stderr


def test_the_schema_is_json_schema(alone: Any) -> None:
    assert json.loads(alone("schema").stdout)["$schema"].startswith("https://json-schema.org/")


def test_plugins_lists_each_kind_with_what_it_is(alone: Any) -> None:
    told = json.loads(alone("plugins", "--json").stdout)
    assert {("probe", "http"), ("store", "sqlite")} <= {(one["type"], one["kind"]) for one in told}
    assert all(one["description"] for one in told)
    assert alone("plugins").stdout.splitlines()[0].split() == ["TYPE", "KIND", "DESCRIPTION"]


def test_platforms_tells_what_each_can_do_and_whether_it_is_reachable(plugged: Any) -> None:
    told = {one["kind"]: one for one in json.loads(plugged("platforms", "--json").stdout)}
    assert told["command"]["type"] == "platform"
    assert (told["command"]["reachable"], told["command"]["reason"]) == (None, "")
    assert told["mute"]["can"] == ["restart"]
    assert (told["mute"]["reachable"], told["mute"]["reason"]) == (False, "no answer within 3 s")
    remarking = plugged("platforms").stdout.splitlines()
    assert remarking[0].split() == ["TYPE", "KIND", "CAN", "REACHABLE"]
    rows = [" ".join(line.split()) for line in remarking]
    assert f"platform remarking restart, scale-up no: {UNREACHABLE}" in rows
    assert "release remarking rollback -" in rows


@pytest.mark.parametrize("words", [["nonsense"], ["history", "-n", "0"]], ids=" ".join)
def test_wrong_words_end_with_2(alone: Any, words: list[str]) -> None:
    assert alone(*words).returncode == 2


def test_the_version_is_that_of_the_distribution(alone: Any) -> None:
    assert alone("--version").stdout == f"prunella {version('prunella')}\n"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("he", ["heal"]),
        ("heal web --action sca", ["scale-up", "scale-down"]),
        ("heal web --override min", ["min-healthy"]),
        ("init proc", ["process"]),
        ("init comm", []),
        ("heal ", []),
    ],
)
def test_a_shell_can_complete_what_is_known_without_a_daemon(
    alone: Any, words: str, offered: list[str]
) -> None:
    assert alone.offered(words) == offered


def test_every_remedy_that_there_is_can_be_ordered() -> None:
    assert set(get_args(Remedy)) == set(ActionKind)


def test_help_imports_nothing_heavy(alone: Any) -> None:
    code = (
        "import sys, prunella.cli\n"
        "sys.argv = ['prunella', '--help']\n"
        "try:\n    prunella.cli.main()\n"
        f"finally:\n    print(*(m for m in {HEAVY!r} if m in sys.modules), file=sys.stderr)\n"
    )
    line = [*alone.line()[:1], "-c", code]
    done = subprocess.run(line, env=alone.environ, capture_output=True, text=True, check=True)
    assert "heal" in done.stdout
    assert done.stderr.split() == []
