"""Containers on an Engine of our own: killed to serving again, and a thousand observed.

Docker's own ``restart: always`` doubles its pause for a container that has run for less than 10 s,
so each run is left alone for longer than that. Both containers share the host's network: what is
measured is who restarts, not how Docker publishes ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.machine import NotInTimeError, answers, await_end, free_port, own_cpu_s, running, until
from bench.report import Row, middle, spread
from tests.real.engine import Engine, missing
from tests.real.engine import running as engine_running
from tests.real.images import make_image

from prunella.config import from_mapping
from prunella.platforms._docker_api import Address, DockerApi
from prunella.runtime.orchestrator import SelfHealingOrchestrator

_SETTLED_S = 10.5  # a longer run is restarted after Docker's shortest pause
_LIMIT_S = 30.0
_SLICE_S = 5.0
_SLICES = 6
_CONFIG = """
store: "sqlite:///{folder}/prunella.db"
state_dir: "{folder}/state"
api: off
defaults:
  interval: 1s
  grace: 1ms
  verify: {{soak: 100ms, deadline: 20s}}
  guards:
    rise: 1
    budget: {{actions: 1000, window: 1s}}
    backoff: {{base: 1ms, cap: 1ms}}
    chain: {{ineffective: 1000, attempts: 1000, window: 1s}}
services:
  ours:
    platform: {platform}
    {platform}: {{{key}: ours, host: "unix://{socket}"}}
    probes: [{{kind: http, url: "http://127.0.0.1:{port}/"}}]
"""


def _start(engine: Engine, name: str, port: int, *options: str) -> None:
    shared = ("--network", "host", "--env", f"PORT={port}")
    engine.docker("run", "--detach", "--name", name, *shared, *options, "shop:1")
    until(lambda: answers(port), _LIMIT_S, f"{name} serves", 0.02)


def _deploy(engine: Engine, name: str, port: int) -> None:
    shared = ("--network", "host", "--env", f"PORT={port}")
    engine.docker("service", "create", "--detach", "--name", name, *shared, "shop:1")
    until(lambda: answers(port), _LIMIT_S, f"{name} serves", 0.02)


def _kill(engine: Engine, name: str, port: int) -> float:
    """Milliseconds from SIGKILL of its first process to the next answer."""
    found = engine.docker("ps", "--quiet", "--filter", f"name={name}")
    pidfd = os.pidfd_open(int(engine.docker("inspect", "--format", "{{.State.Pid}}", found)))
    try:
        start = time.perf_counter()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await_end(pidfd)
        until(lambda: answers(port), _LIMIT_S, f"{name} serves again")
        return 1000 * (time.perf_counter() - start)
    finally:
        os.close(pidfd)


@contextlib.contextmanager
def _prunella(engine: Engine, platform: str, port: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        folder = Path(made)
        config = folder / "prunella.yaml"
        key = {"docker": "container", "swarm": "service"}[platform]
        names = {"folder": folder, "socket": engine.socket, "platform": platform, "key": key}
        config.write_text(_CONFIG.format(port=port, **names))
        argv = [sys.executable, "-m", "bench.daemon", str(config)]
        with running(argv, folder / "output.log"):
            time.sleep(1.0)
            yield


def measure_kill(round_count: int = 7) -> list[Row]:
    figure, peer = "container: kill -9 to serving", "restart: always"
    if reason := missing():
        return [Row(figure, None, "ms", note=f"not measured: {reason}")]
    ports = free_port(), free_port()
    with engine_running() as engine:
        make_image(engine, "shop:1")
        _start(engine, "ours", ports[0])
        _start(engine, "theirs", ports[1], "--restart", "always")
        with _prunella(engine, "docker", ports[0]):
            took = _in_turns(engine, ports, round_count)
    return [_row(figure, peer, *took)]


def measure_swarm(round_count: int = 5) -> list[Row]:
    """Both services have Swarm's usual restart policy: after 5 s, on any end."""
    figure, peer = "task of a swarm: kill -9 to serving", "Swarm itself"
    if reason := missing():
        return [Row(figure, None, "ms", note=f"not measured: {reason}")]
    ports = free_port(), free_port()
    with engine_running() as engine:
        engine.begin_swarm()
        make_image(engine, "shop:1")
        for name, port in zip(("ours", "theirs"), ports, strict=True):
            _deploy(engine, name, port)
        with _prunella(engine, "swarm", ports[0]):
            took = _in_turns(engine, ports, round_count)
    return [_row(figure, peer, *took)]


