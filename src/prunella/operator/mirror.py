"""HealingAction objects: a copy of history where people of the cluster look.

One object is written when an action has ended, and never changed: one request each, and nothing
to repair after a crash between two. What runs is told by Events and by the policy's status. The
store is read, not a queue: what could not be written is found again, also by the next process.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import structlog

from prunella.core.model import Instant
from prunella.errors import ConflictError, PermanentError, StaleEpochError, TransientError
from prunella.kube.kinds import HEALING_ACTION, Json, Meta, Object, Struct
from prunella.kube.shared import SharedCluster
from prunella.operator.aims import Workload
from prunella.operator.objects import SERVICE_LABEL
from prunella.ports import Clock
from prunella.runtime.orchestrator import SelfHealingOrchestrator
from prunella.wire import HealingAction

_log = structlog.get_logger("prunella.mirror")
_PAGE = 100
_BACK = 20  # pages that a start looks back at most
_PACE_S = 0.2
_RETRY_S = 5.0
_LOOK_S = 30.0

Find = Callable[[str], tuple[Workload, str, str] | None]


class _Spec(Struct, frozen=True):
    id: str = ""
    service: str = ""


class _Written(Object, frozen=True):
    metadata: Meta
    spec: _Spec = _Spec()


class _Page(Struct, frozen=True):
    metadata: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    items: tuple[_Written, ...] = ()


class Mirror:
    """Follows the store; never waited for by healing."""

    def __init__(
        self,
        cluster: SharedCluster,
        healing: SelfHealingOrchestrator,
        clock: Clock,
        find: Find,
        *,
        namespaces: Sequence[str],
        keep: int,
    ) -> None:
        self.dropped_count = 0
        self._cluster = cluster
        self._healing = healing
        self._clock = clock
        self._find = find
        self._namespaces = namespaces
        self._keep = keep
        self._news = asyncio.Event()
        self._settled = 0  # all actions up to this one have ended, and are here or never will be
        self._known: defaultdict[str, dict[int, tuple[str, str]]] = defaultdict(dict)

    def hasten(self) -> None:
        self._news.set()

    async def run(self) -> None:
        """For ever."""
        while not await self._attempt(self._look):
            await self._sleep(_RETRY_S)
        while True:
            self._news.clear()
            if not await self._attempt(self._sync):
                await self._sleep(_RETRY_S)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._news.wait()

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            await work()
        except StaleEpochError:
            raise
        except (TransientError, PermanentError) as error:
            _log.warning("not-mirrored", error=str(error))
            return False
        return True

    async def _look(self) -> None:
        """What is there already, from earlier runs."""
        for namespace in self._namespaces:
            query = {"limit": "500"}
            while True:
                answer = await self._cluster.ask("GET", HEALING_ACTION.path(namespace), query=query)
                try:
                    page = msgspec.json.decode(answer, type=_Page)
                except msgspec.DecodeError as error:
                    raise TransientError(
                        f"what lists healingactions is no list: {error}"
                    ) from error
                for one in page.items:
                    if one.spec.id.isdigit():
                        where = one.metadata.namespace, one.metadata.name
                        self._known[one.spec.service][int(one.spec.id)] = where
                if not page.metadata.get("continue"):
                    break
                query["continue"] = str(page.metadata["continue"])

    async def _sync(self) -> None:
        new, running = await self._unsettled()
        newest = max((int(one.id) for one in new), default=self._settled)
        count: defaultdict[str, int] = defaultdict(int)
        wanted: list[HealingAction] = []
        for one in new:  # newest first: the older ones of a service may be too many
            count[one.service_id] += 1
            if count[one.service_id] <= self._keep:
                wanted.append(one)
        for one in reversed(wanted):
            if int(one.id) not in self._known[one.service_id]:
                await self._mirror(one)
        self._settled = max(self._settled, min([*(number - 1 for number in running), newest]))

    async def _unsettled(self) -> tuple[list[HealingAction], list[int]]:
        """Actions that have ended and are not settled, newest first; and those that run."""
        ended: list[HealingAction] = []
        running: list[int] = []
        before: int | None = None
        for _ in range(_BACK):
            page, before = await self._healing.healing_page(_PAGE, before=before)
            for one in page:
                if int(one.id) <= self._settled:
                    return ended, running
                if one.outcome is None:
                    running.append(int(one.id))
                else:
                    ended.append(one)
            if before is None:
                break
        return ended, running

    async def _mirror(self, action: HealingAction) -> None:
        found = self._find(action.service_id)
        if found is None:
            return  # not of this cluster, or not any more
        workload, _, policy = found
        name = object_name(action)
        body = _body(action, policy, name)
        try:
            await self._create(body, workload.namespace)
        except (StaleEpochError, TransientError):
            raise
        except PermanentError as error:
            self.dropped_count += 1
            _log.warning("action-not-mirrored", action=name, error=str(error))
            return
        known = self._known[action.service_id]
        known[int(action.id)] = workload.namespace, body["metadata"]["name"]
        await self._sleep(_PACE_S)
        for number in sorted(known)[: max(0, len(known) - self._keep)]:
            namespace, old = known[number]
            await self._cluster.delete(HEALING_ACTION, old, namespace)
            del known[number]

    async def _create(self, body: Json, namespace: str) -> None:
        try:
            await self._cluster.create(HEALING_ACTION, body, namespace)
        except ConflictError:
            name = body["metadata"]["name"]
            there = await self._cluster.get(HEALING_ACTION, name, namespace)
            started = body["spec"]["startedAt"]
            if there.get("spec", {}).get("startedAt") == started:
                return  # written by an earlier run
            # Another store has counted from one as well.
            body["metadata"]["name"] = f"{name}-{re.sub('[^0-9]', '', started)[:14]}"
            with suppress(ConflictError):
                await self._cluster.create(HEALING_ACTION, body, namespace)

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep_until(Instant(self._clock.now() + seconds))


def object_name(action: HealingAction) -> str:
    """The same for the same action, whoever writes it."""
    service = re.sub(r"[^a-z0-9]*\.[^a-z0-9]*", ".", action.service_id.replace("_", "-"))
    return f"{service.strip('.-')}-{action.id}"


def _body(action: HealingAction, policy: str, name: str) -> Json:
    spec: Json = {
        "id": action.id,
        "service": action.service_id,
        "policy": policy or None,
        "action": action.action,
        "reason": action.reason,
        "symptom": action.symptom,
        "evidence": action.evidence or None,
        "instance": action.instance,
        "revision": action.revision,
        "replicas": action.replicas,
        "before": action.before or None,
        "actor": action.actor,
        "incidentId": action.incident_id,
        "startedAt": action.timestamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    recovery = action.recovery_time
    status: Json = {
        "outcome": action.outcome,
        "success": action.success,
        "recoveryTime": None if recovery is None else f"{recovery / 1000:.1f}s",
        "detail": action.detail or None,
    }
    return {
        "metadata": {"name": name, "labels": {SERVICE_LABEL: action.service_id.strip("._-")}},
        "spec": {key: value for key, value in spec.items() if value is not None},
        "status": {key: value for key, value in status.items() if value is not None},
    }
