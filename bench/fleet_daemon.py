"""Many services in one daemon, measured from inside: ``python -m bench.fleet_daemon PLAN``.

The real orchestrator with the real sqlite store, on uvloop; the targets answer from a process of
their own. The plan is JSON (`Plan`), and so is what is printed at the end (`Found`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from bench.listener import Listener, listener
from bench.machine import own_cpu_s, rss_mib
from bench.report import percentile

from prunella.app import on_fast_loop, set_up_logging
from prunella.config import from_mapping
from prunella.core.model import Action, Epoch, Observation, Verdict
from prunella.platforms.command import CommandPlatform, CommandSpec
from prunella.plugins import (
    PlatformContext,
    PlatformPlugin,
    ProbeContext,
    ProbePlugin,
    platforms,
    probes,
)
from prunella.probes.http import HttpProbe, HttpSpec
from prunella.runtime.orchestrator import SelfHealingOrchestrator
from prunella.runtime.scheduler import Scheduler

_FALL = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        sick_count: how many of the services lose their target after the steady slices.
    """

    service_count: int
    interval_s: float
    slice_count: int
    slice_s: float
    warm_up_s: float
    sick_count: int = 0
    sick_s: float = 0.0


@dataclass(slots=True)
class Found:
    """What was measured; one value per slice where it is a list."""

    config_s: float = 0.0
    start_s: float = 0.0
    healthy_count: int = 0
    checks_per_s: list[float] = field(default_factory=list[float])
    cpu_ratio: list[float] = field(default_factory=list[float])
    cpu_per_check_us: list[float] = field(default_factory=list[float])
    late_p99_ms: list[float] = field(default_factory=list[float])
    late_worst_ms: list[float] = field(default_factory=list[float])
    rss_mib: float = 0.0
    peak_mib: float = 0.0
    stall_count: float = 0.0
    action_ms: list[float] = field(default_factory=list[float])


class Stopwatch:
    """From the failing check that confirms a fault to the start of the action it leads to."""

    def __init__(self) -> None:
        self.took_ms: list[float] = []
        self._fails: dict[str, int] = {}
        self._decided: dict[str, float] = {}

    def seen(self, service: str, observation: Observation) -> None:
        if observation.verdict is not Verdict.FAIL:
            self._fails.pop(service, None)
            return
        self._fails[service] = count = self._fails.get(service, 0) + 1
        if count == _FALL:
            self._decided[service] = time.monotonic()

    def acts(self, service: str) -> None:
        decided = self._decided.pop(service, None)
        if decided is not None:
            self.took_ms.append(1000 * (time.monotonic() - decided))


class _Probe(HttpProbe):
    def __init__(self, spec: HttpSpec, context: ProbeContext, watch: Stopwatch) -> None:
        super().__init__(spec, context)
        self._service, self._watch = context.service, watch

    async def check(self) -> Observation:
        observation = await super().check()
        self._watch.seen(self._service, observation)
        return observation


class _Platform(CommandPlatform):
    def __init__(self, spec: CommandSpec, context: PlatformContext, watch: Stopwatch) -> None:
        super().__init__(spec, context)
        self._service, self._watch = context.service, watch

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:
        self._watch.acts(self._service)
        await super().execute(action, epoch=epoch)


def timed(watch: Stopwatch) -> None:
    """Have the two plugins tell the stopwatch, in this process only."""
    http, command = probes()["http"], platforms()["command"]
    cast("dict[str, ProbePlugin]", probes())["http"] = replace(
        http, build=lambda spec, context: _Probe(spec, context, watch)
    )
    cast("dict[str, PlatformPlugin]", platforms())["command"] = replace(
        command, build=lambda spec, context: _Platform(spec, context, watch)
    )


def _service(number: int, port: int, interval_s: float) -> dict[str, Any]:
    address = f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
    probe = {"kind": "http", "url": f"http://{address}:{port}/", "interval": interval_s}
    command = {"observe": ["true"], "restart": ["true"]}
    return {"platform": "command", "command": command, "probes": [probe]}


def _mapping(plan: Plan, folder: Path, well: Listener, sick: Listener) -> dict[str, Any]:
    return {
        "store": f"sqlite:///{folder}/prunella.db",
        "state_dir": str(folder),
        "api": "off",
        "defaults": {"grace": 0.001, "guards": {"fall": _FALL}},
        "fleet": {"pace": 0.05},  # so many actions at once would be spread out on purpose
        "services": {
            f"s{n}": _service(n, (sick if n < plan.sick_count else well).port, plan.interval_s)
            for n in range(plan.service_count)
        },
    }


async def _steady(plan: Plan, orchestrator: SelfHealingOrchestrator, found: Found) -> None:
    scheduler: Scheduler = orchestrator._scheduler  # noqa: SLF001 - its measuring point is there
    await asyncio.sleep(plan.warm_up_s)
    for _ in range(plan.slice_count):
        late = array("d")
        scheduler.on_lateness = late.append
        checks, cpu_s, start = scheduler.started_count, own_cpu_s(), time.perf_counter()
        await asyncio.sleep(plan.slice_s)
        wall_s, used_s = time.perf_counter() - start, own_cpu_s() - cpu_s
        done = scheduler.started_count - checks
        found.checks_per_s.append(done / wall_s)
        found.cpu_ratio.append(used_s / wall_s)
        found.cpu_per_check_us.append(used_s / done * 1e6)
        found.late_p99_ms.append(1000 * percentile(late, 0.99))
        found.late_worst_ms.append(1000 * max(late))
    scheduler.on_lateness = None
    found.healthy_count = orchestrator.get_system_health().healthy
    found.rss_mib, found.peak_mib = rss_mib(), rss_mib("VmHWM")
    found.stall_count = orchestrator.figures()["stalls"]


async def watch(plan: Plan) -> int:
    found, stopwatch = Found(), Stopwatch()
    if plan.sick_count:
        timed(stopwatch)
    with _targets() as (folder, well, sick):
        start = time.perf_counter()
        config = from_mapping(_mapping(plan, folder, well, sick))
        found.config_s = time.perf_counter() - start
        orchestrator = SelfHealingOrchestrator(config)
        start = time.perf_counter()
        await orchestrator.start_monitoring()
        gc.collect()
        gc.freeze()  # as the daemon does
        found.start_s = time.perf_counter() - start
        try:
            await _steady(plan, orchestrator, found)
            if plan.sick_count:
                sick.end()
                await asyncio.sleep(plan.sick_s)
                found.action_ms = stopwatch.took_ms
        finally:
            await orchestrator.stop_monitoring()
    print(json.dumps(asdict(found)), flush=True)
    return 0


@contextlib.contextmanager
def _targets() -> Iterator[tuple[Path, Listener, Listener]]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        listener() as well,
        listener() as sick,
    ):
        yield Path(folder), well, sick


if __name__ == "__main__":
    set_up_logging()
    raise SystemExit(on_fast_loop(watch(Plan(**json.loads(sys.argv[1])))))
