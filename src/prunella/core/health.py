"""From observations and facts to a belief: what one probe saw, and what that says of a service.

`fold` runs once for every observation and is the hottest pure function there is: one value in,
one value out, no loop over the past. The window of past verdicts is a bit set in an ``int``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from prunella.core.fleet import Loss
from prunella.core.machine import Phase
from prunella.core.model import (
    Cause,
    Health,
    InstanceId,
    InstanceState,
    Instant,
    Observation,
    Status,
    Symptom,
    SymptomKind,
    Verdict,
)
from prunella.core.policy import WINDOW, Policy

_MASK = (1 << WINDOW) - 1
_RECENT = (1 << 10) - 1  # a rate counts as present only if some of the newest samples failed
_SMOOTHING = 0.2  # weight of the newest latency in the mean


class Vitals(NamedTuple):
    """What the observations of one probe add up to.

    Attributes:
        samples: conclusive observations in the window, at most ``WINDOW``; the window begins anew
            when a confirmed fault has ended.
        failures: the failed ones among them as a bit set; bit 0 is the newest.
        failing: `fall` failures in a row were seen, and not yet `rise` passes in a row.
        slow: the same for passes slower than the threshold.
        good_since: the first of the present run of passes in time; None while there is none.
        bad_since: the first of the present run of failures or slow passes; None likewise.
        latency_s: mean over the newest passes.
        load: mean over the newest measurements of a resource, as a share of its limit; None: the
            probe measures none.
    """

    samples: int = 0
    failures: int = 0
    passes_in_a_row: int = 0
    fails_in_a_row: int = 0
    slow_in_a_row: int = 0
    good_in_a_row: int = 0
    blind_in_a_row: int = 0
    failing: bool = False
    slow: bool = False
    good_since: Instant | None = None
    bad_since: Instant | None = None
    last_at: Instant | None = None
    latency_s: float = 0.0
    cause: Cause | None = None
    detail: str = ""
    load: float | None = None

    @property
    def error_rate(self) -> float:
        """Share of failures in the window, 0-1; 0 without evidence."""
        return self.failures.bit_count() / self.samples if self.samples else 0.0


FRESH = Vitals()


class ProbeKey(NamedTuple):
    """Which probe, and for one that measures every instance by itself, of which instance."""

    number: int
    instance: InstanceId | None = None


def fold(vitals: Vitals, seen: Observation, policy: Policy) -> Vitals:
    """Take in one observation. INCONCLUSIVE changes nothing but the count of blind ones."""
    verdict, at, latency_s, cause, detail, load, _ = seen
    if load is not None:
        load = load if vitals.load is None else vitals.load + _SMOOTHING * (load - vitals.load)
    if verdict is Verdict.INCONCLUSIVE:
        return vitals._replace(blind_in_a_row=vitals.blind_in_a_row + 1, last_at=at, detail=detail)
    samples = min(vitals.samples + 1, WINDOW)
    failures = (vitals.failures << 1) & _MASK
    if verdict is Verdict.FAIL:
        fails = vitals.fails_in_a_row + 1
        return Vitals(
            samples,
            failures | 1,
            0,
            fails,
            0,
            0,
            0,
            vitals.failing or fails >= policy.fall,
            vitals.slow,
            None,
            at if vitals.bad_since is None else vitals.bad_since,
            at,
            vitals.latency_s,
            cause,
            detail,
            load,
        )
    passes = vitals.passes_in_a_row + 1
    mean_s = vitals.latency_s
    mean_s = mean_s + _SMOOTHING * (latency_s - mean_s) if mean_s else latency_s
    failing = vitals.failing and passes < policy.rise
    if vitals.failing and not failing:
        samples, failures = passes, 0  # that fault is over: its failures prove no new one
    if latency_s > policy.response_time_s:
        slow = vitals.slow_in_a_row + 1
        return Vitals(
            samples,
            failures,
            passes,
            0,
            slow,
            0,
            0,
            failing,
            vitals.slow or slow >= policy.fall,
            None,
            at if vitals.bad_since is None else vitals.bad_since,
            at,
            mean_s,
            None,
            detail,
            load,
        )
    good = vitals.good_in_a_row + 1
    return Vitals(
        samples,
        failures,
        passes,
        0,
        0,
        good,
        0,
        failing,
        vitals.slow and good < policy.rise,
        at if vitals.good_since is None else vitals.good_since,
        None,
        at,
        mean_s,
        None,
        detail,
        load,
    )


class Diagnosis(NamedTuple):
    """The belief about a service, with the confirmed fault if there is one."""

    health: Health
    symptom: Symptom | None = None


_BY_CAUSE = {
    Cause.REFUSED: (SymptomKind.DOWN, Health.FAILED),
    Cause.TIMEOUT: (SymptomKind.HUNG, Health.FAILED),
    Cause.ERROR: (SymptomKind.ERRORING, Health.FAILED),
    Cause.SATURATED: (SymptomKind.SLOW, Health.DEGRADED),
}
_PRECEDENCE = (
    SymptomKind.DOWN,
    SymptomKind.HUNG,
    SymptomKind.ERRORING,
    SymptomKind.SLOW,
    SymptomKind.FLAPPING,
)


def exited(status: Status | None, now: Instant) -> Symptom | None:
    """The symptom that a platform's own knowledge is, without any sample."""
    gone = [i for i in status.instances if i.state is InstanceState.EXITED] if status else []
    if status is None or not gone:
        return None
    running = any(i.state is InstanceState.RUNNING for i in status.instances)
    evidence = "; ".join(f"instance {i.id}: {i.detail or 'exited'}" for i in gone[:3])
    severity = Health.DEGRADED if running else Health.FAILED
    return Symptom(
        SymptomKind.DOWN,
        severity,
        now,
        evidence,
        factual=True,
        instances=tuple(i.id for i in gone),
        partial=running,
        blames_version=all(i.blames_version for i in gone),
    )


