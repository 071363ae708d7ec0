"""The orchestrator from Python, on real processes: what a program that embeds it relies on."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest

from prunella import SelfHealingOrchestrator
from prunella.config import ConfigFaults, from_mapping
from prunella.core.model import ServiceId
from prunella.errors import (
    HealingRefusedError,
    PermanentError,
    TransientError,
    UnknownServiceError,
    UnknownWordError,
)
from prunella.runtime.notices import Notice, Topic
from prunella.testing.site import free_port
from prunella.wire import HealingAction

Eventually = Callable[[Callable[[], Any]], Awaitable[Any]]
SLEEPER = {"platform": "process", "process": {"command": ["sleep", "600"]}}
GHOST = {"platform": "process", "process": {"command": ["/no/such/thing"]}}
DEFAULTS = {
    "interval": "100ms",
    "timeout": "1s",
    "grace": "3s",
    "thresholds": {"response_time": "500ms"},
    "verify": {"soak": "200ms", "deadline": "20s"},
    "guards": {"backoff": {"base": "100ms", "cap": "200ms"}, "budget": {"actions": 10}},
}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def shop(port: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "prunella.demo.server", str(port)]
    probe = {"kind": "http", "url": f"http://127.0.0.1:{port}/"}
    return {"platform": "process", "process": {"command": command}, "probes": [probe]}


def config_of(folder: Path, **services: Any) -> Any:
    return from_mapping(
        {
            "state_dir": str(folder / "state"),
            "defaults": DEFAULTS,
            "fleet": {"pace": "100ms"},
            "services": services,
        }
    )


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Start an orchestrator on services; it ends, and stops them, with the test."""
    begun: list[SelfHealingOrchestrator] = []

    async def start(**services: Any) -> SelfHealingOrchestrator:
        orchestrator = SelfHealingOrchestrator(
            config_of(tmp_path, **services), store=f"sqlite:///{tmp_path}/prunella.db"
        )
        begun.append(orchestrator)
        await orchestrator.start_monitoring()
        return orchestrator

    yield start
    for orchestrator in begun:
        await orchestrator.stop_monitoring()


def well(orchestrator: SelfHealingOrchestrator) -> bool:
    health = orchestrator.get_system_health()
    return health.healthy == health.total_services > 0


def strike(orchestrator: SelfHealingOrchestrator, service: str = "shop") -> int:
    (victim,) = orchestrator.get_pids(service)
    os.kill(victim, signal.SIGKILL)
    return victim


def make_slow(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", "/fault/slow")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_services_are_brought_up_several_at_a_time(
    running: Callable[..., Awaitable[Any]], tmp_path: Path
) -> None:
    # A look ends once all four have begun: one at a time, the first would never end.
    here = tmp_path / "here"
    script = f"echo >>{here}; until [ $(wc -l <{here}) -ge 4 ]; do sleep 0.01; done"
    command = {"observe": ["sh", "-c", script], "restart": ["true"]}
    waits = {"platform": "command", "command": command}
    await asyncio.wait_for(running(a=waits, b=waits, c=waits, d=waits), 20)


async def test_trouble_with_one_service_at_the_start_is_told_as_it_is(
    running: Callable[..., Awaitable[Any]], tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "services").touch()
    with pytest.raises(TransientError, match="cannot use"):
        await running(shop=SLEEPER, till=SLEEPER)


async def test_a_program_hears_all_ten_events_and_reads_what_was_done(
    shop: dict[str, Any], port: int, tmp_path: Path, eventually: Eventually
) -> None:
    heard: list[Notice] = []
    counted: Counter[Topic] = Counter()

    async def count(notice: Notice) -> None:
        counted[notice.topic] += 1

    orchestrator = SelfHealingOrchestrator(config_of(tmp_path, shop=shop, ghost=GHOST))
    orchestrator.on("*", heard.append)
    for topic in Topic:
        orchestrator.on(topic.value, count)

    async def healed_of_slowness() -> list[HealingAction]:
        found = await orchestrator.get_healing_history(50)
        newest = next((action for action in found if action.service_id == "shop"), None)
        return found if newest and newest.success and newest.symptom == "slow" else []

    async with orchestrator:
        await eventually(lambda: orchestrator.get_service_health("ghost").phase == "quarantined")
        await eventually(lambda: orchestrator.get_service_health("shop").status == "healthy")
        victim = strike(orchestrator)
        await eventually(lambda: victim not in orchestrator.get_pids("shop"))
        await eventually(lambda: orchestrator.get_service_health("shop").status == "healthy")
        await eventually(lambda: asyncio.to_thread(make_slow, port))
        history = await eventually(healed_of_slowness)
        health = orchestrator.get_service_health("shop")
    await eventually(lambda: set(counted) == set(Topic))
    await eventually(lambda: heard[-1].topic is Topic.MONITORING_STOPPED)
    json.dumps([notice.data for notice in heard])
    of_shop = [action for action in history if action.service_id == "shop"]
    assert history == sorted(history, key=lambda action: -int(action.id)), "newest first"
    assert [action.symptom for action in of_shop if action.success][:2] == ["slow", "down"]
    assert (health.restart_count, health.last_restart) == (len(of_shop), of_shop[0].timestamp)
    topics = [notice.topic for notice in heard if notice.service == "shop"]
    struck = topics[topics.index(Topic.SERVICE_FAILED) :]
    assert struck.index(Topic.HEALING_STARTED) < struck.index(Topic.SERVICE_HEALED)
    healed = [n.data["recoveryTime"] for n in heard if n.topic is Topic.SERVICE_HEALED]
    assert healed == [action.recovery_time for action in reversed(of_shop) if action.success]


