"""What each policy is told of itself: whether it is good, what it has found, and how that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from prunella.core.model import Instant
from prunella.errors import PermanentError, StaleEpochError, TransientError, UnknownServiceError
from prunella.kube.client import MissingError
from prunella.kube.kinds import HEALING_POLICY, Json
from prunella.kube.shared import SharedCluster
from prunella.operator.objects import Condition, Policy, Status, conditions
from prunella.operator.pauses import Pause
from prunella.operator.resolve import Verdict
from prunella.ports import Clock
from prunella.runtime.orchestrator import SelfHealingOrchestrator

_log = structlog.get_logger("prunella.policies")
_RETRY_S = 1.0
_AT_ONCE = 50
_PACE_S = 0.2  # between two writes of status: healing has more to ask than we

Told = tuple[Verdict, Sequence[Pause]]


class Statuses:
    """Writes what has changed, and nothing twice.

    Args:
        is_everywhere: policies of all namespaces are followed by one watch.
    """

    def __init__(
        self,
        cluster: SharedCluster,
        healing: SelfHealingOrchestrator,
        clock: Clock,
        *,
        is_everywhere: bool,
    ) -> None:
        self._cluster = cluster
        self._healing = healing
        self._clock = clock
        self._is_everywhere = is_everywhere
        self._written: dict[str, tuple[str, Json]] = {}

    async def run(self, told: Callable[[], Iterable[Told]]) -> None:
        """For ever. What there is to tell is asked for anew each time."""
        while True:
            for number, (verdict, paused) in enumerate(told()):
                if number % _AT_ONCE == 0:
                    await self._sleep(0)  # healing comes first
                try:
                    if await self._write(verdict, paused):
                        await self._sleep(_PACE_S)
                except StaleEpochError:
                    raise
                except MissingError:
                    continue  # it has just been deleted
                except (TransientError, PermanentError) as error:
                    _log.warning(
                        "status-not-written", policy=verdict.policy.words, error=str(error)
                    )
                    await self._sleep(_RETRY_S)
            await self._sleep(_RETRY_S)

    async def _write(self, verdict: Verdict, paused: Sequence[Pause]) -> bool:
        """Whether there was something to write."""
        meta = verdict.policy.metadata
        newest = self._newest(meta.namespace, meta.name)
        if newest is None or newest.metadata.uid != meta.uid:
            return False
        status = self._status(verdict, paused, newest)
        have = _as_json(newest.status)
        before = self._written.get(meta.uid)
        if before is not None and before[0] == newest.metadata.resource_version:
            have = before[1]  # what we wrote has not come back yet
        if {key: have.get(key) for key in status} == status:
            return False
        await self._cluster.patch(
            HEALING_POLICY, meta.name, meta.namespace, {"status": status}, sub="status"
        )
        self._written[meta.uid] = newest.metadata.resource_version, status
        return True

    def _newest(self, namespace: str, name: str) -> Policy | None:
        where = "" if self._is_everywhere else namespace
        reflector = self._cluster.reflector(HEALING_POLICY, where, Policy)
        return reflector.get(namespace, name)

    def _status(self, verdict: Verdict, paused: Sequence[Pause], newest: Policy) -> Json:
        counts, healthy = self._health(verdict)
        known = [verdict.accepted, verdict.resolved, healthy]
        if paused:
            words = "; ".join(dict.fromkeys(one.words for one in paused))
            known.append(Condition("Paused", status=True, reason="Annotation", message=words))
        elif any(one.get("type") == "Paused" for one in newest.status.conditions):
            known.append(Condition("Paused", status=False, reason="NoAnnotation"))
        generation = verdict.policy.metadata.generation
        status: Json = {
            "observedGeneration": generation,
            "conditions": conditions(known, newest.status.conditions, generation, self._clock),
            "services": counts,
        }
        if verdict.spec is not None and verdict.accepted.status:
            status["accepted"] = {"generation": verdict.generation, "spec": verdict.spec}
        return status

    def _health(self, verdict: Verdict) -> tuple[Json, Condition]:
        words = ("healthy", "degraded", "failed", "recovering", "unknown")
        counts: Json = {"total": len(verdict.services), **dict.fromkeys(words, 0)}
        ill: list[str] = []
        for id_ in verdict.services:
            try:
                one = self._healing.get_service_health(id_)
            except UnknownServiceError:  # not taken over yet
                counts["unknown"] += 1
                continue
            counts[one.status] += 1
            if one.status not in ("healthy", "unknown"):
                ill.append(f"{id_} is {one.status}: {one.detail}")
        said = f"{counts['healthy']} of {counts['total']} healthy"
        if ill:
            message = "; ".join([said, *ill[:5]])
            return counts, Condition("Healthy", status=False, reason="Unwell", message=message)
        if counts["healthy"] == counts["total"] > 0:
            return counts, Condition("Healthy", status=True, reason="Well", message=said)
        return counts, Condition("Healthy", status=None, reason="NotKnown", message=said)

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep_until(Instant(self._clock.now() + seconds))


def _as_json(status: Status) -> Json:
    accepted = status.accepted
    return {
        "observedGeneration": status.observed_generation,
        "conditions": [dict(one) for one in status.conditions],
        "services": dict(status.services),
        "accepted": None
        if accepted is None
        else {"generation": accepted.generation, "spec": accepted.spec},
    }