def condemned(status: Status | None, now: Instant) -> Symptom | None:
    """The symptom that the platform's own checks of its instances are."""
    running = [i for i in status.instances if i.state is InstanceState.RUNNING] if status else []
    sick = [i for i in running if i.verdict is Verdict.FAIL]
    if not sick:
        return None
    named = ", ".join(str(i.id) for i in sick[:3])
    evidence = f"its platform's own check says that {named} is unhealthy"
    partial = len(sick) < len(running)
    return Symptom(
        SymptomKind.ERRORING,
        Health.DEGRADED if partial else Health.FAILED,
        now,
        evidence,
        instances=tuple(i.id for i in sick),
        partial=partial,
        blames_version=all(i.blames_version for i in sick),
    )


def symptom_of(vitals: Vitals, policy: Policy) -> Symptom | None:
    """What one probe's observations confirm, if anything."""
    since = vitals.bad_since or vitals.last_at or Instant(0.0)
    if vitals.failing and vitals.fails_in_a_row:
        kind, severity = _BY_CAUSE[vitals.cause or Cause.ERROR]
        evidence = f"{vitals.fails_in_a_row} checks in a row failed: {vitals.detail}"
        return Symptom(kind, severity, since, evidence)
    present = vitals.passes_in_a_row < policy.rise
    frequent = (vitals.failures & _RECENT).bit_count() > 1
    if vitals.samples >= policy.min_samples and present and frequent:
        rate = vitals.error_rate
        evidence = f"{rate:.0%} of the last {vitals.samples} checks failed"
        if rate > policy.failed_error_rate:
            return Symptom(SymptomKind.ERRORING, Health.FAILED, since, evidence)
        if rate > policy.degraded_error_rate:
            return Symptom(SymptomKind.ERRORING, Health.DEGRADED, since, evidence)
    if vitals.slow and vitals.slow_in_a_row:
        evidence = (
            f"{vitals.slow_in_a_row} answers in a row took longer than "
            f"{policy.response_time_s:g} s ({vitals.latency_s:.2f} s on average)"
        )
        return Symptom(SymptomKind.SLOW, Health.DEGRADED, since, evidence)
    return None