async def test_a_service_can_be_registered_by_itself_and_a_wrong_one_is_refused(
    eventually: Eventually, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNELLA_STATE_DIR", str(tmp_path / "state"))
    orchestrator = SelfHealingOrchestrator()
    with pytest.raises(ConfigFaults, match="platfrom"):
        orchestrator.register_service("shop", platfrom="process")
    orchestrator.register_service("shop", **SLEEPER)
    orchestrator.register_service("till", **SLEEPER)
    async with orchestrator:
        await eventually(lambda: well(orchestrator))
        assert orchestrator.get_system_health().total_services == 2
        (pid,) = orchestrator.get_pids("shop")
        with pytest.raises(PermanentError, match="reload"):
            orchestrator.register_service("late", **SLEEPER)
        with pytest.raises(UnknownServiceError, match="shop, till"):
            orchestrator.get_service_health("shed")
        left = await asyncio.to_thread(lambda: list(tmp_path.rglob("*.db")))
        assert left == [], "in memory, as nobody named a store"
    assert dead(pid)


async def test_why_says_that_all_is_well_once_it_is(running: Any, eventually: Eventually) -> None:
    orchestrator = await running(shop=SLEEPER)
    await eventually(lambda: well(orchestrator))

    async def says_so() -> bool:
        return bool((await orchestrator.why("shop")).now.startswith("well"))

    await eventually(says_so)


async def test_a_forced_heal_is_carried_out_verified_and_recorded_with_its_actor(
    running: Any, eventually: Eventually
) -> None:
    orchestrator = await running(shop=SLEEPER)
    await eventually(lambda: well(orchestrator))
    before = orchestrator.get_pids("shop")
    healed = await orchestrator.force_heal("shop", reason="trying it out", actor="ann")
    assert (healed.success, healed.actor, healed.reason) == (True, "ann", "trying it out")
    assert orchestrator.get_pids("shop") != before
    assert await orchestrator.get_healing_history() == [healed]


async def test_a_forced_heal_that_a_guard_refuses_does_nothing_until_the_guard_is_named(
    running: Any, eventually: Eventually
) -> None:
    pair = {"platform": "process", "process": {"command": ["sleep", "600"], "replicas": 2}}
    orchestrator = await running(pair=pair)
    await eventually(lambda: well(orchestrator))
    before = orchestrator.get_pids("pair")
    with pytest.raises(HealingRefusedError, match="instances would be left") as refused:
        await orchestrator.force_heal("pair")
    assert set(refused.value.vetoes) == {"min-healthy"}
    assert orchestrator.get_pids("pair") == before
    assert await orchestrator.get_healing_history() == []
    healed = await orchestrator.force_heal("pair", override={"min-healthy"})
    assert healed.success
    assert len(set(before) & set(orchestrator.get_pids("pair"))) == 1, "one replica, not both"


async def test_what_a_platform_cannot_do_is_refused_with_what_it_can(
    running: Any, eventually: Eventually
) -> None:
    orchestrator = await running(shop=SLEEPER)
    await eventually(lambda: well(orchestrator))
    with pytest.raises(HealingRefusedError, match="it can: restart"):
        await orchestrator.force_heal("shop", action="rollback")


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"action": "reboot"}, "no action 'reboot'; there are: restart, scale-up"),
        ({"override": ["budget", "hodl"]}, "no guard 'hodl'; there are: target, human"),
    ],
    ids=["action", "guard"],
)
async def test_an_order_in_unknown_words_is_refused_with_the_known_ones(
    running: Any, order: dict[str, Any], says: str
) -> None:
    orchestrator = await running(shop=SLEEPER)
    with pytest.raises(UnknownWordError, match=says):
        await orchestrator.force_heal("shop", **order)
    assert await orchestrator.get_healing_history() == []


