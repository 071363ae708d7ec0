"""What an instance does for itself, beside healing: mind its own state, forget what is old."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import structlog

from prunella.core.model import Epoch, Instant, Stamp
from prunella.errors import TransientError
from prunella.ports import Clock, Store
from prunella.runtime.fleet import Fleet
from prunella.runtime.lease import Lease
from prunella.runtime.pulse import Pulse

_log = structlog.get_logger("prunella")
_COMPACT_EVERY_S = 3600.0
_DOUBT_S = 2.0  # how long samples are doubted after the event loop stood still
_WATCH_EVERY_S = 0.5


async def watch_self(clock: Clock, pulse: Pulse, lease: Lease, fleet: Fleet) -> None:
    """Tell the fleet, for ever, how far Prunella itself can be trusted."""
    while True:
        now = clock.now()
        stalled = pulse.stalled_since(Instant(now - _DOUBT_S))
        fleet.doubt = "Prunella itself stood still a moment ago" if stalled else ""
        fleet.lease = lease.trouble
        await clock.sleep_until(Instant(clock.now() + _WATCH_EVERY_S))


async def forget(
    clock: Clock, store: Store, epoch: Callable[[], Epoch], retention_s: Callable[[], float | None]
) -> None:
    """Keep the store from growing, for ever; without a retention nothing is forgotten."""
    while True:
        await clock.sleep_until(Instant(clock.now() + _COMPACT_EVERY_S))
        now, keep_s = clock.stamp(), retention_s()
        if keep_s is None:
            continue
        keep_from = Stamp(
            now.wall - timedelta(seconds=keep_s), Instant(now.instant - keep_s), now.boot
        )
        try:
            await store.compact(keep_from, epoch=epoch())
        except TransientError as error:
            _log.warning("not-compacted", error=str(error))
