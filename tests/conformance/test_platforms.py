"""Every platform, built in, third-party or fake, obeys the same rules against the real thing.

A target is found by the platform's kind: a platform without one is a failure, not a skip.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    Fact,
    FactKind,
    Instance,
    InstanceId,
    InstanceState,
    ServiceId,
)
from prunella.errors import PermanentError, PrunellaError
from prunella.plugins import PlatformContext, platforms
from prunella.ports import Platform, SupportsLifecycle
from prunella.runtime.clock import SystemClock
from prunella.testing.clock import SimClock
from prunella.testing.platform import FakePlatform

SERVICE = ServiceId("web")
LOOP = [sys.executable, "-c", "import signal\nwhile True: signal.pause()"]

# Stands for any supervisor that is driven by commands: one child behind a pid file.
PIDFILE_SCRIPT = """
import os, subprocess, sys
verb, path = sys.argv[1:]
def living():
    try:
        pid = open(path).read()
        return pid if open(f"/proc/{pid}/stat").read().rsplit(")")[-1].split()[0] != "Z" else ""
    except OSError:
        return ""
if verb == "observe":
    print(living())
    sys.exit(0 if living() else 3)
if living():
    os.kill(int(living()), 9)
    while living():
        pass
child = subprocess.Popen(
    [sys.executable, "-c", "import signal\\nwhile True: signal.pause()"],
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    start_new_session=True,
)
open(path + ".new", "w").write(str(child.pid))
os.rename(path + ".new", path)
with open(path + ".starts", "a") as starts:
    starts.write("x")
