"""What is believed of one service: folded from checks, and from what its platform says."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from prunella.core.health import (
    FRESH,
    Diagnosis,
    ProbeKey,
    Vitals,
    busiest,
    diagnose,
    fold,
)
from prunella.core.model import (
    Health,
    InstanceId,
    InstanceState,
    Instant,
    Observation,
    Status,
    Verdict,
)
from prunella.core.policy import Policy
from prunella.core.verify import has_come_up
from prunella.runtime.demand import Demand, Source

_CHANGES_KEPT = 512


class Change(NamedTuple):
    """The belief has become another one."""

    last: Health
    health: Health


class Beliefs:
    """Vitals per probe, the platform's status, and the diagnosis made from both.

    Attributes:
        looked_at: when the platform was asked last; the status is of then.
        health_since: since when the diagnosis has been what it is.
        changes: when the belief became what, oldest first; suspicions are not among them.
        grace_until: until then samples are no evidence; past once the service is up.
        awaited: instances whose turn in a rolling action is still to come: no evidence either.
        demand: what real requests have met.
    """

    __slots__ = (
        "_ailing_since",
        "_per_instance",
        "_policy",
        "_runs",
        "awaited",
        "changes",
        "demand",
        "diagnosis",
        "grace_until",
        "health_since",
        "looked_at",
        "status",
        "vitals",
    )

    def __init__(self, policy: Policy, probes: Iterable[bool], now: Instant) -> None:
        """Args: probes: for each one, whether it measures every instance by itself."""
        kinds = tuple(enumerate(probes))
        self._policy = policy
        self._per_instance = tuple(index for index, each in kinds if each)
        self.vitals: dict[ProbeKey, Vitals] = {
            ProbeKey(index): FRESH for index, each in kinds if not each
        }
        self.status: Status | None = None
        self.looked_at = Instant(float("-inf"))
        self.diagnosis = Diagnosis(Health.UNKNOWN)
        self.health_since = now
        self.changes: deque[tuple[Instant, Health]] = deque(maxlen=_CHANGES_KEPT)
        self.grace_until = Instant(now + policy.grace_s)
        self.awaited: frozenset[InstanceId] = frozenset()
        self.demand = Demand(policy)
        self._ailing_since: Instant | None = None
        self._runs: dict[InstanceId, str] | None = None  # not looked at yet

    @property
    def load(self) -> float | None:
        return busiest(self.vitals.values())

    @property
    def is_blind(self) -> bool:
        return self.diagnosis.health is Health.UNKNOWN and any(
            vitals.blind_in_a_row >= self._policy.fall for vitals in self.vitals.values()
        )

    @property
    def bad_since(self) -> Instant | None:
        """The first sign of what is wrong now, suspicions included; None: nothing is."""
        signs = (vitals.bad_since for vitals in self.vitals.values())
        return min((sign for sign in signs if sign is not None), default=None)

    @property
    def well_since(self) -> Instant | None:
        """Since when the service has been healthy, suspicions aside; None while it is not."""
        if not self.changes or self.changes[-1][1] is not Health.HEALTHY:
            return None
        return self.changes[-1][0]

    def observe(self, key: ProbeKey, seen: Observation) -> Vitals | None:
        """Take in an observation; the probe's vitals, or None if that probe is gone by now."""
        before = self.vitals.get(key)
        if before is None:
            return None
        if seen.traffic is not None:
            self.demand.take(Source(*key), seen.traffic)
        in_grace = seen.at < self.grace_until
        if (
            in_grace
            and seen.verdict is Verdict.FAIL
            and before.samples == 0
            and self.diagnosis.symptom is None
        ):
            seen = seen._replace(verdict=Verdict.INCONCLUSIVE, cause=None)
        after = self.vitals[key] = fold(before, seen, self._policy)
        if in_grace and has_come_up(self.vitals.values(), self._policy):
            self.grace_until = seen.at
        return after

    def look(self, status: Status | None, now: Instant) -> None:
        """Take in what the platform says; instances that are new have yet to be measured.

        A run that was not there before, whoever has started it, is not condemned for what was
        seen of the one before it, and has its grace.
        """
        self.status, self.looked_at = status, now
        if status is None:
            return
        self._meet(status, now)
        if not self._per_instance:
            return
        present = {
            ProbeKey(index, instance.id)
            for index in self._per_instance
            for instance in status.instances
            if instance.state is InstanceState.RUNNING  # nothing else answers, nor is well
        }
        for key in [key for key in self.vitals if key.instance and key not in present]:
            del self.vitals[key]
        for key in present - self.vitals.keys():
            self.vitals[key] = FRESH

    def _meet(self, status: Status, now: Instant) -> None:
        runs = {i.id: i.identity for i in status.instances if i.state is InstanceState.RUNNING}
        before, self._runs = self._runs, runs
        if before is None:
            return
        new = {id_ for id_, run in runs.items() if run != before.get(id_)}
        if not new:
            return
        self.start_grace(now)
        replaced = new == runs.keys()
        for key in self.vitals:
            if key.instance in new or (key.instance is None and replaced):
                self.vitals[key] = FRESH

    def forget(self, now: Instant) -> None:
        """Begin anew: what was seen before an action is no evidence after it."""
        self.vitals = dict.fromkeys(self.vitals, FRESH)
        self.demand.forget()
        self.status, self.looked_at = None, Instant(float("-inf"))
        self.diagnosis = Diagnosis(Health.UNKNOWN)
        self.health_since = now
        self.start_grace(now)

    def start_grace(self, now: Instant) -> None:
        self.grace_until = Instant(now + self._policy.grace_s)

    def reassess(self, now: Instant) -> Change | None:
        """Form the belief anew. None while it is the same, or only suspicion has come or gone."""
        before = self.diagnosis
        self.diagnosis = self._diagnose(now)
        health = self.diagnosis.health
        if health is before.health:
            return None
        self.health_since = now
        last = self.changes[-1][1] if self.changes else Health.UNKNOWN
        if health in (Health.SUSPECT, last):
            return None
        self.changes.append((now, health))
        return Change(last, health)

    def judged_vitals(self) -> dict[ProbeKey, Vitals]:
        """The vitals that are evidence now."""
        if not self.awaited:
            return self.vitals
        return {key: v for key, v in self.vitals.items() if key.instance not in self.awaited}

    def _diagnose(self, now: Instant) -> Diagnosis:
        vitals, status = self.judged_vitals(), self.status
        if self.awaited and status is not None:
            judged = tuple(i for i in status.instances if i.id not in self.awaited)
            status = status._replace(instances=judged)
        symptoms = self.demand.symptoms(self.status, now)
        served_since = self.demand.served_since(now)
        found = diagnose(vitals, status, self._policy, now, symptoms, served_since)
        if found.symptom is None:
            if found.health is Health.HEALTHY:
                self._ailing_since = None
            return found
        # A fault that was never over is not newer for looking different, or after a remedy.
        since = min(found.symptom.since, self._ailing_since or found.symptom.since)
        self._ailing_since = since
        return found._replace(symptom=replace(found.symptom, since=since))
