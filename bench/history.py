"""How long history takes to read when a million actions are stored, and what an intent costs."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from prunella.core.ledger import EntryKind, Finish, Holder, Intent, Step
from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Epoch,
    IncidentId,
    Outcome,
    ServiceId,
    SymptomKind,
)
from prunella.plugins import stores
from prunella.ports import Store
from prunella.runtime.clock import SystemClock

ACTIONS = 1_000_000
SERVICES = 1000
RUNS = 20
FIRST_WALL = 1_750_000_000_000_000  # microseconds
EVERY = 30_000_000  # microseconds between two actions

LEDGER = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO ledger (kind, service, actor, at_wall, at_instant, at_boot, epoch, body)
SELECT 'intent', 'service-' || (i % :services), 'prunella', :wall + i * :every, i * 30.0, 'then',
       1, '{"action": "restart", "reason": "three failures in a row", "symptom": "down"}'
FROM n
"""
ACTION = """
INSERT INTO actions (id, service, kind, identity, incident, reason, symptom, actor, at_wall,
                     at_instant, at_boot, event, evidence, observed, outcome, success, detail,
                     recovery_time_ms, downtime_ms, ended_wall, ended_instant, ended_boot)
SELECT seq, service, 'restart', 'pid 4711 @ 123456', service || '-' || seq,
       'three failures in a row', 'down', 'prunella', at_wall, at_instant, 'then', 'confirmed',
       'exited with 137', 0, 'recovered', 1, 'it answers again', 1500.5, 4000.5,
       at_wall + 5000000, at_instant + 5, 'then'
FROM ledger
"""


def store_at(path: Path) -> Store:
    readonly = False
    return stores()["sqlite"].open(f"sqlite:///{path}", readonly)


async def build(path: Path, count: int) -> None:
    """A store that has lived for long: written in bulk, as nobody waits for each line."""
    await store_at(path).close()
    values = {"count": count, "services": SERVICES, "wall": FIRST_WALL, "every": EVERY}
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(LEDGER, values)
        connection.execute(ACTION)
        connection.commit()


async def timed(ask: Callable[[], Awaitable[object]], runs: int = RUNS) -> float:
    """Median in milliseconds, after one call that warms up."""
    await ask()
    took: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        await ask()
        took.append(1000 * (time.perf_counter() - start))
    return round(median(took), 3)


async def reading(store: Store, count: int) -> dict[str, float]:
    service = ServiceId("service-7")
    middle = count // 2
    storms = frozenset({EntryKind.STORM, EntryKind.HOLD})
    return {
        "newest_100_ms": await timed(lambda: store.history(100)),
        "newest_100_of_a_service_ms": await timed(lambda: store.history(100, service=service)),
        "middle_100_ms": await timed(lambda: store.history(100, before=middle)),
        "newest_10_ms": await timed(lambda: store.history(10)),
        "ledger_100_ms": await timed(lambda: store.entries(100)),
        "ledger_of_rare_kinds_ms": await timed(lambda: store.entries(100, kinds=storms)),
        "load_ms": await timed(store.load),
    }


async def acting(store: Store) -> dict[str, float]:
    clock = SystemClock()
    epoch = await store.claim(Holder("bench", 1, "0", clock.boot, "bench"), clock.stamp())
    begun: list[float] = []
    ended: list[float] = []
    for number in range(10 * RUNS):
        service = ServiceId(f"service-{number}")
        start = time.perf_counter()
        action = await _begin(store, service, clock, epoch)
        begun.append(1000 * (time.perf_counter() - start))
        finish = Finish(action, Outcome.RECOVERED, "it answers again", 1500.5, 4000.5)
        step = Step(service, Event.RECOVERED, Phase.WATCHING, clock.stamp(), "well", None, finish)
        start = time.perf_counter()
        await store.advance(step, epoch=epoch)
        ended.append(1000 * (time.perf_counter() - start))
    begun.sort()
    return {
        "begin_ms": round(median(begun), 3),
        "begin_p95_ms": round(begun[int(0.95 * len(begun))], 3),
        "advance_ms": round(median(ended), 3),
    }


async def _begin(store: Store, service: ServiceId, clock: SystemClock, epoch: Epoch) -> ActionId:
    now = clock.stamp()
    intent = Intent(
        action=Action(ActionKind.RESTART, service),
        incident=IncidentId(f"{service}-1"),
        reason="three failures in a row",
        symptom=SymptomKind.DOWN,
        actor="prunella",
        at=now,
        failing_since=now,
        event=Event.CONFIRMED,
    )
    answer = await store.begin(intent, lambda _: (), now, epoch=epoch)
    assert isinstance(answer, int)
    return answer


async def _measure(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        await build(path, count)
        start = time.perf_counter()
        store = store_at(path)
        figures = {
            "actions": float(count),
            "size_mib": round(path.stat().st_size / 2**20, 1),
            "open_ms": round(1000 * (time.perf_counter() - start), 1),
        }
        try:
            figures |= await reading(store, count)
            figures |= await acting(store)
        finally:
            await store.close()
    return figures


def measure(count: int = ACTIONS) -> dict[str, float]:
    """Medians over a store of `count` ended actions; milliseconds where the name ends so."""
    return asyncio.run(_measure(count))


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