async def test_a_second_order_during_a_heal_is_refused(
    running: Any, eventually: Eventually
) -> None:
    orchestrator = await running(shop=SLEEPER)
    await eventually(lambda: well(orchestrator))
    answers = await asyncio.gather(
        orchestrator.force_heal("shop"),
        orchestrator.force_heal("shop", override={"lease"}),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, HealingRefusedError) for answer in answers) == 1
    assert len(await orchestrator.get_healing_history()) == 1


async def test_a_pause_holds_until_it_expires_and_then_healing_goes_on_by_itself(
    running: Any, eventually: Eventually
) -> None:
    orchestrator = await running(shop=SLEEPER)
    await eventually(lambda: well(orchestrator))
    hold = await orchestrator.pause("shop", for_s=1.5, reason="moving", owner="ann")
    assert orchestrator.get_service_health("shop").paused
    strike(orchestrator)

    async def held() -> bool:
        return "hold" in (await orchestrator.why("shop")).vetoes

    await eventually(held)
    assert await orchestrator.get_healing_history() == []
    await eventually(lambda: well(orchestrator))
    (action,) = await orchestrator.get_healing_history()
    assert hold.expires is not None
    assert action.timestamp >= hold.expires
    assert not orchestrator.get_service_health("shop").paused


async def test_a_pause_of_everything_says_so_and_ends_when_it_is_lifted(
    running: Any, eventually: Eventually
) -> None:
    orchestrator = await running(shop=SLEEPER, till=SLEEPER)
    await eventually(lambda: well(orchestrator))
    await orchestrator.pause(None, owner="ann", reason="a move")
    assert orchestrator.not_ready() == ["paused by ann: a move"]
    strike(orchestrator)
    await eventually(lambda: orchestrator.get_service_health("shop").status == "failed")
    assert await orchestrator.get_healing_history() == []
    assert await orchestrator.resume("shop", actor="ann") == 0, "that one is not its own"
    assert await orchestrator.resume(None, actor="ann") == 1
    assert orchestrator.not_ready() == []
    await eventually(lambda: well(orchestrator))


