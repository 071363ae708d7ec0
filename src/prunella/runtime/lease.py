"""Our hold of the store: claimed at the start, renewed from a thread of its own.

A blocked event loop is not a death, so the beat does not run on it. Who has not beaten for the
length of the lease starts nothing any more: somebody else may have taken over.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from uuid import uuid4

import structlog

from prunella.core.ledger import Holder
from prunella.core.model import Epoch, Instant
from prunella.errors import PermanentError, TransientError
from prunella.ports import Clock, Store

_log = structlog.get_logger("prunella.lease")
TTL_S = 10.0
_JOIN_S = 5.0


def this_process(boot: str, address: str) -> Holder:
    """Who we are, so that another start can tell whether we still live."""
    stat = Path("/proc/self/stat").read_text()
    started = stat.rpartition(")")[2].split()[19]
    return Holder(socket.gethostname(), os.getpid(), started, boot, uuid4().hex, address)


class Lease:
    """The right to write; ``trouble`` says why it is in doubt, empty when it is fresh."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._beaten = Instant(float("-inf"))
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost = ""
        self.epoch = Epoch(0)

    async def claim(self, address: str, *, force: bool = False) -> None:
        """Raises StoreInUseError naming the present holder."""
        holder = this_process(self._clock.boot, address)
        self.epoch = await self._store.claim(holder, self._clock.stamp(), force=force)
        self._beaten = self._clock.now()
        self._thread = threading.Thread(target=self._beat, name="prunella-lease", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        if self._lost:
            return self._lost
        silent_s = self._clock.now() - self._beaten
        return f"no beat of our lease for {silent_s:.0f} s" if silent_s > TTL_S else ""

    async def release(self) -> None:
        self._ended.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _JOIN_S)
        if not self._lost:
            await self._store.release(epoch=self.epoch)

    def _beat(self) -> None:
        while not self._ended.wait(TTL_S / 3):
            try:
                asyncio.run(self._store.beat(self._clock.stamp(), epoch=self.epoch))
            except TransientError as error:
                _log.warning("lease-not-renewed", error=str(error))
            except PermanentError as error:
                if self._ended.is_set():
                    return  # it was closed meanwhile, and is nobody's
                self._lost = f"the store is not ours any more: {error}"
                _log.critical("lease-lost", error=str(error))
                return
            else:
                self._beaten = self._clock.now()