def _in_turns(
    engine: Engine, ports: tuple[int, int], round_count: int
) -> tuple[list[float], list[float]]:
    """So that a busy moment of the machine is nobody's alone; the first round warms up."""
    ours, theirs = list[float](), list[float]()
    for _ in range(round_count + 1):
        time.sleep(_SETTLED_S)
        ours.append(_kill(engine, "ours", ports[0]))
        theirs.append(_kill(engine, "theirs", ports[1]))
    return ours[1:], theirs[1:]


def _row(figure: str, peer: str, ours: list[float], theirs: list[float]) -> Row:
    return Row(
        figure,
        middle(ours),
        "ms",
        peer=middle(theirs),
        peer_name=peer,
        ratio_limit=1.0,
        note=f"ours {spread(ours)}; {peer} {spread(theirs)}",
    )


def measure_many(container_count: int = 1000, running_count: int = 20) -> list[Row]:
    """What is calm is not asked about: how many of them run makes no difference to us."""
    figure = f"{container_count:,} containers, calm: CPU of one core"
    if reason := missing():
        return [Row(figure, None, "%", note=f"not measured: {reason}")]
    with engine_running() as engine:
        make_image(engine, "shop:1")
        asyncio.run(_make(engine, container_count, running_count))
        cpu, start_s = asyncio.run(_observe(engine, container_count, running_count))
    return [
        Row(
            figure,
            median(cpu),
            "%",
            limit=5.0,
            note=f"slices of {_SLICE_S:g} s: {spread(cpu)}; each asked for every 5 s; "
            f"{running_count} of them run, the others were never started; up in {start_s:.1f} s",
        )
    ]


async def _make(engine: Engine, count: int, running_count: int) -> None:
    api, room = DockerApi(Address(f"unix://{engine.socket}", _LIMIT_S)), asyncio.Semaphore(8)

    async def make(number: int) -> None:
        async with room:
            body = {"Image": "shop:1", "Cmd": ["serve"], "HostConfig": {"NetworkMode": "none"}}
            await api.post("containers/create", body, name=f"many-{number}")
            if number < running_count:
                await api.post(f"containers/many-{number}/start")

    await asyncio.gather(*(make(number) for number in range(count)))
    await api.close()


async def _observe(engine: Engine, count: int, running_count: int) -> tuple[list[float], float]:
    services = {
        f"s{number}": {
            "platform": "docker",
            "docker": {"container": f"many-{number}", "host": f"unix://{engine.socket}"},
        }
        for number in range(count)
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        config = from_mapping(
            {
                "store": f"sqlite:///{folder}/p.db",
                "state_dir": folder,
                "api": "off",
                "services": services,
            }
        )
        began = time.perf_counter()
        async with SelfHealingOrchestrator(config) as orchestrator:
            start_s = time.perf_counter() - began
            await asyncio.sleep(2 * _SLICE_S)
            _check(orchestrator, running_count)
            cpu: list[float] = []
            for _ in range(_SLICES):
                before_s = own_cpu_s()
                await asyncio.sleep(_SLICE_S)
                cpu.append(100 * (own_cpu_s() - before_s) / _SLICE_S)
    return cpu, start_s


def _check(orchestrator: SelfHealingOrchestrator, running_count: int) -> None:
    """What is calm must be known, or the figure says nothing."""
    healthy = orchestrator.get_system_health().healthy
    if healthy != running_count:
        raise NotInTimeError(f"{healthy} services are known healthy, and not {running_count}")