"""


@dataclass
class Bench:
    """One platform with a running target, and what only its test may do to that target."""

    platform: Platform
    kill: Callable[[Instance], None]
    lives: Callable[[Instance], bool]
    blind: Callable[[], Platform]  # the same platform in front of a target that cannot be read
    tells_facts: bool
    facts: list[Fact] = field(default_factory=list[Fact])


def kill_pid_of_identity(instance: Instance) -> None:
    os.kill(int(instance.identity.split("@")[0]), signal.SIGKILL)


def pid_of_identity_lives(instance: Instance) -> bool:
    stat = Path(f"/proc/{instance.identity.split('@')[0]}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"


def context(folder: Path, facts: list[Fact]) -> PlatformContext:
    return PlatformContext(SERVICE, SystemClock(), folder, facts.append)


async def process_bench(folder: Path, stack: AsyncExitStack) -> Bench:
    plugin, facts = platforms()["process"], list[Fact]()
    platform = plugin.build(plugin.spec.model_validate({"command": LOOP}), context(folder, facts))
    assert isinstance(platform, SupportsLifecycle)
    stack.push_async_callback(platform.close)
    stack.push_async_callback(platform.stop)
    await platform.ensure()

    def blind() -> Platform:
        never_looked = plugin.spec.model_validate({"command": LOOP})
        return plugin.build(never_looked, context(folder / "other", facts))

    return Bench(
        platform, kill_pid_of_identity, pid_of_identity_lives, blind, tells_facts=True, facts=facts
    )


async def command_bench(folder: Path, stack: AsyncExitStack) -> Bench:
    plugin, facts = platforms()["command"], list[Fact]()
    script, pid_file = folder / "script.py", folder / "pid"
    script.write_text(PIDFILE_SCRIPT)
    run = [sys.executable, str(script)]
    body = {
        "observe": [*run, "observe", str(pid_file)],
        "restart": [*run, "restart", str(pid_file)],
    }
    platform = plugin.build(plugin.spec.model_validate(body), context(folder, facts))
    await platform.execute(Action(ActionKind.RESTART, SERVICE), epoch=Epoch(1))
    stack.callback(lambda: end_quietly(int(pid_file.read_text())))

    def blind() -> Platform:
        absent = plugin.spec.model_validate(body | {"observe": [str(folder / "absent")]})
        return plugin.build(absent, context(folder, facts))

    return Bench(
        platform, kill_pid_of_identity, pid_of_identity_lives, blind, tells_facts=False, facts=facts
    )


async def fake_bench(folder: Path, stack: AsyncExitStack) -> Bench:
    facts = list[Fact]()
    platform = FakePlatform(SERVICE, SimClock(), on_fact=facts.append)
    await platform.ensure()

    def blind() -> Platform:
        broken = FakePlatform(SERVICE, SimClock())
        broken.break_observe()
        return broken

    def kill(instance: Instance) -> None:
        platform.crash(instance.id)

    def lives(instance: Instance) -> bool:
        return platform.run_of(instance.id) == instance

    return Bench(platform, kill, lives, blind, tells_facts=True, facts=facts)


BENCHES = {"process": process_bench, "command": command_bench, "fake": fake_bench}
KINDS = sorted({*platforms(), "fake"})


def end_quietly(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture(params=KINDS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield await BENCHES[request.param](tmp_path, stack)


async def look(bench: Bench) -> Instance:
    (instance,) = (await bench.platform.observe()).instances
    return instance


async def look_until(bench: Bench, state: InstanceState) -> Instance:
    async with asyncio.timeout(5):
        while (  # noqa: ASYNC110 - a platform may tell of an end by being asked only
            instance := await look(bench)
        ).state is not state:
            await asyncio.sleep(0.002)
    return instance


def restart_of(instance: Instance) -> Action:
    return Action(ActionKind.RESTART, SERVICE, instance.id, instance.identity)


async def test_a_started_service_is_running_under_an_identity(bench: Bench) -> None:
    status = await bench.platform.observe()
    assert [i.state for i in status.instances] == [InstanceState.RUNNING]
    assert status.instances[0].identity
    assert status.desired == 1


async def test_observing_twice_tells_the_same_of_an_untouched_service(bench: Bench) -> None:
    assert await bench.platform.observe() == await bench.platform.observe()


async def test_a_target_that_is_killed_is_seen_as_exited(bench: Bench) -> None:
    before = await look(bench)
    bench.kill(before)
    after = await look_until(bench, InstanceState.EXITED)
    assert (after.id, after.identity) == (before.id, before.identity)


async def test_an_end_that_nobody_asked_for_is_told_once_as_a_fact(bench: Bench) -> None:
    bench.kill(await look(bench))
    after = await look_until(bench, InstanceState.EXITED)
    told = [(fact.kind, fact.instance) for fact in bench.facts]
    assert told == ([(FactKind.EXITED, after.id)] if bench.tells_facts else [])


async def test_a_restart_is_another_run_and_no_fault(bench: Bench) -> None:
    before = await look(bench)
    await bench.platform.execute(restart_of(before), epoch=Epoch(1))
    after = await look(bench)
    assert after.state is InstanceState.RUNNING
    assert after.identity != before.identity
    assert bench.facts == []


async def test_a_restart_brings_a_dead_service_back(bench: Bench) -> None:
    bench.kill(await look(bench))
    dead = await look_until(bench, InstanceState.EXITED)
    await bench.platform.execute(restart_of(dead), epoch=Epoch(1))
    alive = await look(bench)
    assert alive.state is InstanceState.RUNNING
    assert alive.identity != dead.identity


async def test_the_same_restart_twice_makes_one_new_run_only(bench: Bench) -> None:
    action = restart_of(await look(bench))
    await bench.platform.execute(action, epoch=Epoch(1))
    once = await look(bench)
    await bench.platform.execute(action, epoch=Epoch(1))
    assert await look(bench) == once


async def test_a_restart_with_a_stale_identity_leaves_the_new_run_alone(bench: Bench) -> None:
    first = await look(bench)
    await bench.platform.execute(restart_of(first), epoch=Epoch(1))
    await bench.platform.execute(restart_of(await look(bench)), epoch=Epoch(1))
    third = await look(bench)
    await bench.platform.execute(restart_of(first), epoch=Epoch(1))
    assert await look(bench) == third


async def test_a_restart_of_the_whole_service_reaches_its_instance(bench: Bench) -> None:
    before = await look(bench)
    await bench.platform.execute(replace(restart_of(before), instance=None), epoch=Epoch(1))
    assert (await look(bench)).identity != before.identity


async def test_what_a_platform_did_not_declare_is_refused_and_changes_nothing(
    bench: Bench,
) -> None:
    before = await look(bench)
    refused = [kind for kind in ActionKind if kind not in bench.platform.capabilities]
    assert refused
    for kind in refused:
        with pytest.raises(PermanentError, match=kind):
            await bench.platform.execute(Action(kind, SERVICE), epoch=Epoch(1))
    assert await look(bench) == before


async def test_an_instance_that_does_not_exist_is_refused(bench: Bench) -> None:
    before = await look(bench)
    stray = replace(restart_of(before), instance=InstanceId("no-such-one"))
    with pytest.raises(PermanentError, match="no-such-one"):
        await bench.platform.execute(stray, epoch=Epoch(1))
    assert await look(bench) == before


async def test_a_target_that_cannot_be_read_is_an_error_and_not_an_answer(bench: Bench) -> None:
    blind = bench.blind()
    with pytest.raises(PrunellaError):
        await blind.observe()
    await blind.close()


async def test_letting_go_does_not_touch_the_service(bench: Bench) -> None:
    before = await look(bench)
    await bench.platform.close()
    assert bench.lives(before)


@pytest.mark.parametrize("kind", sorted(platforms()))
def test_a_plugin_names_itself_in_lower_case_and_as_its_class_does(kind: str) -> None:
    plugin = platforms()[kind]
    assert plugin.kind == kind == kind.lower()


@pytest.mark.parametrize("kind", sorted(platforms()))
def test_a_spec_is_frozen_and_refuses_unknown_keys(kind: str) -> None:
    spec = platforms()[kind].spec
    assert spec.model_config.get("frozen") is True
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        spec.model_validate({"no_such_key": 1})


@pytest.mark.parametrize("kind", sorted(platforms()))
def test_every_field_of_a_spec_is_described(kind: str) -> None:
    fields = platforms()[kind].spec.model_fields
    assert [name for name, described in fields.items() if not described.description] == []
