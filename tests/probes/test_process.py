from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from prunella.core.model import Cause, ServiceId, Verdict
from prunella.plugins import ProbeContext, probes
from prunella.ports import Probe
from prunella.runtime.clock import SystemClock

Build = Callable[..., Probe]
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def start() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Run a Python program that says "up" when it is; it is killed at the end."""
    children: list[subprocess.Popen[bytes]] = []

    def run(program: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        return child

    yield run
    for child in children:
        child.kill()
        child.communicate()


IDLE = "print('up', flush=True); input()"
BUSY = "print('up', flush=True)\nwhile True: pass"


async def test_a_process_that_lives_passes(build: Build) -> None:
    assert (await build("process", pids=(os.getpid(),)).check()).verdict is Verdict.PASS


async def test_no_process_is_refused(build: Build) -> None:
    observation = await build("process").check()
    assert (observation.cause, observation.detail) == (Cause.REFUSED, "no process")


async def test_a_process_that_is_gone_is_refused(
    build: Build, start: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    child = start(IDLE)
    child.kill()
    child.wait()
    assert (await build("process", pids=(child.pid,)).check()).cause is Cause.REFUSED


async def test_a_zombie_is_dead(
    build: Build, start: Callable[[str], subprocess.Popen[bytes]], eventually: Eventually
) -> None:
    child = start(IDLE)
    child.kill()
    stat = Path(f"/proc/{child.pid}/stat")
    await eventually(lambda: ") Z " in stat.read_text())
    assert (await build("process", pids=(child.pid,)).check()).cause is Cause.REFUSED


async def test_several_processes_live_while_one_of_them_does(
    build: Build, start: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    dead = [start(IDLE) for _ in range(2)]
    for child in dead:
        child.kill()
        child.wait()
    pids = (dead[0].pid, dead[1].pid, os.getpid())
    assert (await build("process", pids=pids, memory="100GiB").check()).verdict is Verdict.PASS
    assert (await build("process", pids=(*pids, 1), memory=1).check()).cause is Cause.SATURATED


async def test_one_replica_is_looked_at_alone_where_it_is_named(
    start: Callable[[str], subprocess.Popen[bytes]],
) -> None:
    child = start(IDLE)
    child.kill()
    child.wait()
    pids = {None: (child.pid, os.getpid()), "0": (child.pid,), "1": (os.getpid(),)}
    context = ProbeContext(ServiceId("web"), SystemClock(), lambda of: pids.get(of, ()))

    async def verdict(**keys: str) -> Verdict:
        plugin = probes()["process"]
        probe = plugin.build(plugin.spec.model_validate(keys), context)
        return (await probe.check()).verdict

    assert await verdict() is Verdict.PASS
    assert await verdict(instance="0") is Verdict.FAIL
    assert await verdict(instance="1") is Verdict.PASS
    assert await verdict(instance="2") is Verdict.FAIL


async def test_memory_above_its_limit_is_saturated(build: Build) -> None:
    observation = await build("process", pids=(os.getpid(),), memory="1MiB").check()
    assert observation.cause is Cause.SATURATED
    assert observation.detail.endswith("limit 1.0 MiB")


async def test_descriptors_above_their_limit_are_saturated(build: Build) -> None:
    observation = await build("process", pids=(os.getpid(),), descriptors=1).check()
    assert observation.cause is Cause.SATURATED
    assert observation.detail.endswith("descriptors, limit 1")


async def test_cpu_is_judged_over_the_time_since_the_last_check(
    build: Build,
    start: Callable[[str], subprocess.Popen[bytes]],
    eventually: Eventually,
) -> None:
    child = start(BUSY)
    probe = build("process", pids=(child.pid,), cpu=0.05)
    assert (await probe.check()).verdict is Verdict.PASS  # nothing to compare with yet
    stat = Path(f"/proc/{child.pid}/stat")
    before = _ticks(stat)
    await eventually(lambda: _ticks(stat) >= before + 10)
    observation = await probe.check()
    assert observation.cause is Cause.SATURATED
    assert "of a core, limit 0.05" in observation.detail
    assert observation.load is not None
    assert observation.load > 1.0


async def test_the_load_is_that_of_the_resource_that_is_nearest_to_its_limit(build: Build) -> None:
    me = (os.getpid(),)
    assert (await build("process", pids=me).check()).load is None
    memory = await build("process", pids=me, memory="100GiB").check()
    assert memory.verdict is Verdict.PASS
    assert memory.load is not None
    assert 0.0 < memory.load < 0.1
    both = await build("process", pids=me, memory="100GiB", descriptors=1).check()
    assert both.load is not None
    assert both.load > 1.0
    assert both.load == int(both.load), "descriptors are counted"


async def test_an_idle_process_is_not_saturated(
    build: Build, start: Callable[[str], subprocess.Popen[bytes]], eventually: Eventually
) -> None:
    child = start(IDLE)
    probe = build("process", pids=(child.pid,), cpu=0.5, memory="1GiB", descriptors=1000)
    await probe.check()
    before = _ticks(Path("/proc/self/stat"))
    await eventually(lambda: sum(range(10000)) > 0 and _ticks(Path("/proc/self/stat")) > before)
    assert (await probe.check()).verdict is Verdict.PASS


def _ticks(stat: Path) -> int:
    fields = stat.read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
