"""Kubernetes Events on workloads: what healing does, beside what the cluster itself says of them.

As client-go has it: the same event again raises a count, and an object gets so many and then one
in five minutes. Nothing waits for it: a bounded queue, and what has no room is counted.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import NamedTuple

import structlog

from prunella.core.model import Instant
from prunella.errors import PermanentError, TransientError
from prunella.kube.client import MissingError
from prunella.kube.kinds import EVENT
from prunella.kube.shared import SharedCluster
from prunella.kube.workloads import KINDS
from prunella.operator.aims import Workload
from prunella.ports import Clock

_log = structlog.get_logger("prunella.events")
_QUEUE_SIZE = 1000
_REMEMBERED = 4096
_SAME_S = 600.0
_BURST, _REFILL_S = 25, 300.0
_PACE_S = 0.1
_MESSAGE_LENGTH = 1000


class Telling(NamedTuple):
    """What is to be told of a workload. `reason` is one word in CamelCase."""

    workload: Workload
    uid: str
    reason: str
    message: str
    warning: bool = False


class _Told:
    __slots__ = ("at", "count", "name")

    def __init__(self, name: str, at: Instant) -> None:
        self.name, self.at, self.count = name, at, 1


class Events:
    """A queue and what empties it."""

    def __init__(self, cluster: SharedCluster, clock: Clock, identity: str) -> None:
        self.dropped_count = 0
        self._cluster = cluster
        self._clock = clock
        self._identity = identity
        self._queue: asyncio.Queue[Telling] = asyncio.Queue(_QUEUE_SIZE)
        self._told: OrderedDict[tuple[object, ...], _Told] = OrderedDict()
        self._tokens: OrderedDict[tuple[str, str, str], tuple[float, Instant]] = OrderedDict()

    def tell(self, telling: Telling) -> None:
        try:
            self._queue.put_nowait(telling)
        except asyncio.QueueFull:
            self.dropped_count += 1

    async def run(self) -> None:
        """For ever. An event that cannot be written is dropped: the ledger has it."""
        said = ""
        while True:
            telling = await self._queue.get()
            if not self._may(telling.workload):
                self.dropped_count += 1
                continue
            try:
                await self._write(telling)
            except (TransientError, PermanentError) as error:
                self.dropped_count += 1
                if str(error) != said:
                    said = str(error)
                    _log.warning("event-not-written", error=said)
            await self._clock.sleep_until(Instant(self._clock.now() + _PACE_S))

    def _may(self, workload: Workload) -> bool:
        now = self._clock.now()
        tokens, since = self._tokens.pop(workload.of, (float(_BURST), now))
        tokens = min(_BURST, tokens + (now - since) / _REFILL_S)
        self._tokens[workload.of] = (max(0.0, tokens - 1.0) if tokens >= 1.0 else tokens), now
        if len(self._tokens) > _REMEMBERED:
            self._tokens.popitem(last=False)
        return tokens >= 1.0

    async def _write(self, telling: Telling) -> None:
        workload, message = telling.workload, telling.message[:_MESSAGE_LENGTH]
        key = (workload.of, telling.uid, telling.reason, message)
        now, wall = self._clock.now(), self._clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ")
        told = self._told.pop(key, None)
        if told is not None and now - told.at < _SAME_S:
            try:
                await self._cluster.patch(
                    EVENT,
                    told.name,
                    workload.namespace,
                    {"count": told.count + 1, "lastTimestamp": wall},
                )
            except MissingError:  # the cluster forgets them after an hour
                told = None
            else:
                told.count, told.at = told.count + 1, now
                self._remember(key, told)
                return
        digest = hashlib.sha256(repr((key, now, self._identity)).encode()).hexdigest()[:16]
        name = f"{workload.name[:200]}.{digest}"
        body = {
            "metadata": {"name": name},
            "involvedObject": {
                "apiVersion": KINDS[workload.kind].api_version,
                "kind": workload.kind,
                "namespace": workload.namespace,
                "name": workload.name,
                "uid": telling.uid,
            },
            "reason": telling.reason,
            "message": message,
            "type": "Warning" if telling.warning else "Normal",
            "source": {"component": "prunella"},
            "reportingComponent": "prunella",
            "reportingInstance": self._identity[:128],
            "firstTimestamp": wall,
            "lastTimestamp": wall,
            "count": 1,
        }
        await self._cluster.create(EVENT, body, workload.namespace)
        self._remember(key, _Told(name, now))

    def _remember(self, key: tuple[object, ...], told: _Told) -> None:
        self._told[key] = told
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