async def test_resuming_ends_a_quarantine_and_what_is_mended_then_gets_well(
    running: Any, eventually: Eventually, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    service = {"platform": "process", "process": {"command": [str(program)]}}
    orchestrator = await running(shop=service)
    await eventually(lambda: orchestrator.get_service_health("shop").phase == "quarantined")
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    assert orchestrator.get_service_health("shop").status == "failed"
    assert await orchestrator.resume("shop", actor="ann") == 1
    await eventually(lambda: well(orchestrator))
    newest = (await orchestrator.get_healing_history())[0]
    await eventually(lambda: orchestrator.get_service_health("shop").phase == "watching")
    assert newest.outcome in (None, "recovered")


async def test_a_reload_adds_changes_and_removes_and_leaves_the_rest_alone(
    running: Any, eventually: Eventually, tmp_path: Path
) -> None:
    orchestrator = await running(kept=SLEEPER, changed=SLEEPER, gone=SLEEPER)
    await eventually(lambda: well(orchestrator))
    kept, changed, gone = (orchestrator.get_pids(name) for name in ("kept", "changed", "gone"))
    other = {"platform": "process", "process": {"command": ["sleep", "601"]}}
    found = await orchestrator.reload(
        config_of(tmp_path, kept=SLEEPER, changed=other, added=SLEEPER)
    )
    assert (found.added, found.changed, found.removed) == (
        (ServiceId("added"),),
        (ServiceId("changed"),),
        (ServiceId("gone"),),
    )
    await eventually(lambda: well(orchestrator))
    assert orchestrator.get_pids("kept") == kept
    assert orchestrator.get_pids("changed") != changed
    assert dead(gone[0])
    assert dead(changed[0])
    strike(orchestrator, "added")
    await eventually(lambda: orchestrator.get_service_health("added").restart_count == 1)


async def test_a_reload_to_what_cannot_be_built_is_refused_and_moves_nothing(
    running: Any, shop: dict[str, Any], eventually: Eventually, tmp_path: Path
) -> None:
    orchestrator = await running(shop=shop, other=SLEEPER)
    await eventually(lambda: well(orchestrator))
    before = [orchestrator.get_pids(name) for name in ("shop", "other")]
    tls = {"kind": "http", "url": "https://127.0.0.1:1/", "tls": {"ca_file": "/no/such/ca.pem"}}
    changed = {**shop, "probes": [*shop["probes"], tls]}
    with pytest.raises(PermanentError, match="shop: cannot use ca_file /no/such"):
        await orchestrator.reload(config_of(tmp_path, shop=changed, added=SLEEPER))
    assert [orchestrator.get_pids(name) for name in ("shop", "other")] == before
    strike(orchestrator)
    await eventually(lambda: orchestrator.get_service_health("shop").restart_count == 1)


async def test_what_cannot_be_taken_up_on_reload_is_taken_up_as_soon_as_it_can(
    running: Any, eventually: Eventually, tmp_path: Path
) -> None:
    orchestrator = await running(kept=SLEEPER)
    await eventually(lambda: well(orchestrator))
    obstacle = tmp_path / "state" / "services" / "first"
    obstacle.write_text("where its folder should be")
    await orchestrator.reload(config_of(tmp_path, kept=SLEEPER, first=SLEEPER, second=SLEEPER))
    await eventually(lambda: orchestrator.get_pids("second"))
    assert orchestrator.get_service_health("first").status == "unknown"
    obstacle.unlink()
    await eventually(lambda: well(orchestrator))
    assert len(orchestrator.get_pids("first")) == 1


def marked(folder: Path) -> dict[str, Any]:
    """A service whose processes are known by their words."""
    command = ["sh", "-c", f"sleep 600; : {folder}"]
    return {"platform": "process", "process": {"command": command}}


def runs_of(folder: Path) -> int:
    words = marked(folder)["process"]["command"][-1]
    return sum(words in words_of(found) for found in psutil.process_iter())


async def test_reloads_at_the_same_time_come_one_after_the_other(
    running: Any, eventually: Eventually, tmp_path: Path
) -> None:
    one = marked(tmp_path)
    orchestrator = await running(kept=one)
    files = [config_of(tmp_path, kept=one, **{f"s{n}": one, "both": one}) for n in range(4)]
    await asyncio.gather(*(orchestrator.reload(file) for file in files))
    await eventually(lambda: well(orchestrator))
    services = [service.id for service in orchestrator.get_system_health().services]
    assert sorted(services) == ["both", "kept", "s3"]
    await eventually(lambda: runs_of(tmp_path) == 3)


@pytest.mark.parametrize("turns", [1, 3, 10, 30])
async def test_told_to_end_during_a_reload_it_leaves_nothing(
    running: Any, tmp_path: Path, turns: int
) -> None:
    one = marked(tmp_path)
    orchestrator = await running(kept=one)
    file = config_of(tmp_path, kept=one, **{f"s{n}": one for n in range(5)})
    reload = asyncio.create_task(orchestrator.reload(file))
    for _ in range(turns):
        await asyncio.sleep(0)
    await orchestrator.stop_monitoring()
    await asyncio.gather(reload, return_exceptions=True)
    assert runs_of(tmp_path) == 0
    with pytest.raises(PermanentError, match="not running"):
        await orchestrator.reload(file)


async def test_two_that_read_the_ledger_while_it_is_written_get_every_line_once(
    running: Any, eventually: Eventually
) -> None:
    orchestrator = await running(shop=SLEEPER, ghost=GHOST)

    async def quarantined() -> bool:
        await asyncio.gather(*(orchestrator.why("ghost") for _ in range(5)))
        return bool(orchestrator.get_service_health("ghost").phase == "quarantined")

    await eventually(quarantined)

    async def recorded() -> list[str]:
        decisions, _ = await orchestrator.decisions("ghost", limit=100)
        reasons = [one.reason for one in decisions]
        return reasons if "exhausted" in reasons else []

    assert (await eventually(recorded)).count("exhausted") == 1


async def test_a_beginning_that_fails_leaves_nothing_running(tmp_path: Path) -> None:
    obstacle = tmp_path / "state" / "services" / "second"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("where its folder should be")
    config = config_of(tmp_path, first=marked(tmp_path), second=SLEEPER)
    with pytest.raises(TransientError, match="second"):
        async with SelfHealingOrchestrator(config, store="memory://"):
            pytest.fail("it has not begun")
    assert runs_of(tmp_path) == 0


async def test_left_running_a_service_outlives_the_orchestrator_and_is_adopted(
    running: Any, eventually: Eventually, tmp_path: Path
) -> None:
    first = await running(shop=SLEEPER)
    await eventually(lambda: well(first))
    before = first.get_pids("shop")
    await first.stop_monitoring(leave=True)
    assert not dead(before[0])
    second = await running(shop=SLEEPER)
    await eventually(lambda: well(second))
    assert second.get_pids("shop") == before


async def test_why_says_why_nothing_can_be_told(
    running: Callable[..., Awaitable[Any]], eventually: Eventually
) -> None:
    command = {"observe": ["sh", "-c", "exit 127"], "restart": ["true"]}
    orchestrator = await running(shop={"platform": "command", "command": command})

    async def remarks() -> list[str]:
        return list((await orchestrator.why("shop")).remarks)

    assert await eventually(remarks) == ["what runs cannot be told now: sh: exit code 127"]