def diagnose(
    probes: Mapping[ProbeKey, Vitals],
    status: Status | None,
    policy: Policy,
    now: Instant,
    demand: Iterable[Symptom] = (),
    served_since: Instant | None = None,
) -> Diagnosis:
    """Fold all that is known of a service into one belief.

    Args:
        probes: a service without probes is judged by its platform and its traffic alone.
        status: as the platform sees it; None when it cannot tell.
        now: the moment a fact is dated at, if it is new.
        demand: what real requests confirm.
        served_since: from then on real requests were served well: what probes say against the
            service as a whole since before that is contradicted, and remains a suspicion.
    """
    found = [s for s in _confirmed(probes, policy) if not _contradicted(s, served_since)]
    found += demand
    found += [s for s in (exited(status, now), condemned(status, now)) if s is not None]
    if found:
        worst = min(found, key=lambda s: (not s.factual, _PRECEDENCE.index(s.kind), s.since))
        if any(v.failing and v.cause is Cause.SATURATED for v in probes.values()):
            worst = replace(worst, saturated=True)
        severity = Health.FAILED if any(s.severity is Health.FAILED for s in found) else None
        return Diagnosis(severity or worst.severity, worst)
    if not probes:
        alive = status is not None and any(
            i.state is InstanceState.RUNNING for i in status.instances
        )
        return Diagnosis(Health.HEALTHY if alive else Health.UNKNOWN)
    if any(v.samples == 0 or v.blind_in_a_row >= policy.fall for v in probes.values()):
        return Diagnosis(Health.UNKNOWN)
    if any(v.bad_since is not None or v.failing or v.slow for v in probes.values()):
        return Diagnosis(Health.SUSPECT)
    return Diagnosis(Health.HEALTHY)


def loss_of(diagnosis: Diagnosis, status: Status | None) -> Loss:
    """How much of a service is down, whether it still serves or not, a fault already or not."""
    if diagnosis.health is Health.FAILED:
        return Loss.HALF
    if status is None:
        return Loss.NONE
    symptom = diagnosis.symptom
    sick = symptom.instances if symptom is not None and symptom.partial else ()
    down = 0
    for one in status.instances:
        if one.state is InstanceState.RUNNING:
            down += one.is_restarting or one.verdict is Verdict.FAIL or one.id in sick
        else:
            down += one.state is InstanceState.EXITED
    if not down:
        return Loss.NONE
    return Loss.HALF if 2 * down >= max(status.desired, len(status.instances)) else Loss.PART


def _contradicted(symptom: Symptom, served_since: Instant | None) -> bool:
    if served_since is None or symptom.instances or symptom.saturated:
        return False
    return symptom.since <= served_since


def _confirmed(probes: Mapping[ProbeKey, Vitals], policy: Policy) -> list[Symptom]:
    """What each probe confirms; where it measures every instance, the sick ones together.

    A service has not failed as a whole while one of its instances answers well.
    """
    found: list[Symptom] = []
    sick: dict[int, list[tuple[InstanceId, Symptom]]] = {}
    for key, vitals in probes.items():
        symptom = symptom_of(vitals, policy)
        if symptom is None:
            continue
        if key.instance is None:
            found.append(symptom)
        else:
            sick.setdefault(key.number, []).append((key.instance, symptom))
    for number, symptoms in sick.items():
        worst = min((s for _, s in symptoms), key=lambda s: (_PRECEDENCE.index(s.kind), s.since))
        partly = len(symptoms) < sum(key.number == number for key in probes)
        instances = tuple(instance for instance, _ in symptoms)
        evidence = f"instance {', '.join(instances[:3])}: {worst.evidence}"
        severity = Health.DEGRADED if partly else worst.severity
        found.append(
            replace(
                worst,
                severity=severity,
                evidence=evidence,
                instances=instances,
                partial=partly and worst.severity is Health.FAILED,
            )
        )
    return found


def busiest(probes: Iterable[Vitals]) -> float | None:
    """The highest load among what is measured; None: nothing measures one."""
    return max((v.load for v in probes if v.load is not None), default=None)


def status_word(health: Health, phase: Phase) -> str:
    """The one word for people: healthy, degraded, failed, recovering or unknown.

    A service that is being healed is recovering; a suspicion is not a verdict, so it still
    counts as healthy.
    """
    if phase in (Phase.ACTING, Phase.VERIFYING):
        return "recovering"
    return "healthy" if health is Health.SUSPECT else health.value


def uptime_ratio(
    changes: Iterable[tuple[Instant, Health]], now: Instant, window_s: float
) -> float | None:
    """Share of the known time in the window during which the service was not failed.

    Args:
        changes: when the belief became what, oldest first.
        window_s: how far back to look.

    Returns: 0-1; None when nothing was known in the window.
    """
    start, known_s, up_s = now - window_s, 0.0, 0.0
    spans = list(changes)
    if not spans:
        return None
    ends = [at for at, _ in spans[1:]] + [now]
    for (begin, health), end in zip(spans, ends, strict=True):
        length_s = max(0.0, end - max(begin, start))
        if health is not Health.UNKNOWN:
            known_s += length_s
            up_s += length_s if health is not Health.FAILED else 0.0
    return up_s / known_s if known_s else None
