"""What is seen of one service, and asking for it no more often than is needed."""

from __future__ import annotations

import structlog

from prunella.core.fleet import Loss
from prunella.core.health import ProbeKey, loss_of
from prunella.core.ledger import EntryKind
from prunella.core.model import Action, Health, Instant, Observation, ServiceId, Status
from prunella.core.policy import Policy
from prunella.core.traffic import Flow
from prunella.runtime.beliefs import Beliefs
from prunella.runtime.notices import Topic
from prunella.runtime.record import Record, World
from prunella.runtime.target import Target

_log = structlog.get_logger("prunella.engine")
_TOPIC_OF = {
    Health.DEGRADED: Topic.SERVICE_DEGRADED,
    Health.FAILED: Topic.SERVICE_FAILED,
    Health.HEALTHY: Topic.SERVICE_RECOVERED,
}


class Sight:
    """Brings what is seen into the beliefs, and tells the fleet and the ledger what has changed.

    Attributes:
        told: a fact has come in, and the platform has not been asked since.
    """

    __slots__ = (
        "_doubted",
        "_policy",
        "_record",
        "_service",
        "_target",
        "_told_fleet",
        "_world",
        "beliefs",
        "told",
    )

    def __init__(
        self,
        service: ServiceId,
        policy: Policy,
        beliefs: Beliefs,
        record: Record,
        target: Target,
        world: World,
    ) -> None:
        self.beliefs = beliefs
        self.told = False
        self._told_fleet = Health.UNKNOWN, Loss.NONE
        self._doubted: Instant | None = None  # the first sign of what is wrong, once acted upon
        self._service = service
        self._policy = policy
        self._record = record
        self._target = target
        self._world = world

    def observe(self, key: ProbeKey, seen: Observation, *, calm: bool) -> bool:
        """Take in an observation. False: nothing about the service can have changed by it.

        Args:
            calm: nothing is being done for the service.
        """
        after = self.beliefs.observe(key, seen)
        if after is None or (
            calm
            and self.beliefs.diagnosis.health is Health.HEALTHY
            and after.bad_since is None
            and not after.blind_in_a_row
            and seen.traffic is None
        ):
            return False
        self._reassess()
        return True

    def take_flow(self, flow: Flow) -> None:
        """Take in what the gateway has counted."""
        self.beliefs.demand.take_flow(flow)
        self._reassess()

    def take_in(self, status: Status | None, rollback: Action | None) -> None:
        """Take in what the platform says.

        Args:
            rollback: the one that is being carried out, if there is one.
        """
        now, bad_since = self._world.clock.now(), self.beliefs.bad_since
        self.beliefs.look(status, now)
        if status is not None and self._record.notice(status, rollback, bad_since):
            self.beliefs.start_grace(now)
        self._reassess()

    async def look(self, rollback: Action | None) -> None:
        """Ask the platform; and once when something is wrong, what is deployed, whatever is known.

        A version that was told for a while longer than it was there would look innocent.
        """
        bad_since = self.beliefs.bad_since
        if bad_since is not None and bad_since != self._doubted:
            self._target.doubt()
        self._doubted = bad_since
        self.take_in(await self._target.observe(), rollback)

    async def look_if_due(self, rollback: Action | None) -> bool:
        """Ask the platform unless nothing speaks for a change since the last time.

        Asking may take a process or a request: a service that fails its checks, or that is being
        verified, is asked once an interval, and for each fact, each effect and each verdict.
        """
        told, self.told = self.told, False
        age_s = self._world.clock.now() - self.beliefs.looked_at
        due = told or bool(self.beliefs.awaited) or age_s >= self._policy.interval_s
        if due:
            await self.look(rollback)
        return due

    async def look_at_gateway(self) -> None:
        """Ask the gateway, where that may matter: what it counts comes every few seconds anyway."""
        if self._target.passage is None:
            return
        flow = await self._target.passage.look()
        if flow is not None:
            self.take_flow(flow)

    def _reassess(self) -> None:
        now, beliefs, fleet = self._world.clock.now(), self.beliefs, self._world.fleet
        before = beliefs.diagnosis.health
        change = beliefs.reassess(now)
        health = beliefs.diagnosis.health
        if health is not before:
            fleet.dependencies.believe(self._service, health)
            fleet.sight(self._service, blind=beliefs.is_blind)
        storm_began = self._tell_fleet(health, now)
        if change is not None:
            self._tell(change.last, change.health)
        if storm_began:
            self._record.note(EntryKind.STORM, {"domain": self._policy.domain})
            _log.warning("storm", domain=self._policy.domain, service=self._service)

    def _tell_fleet(self, health: Health, now: Instant) -> bool:
        """True when this began a storm. A suspicion is no news of its own."""
        last, last_loss = self._told_fleet
        loss = loss_of(self.beliefs.diagnosis, self.beliefs.status)
        if health is Health.SUSPECT:
            health, loss = last, max(loss, last_loss)
        if (health, loss) == self._told_fleet:
            return False
        self._told_fleet = health, loss
        return self._world.fleet.believe(self._service, health, loss, now)

    def _tell(self, last: Health, health: Health) -> None:
        symptom = self.beliefs.diagnosis.symptom
        evidence = symptom.evidence if symptom is not None else ""
        body = {"from": last.value, "to": health.value, "evidence": evidence}
        if (topic := _TOPIC_OF.get(health)) and not (
            health is Health.HEALTHY and last is Health.UNKNOWN
        ):
            self._record.publish(topic, body)
        self._record.note(EntryKind.HEALTH, body)
