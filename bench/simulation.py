"""How fast the engine runs on virtual time."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from statistics import median

from bench.machine import own_cpu_s
from bench.report import Row, spread

from prunella.simulate.driver import Simulation

_SERVICES = 500
_VIRTUAL_S = 1500.0


async def _run(seed: int) -> tuple[float, float]:
    """Observations per second of wall time, and of CPU time."""
    simulation = Simulation(seed=seed)
    await simulation.start([f"s{number}" for number in range(_SERVICES)])
    for number in range(10):
        simulation.at(100.0 + 100 * number, partial(simulation.crash, f"s{number}"))
    start, cpu_s = time.perf_counter(), own_cpu_s()
    await simulation.run(_VIRTUAL_S)
    wall_s, used_s = time.perf_counter() - start, own_cpu_s() - cpu_s
    assert len(simulation.effects) == 10, "each crash was healed"
    return simulation.observation_count / wall_s, simulation.observation_count / used_s


def measure(run_count: int = 7) -> list[Row]:
    runs = [asyncio.run(_run(seed)) for seed in range(run_count)]
    walls, cpus = [wall for wall, _ in runs], [cpu for _, cpu in runs]
    return [
        Row(
            "simulation: observations a second",
            median(walls),
            "/s",
            limit=100_000,
            at_least=True,
            note=f"{spread(walls)}; {median(cpus):,.0f} in a second of CPU time",
        )
    ]
