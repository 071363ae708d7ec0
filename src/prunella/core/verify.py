"""Did the remedy help? Success is the symptom gone through the whole soak, nothing less."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from prunella.core.health import Diagnosis, ProbeKey, Vitals
from prunella.core.model import Health, Instance, InstanceState, Instant, Outcome, Verdict
from prunella.core.policy import Policy
from prunella.core.traffic import Traffic


class Judgement(NamedTuple):
    """How verification stands.

    Attributes:
        outcome: None while it is still open.
        recovered_at: first pass of the streak that is soaking or has soaked.
        wake_at: when to judge again if nothing happens before; None once decided.
    """

    outcome: Outcome | None
    detail: str
    recovered_at: Instant | None = None
    wake_at: Instant | None = None


def has_come_up(probes: Collection[Vitals], policy: Policy) -> bool:
    """Whether every probe is in a run of `rise` good answers: what was started is there.

    It ends start-up grace: what fails from then on has not been slow to start.
    """
    return all(v.good_in_a_row >= policy.rise for v in probes)


def streak_since(
    probes: Collection[Vitals], executed_at: Instant, policy: Policy
) -> Instant | None:
    """When the present run of good answers began, over all probes; None while there is none."""
    if not has_come_up(probes, policy):
        return None
    return max([executed_at, *(v.good_since for v in probes if v.good_since is not None)])


def judge(
    diagnosis: Diagnosis,
    probes: Collection[Vitals],
    executed_at: Instant,
    had_recovered: bool,  # noqa: FBT001 - a fact about the past, not a switch
    now: Instant,
    policy: Policy,
    soak_s: float,
) -> Judgement:
    """Judge an executed action by what was seen since.

    A slow start is no failure: until the first recovery only an exit or the deadline ends the
    wait. After it, the first confirmed symptom is a relapse.

    Args:
        probes: folded from observations made after `executed_at` only.
        had_recovered: a streak of `rise` good answers was seen earlier in this verification.
        soak_s: how long it must stay well.
    """
    symptom = diagnosis.symptom
    if symptom is not None and (symptom.factual or had_recovered):
        outcome = Outcome.RELAPSED if had_recovered else Outcome.INEFFECTIVE
        return Judgement(outcome, symptom.evidence)
    since = streak_since(probes, executed_at, policy)
    if since is not None and symptom is None and diagnosis.health is Health.HEALTHY:
        soaked_at = Instant(since + soak_s)
        if now >= soaked_at:
            return Judgement(Outcome.RECOVERED, f"well for {soak_s:g} s", since)
        return Judgement(None, "soaking", since, soaked_at)
    deadline = Instant(executed_at + policy.deadline_s)
    if now >= deadline:
        seen = symptom.evidence if symptom is not None else "no conclusive evidence of recovery"
        return Judgement(Outcome.INEFFECTIVE, f"not well within {policy.deadline_s:g} s: {seen}")
    return Judgement(None, "waiting for the first good answers", None, deadline)


def is_proven(
    diagnosis: Diagnosis,
    probes: Mapping[ProbeKey, Vitals],
    canary: Instance | None,
    executed_at: Instant,
    now: Instant,
    policy: Policy,
) -> bool:
    """Whether the instance that was replaced last is well enough for the next one's turn.

    What measures it by itself decides where there is such a probe, else the service as a whole.
    A service that has failed altogether has nothing to lose: there, having stayed alive through
    the grace is proof enough, since good answers may need more than one good instance.
    """
    if canary is None or canary.state is not InstanceState.RUNNING:
        return False
    if canary.verdict is Verdict.FAIL:
        return False
    own = [vitals for key, vitals in probes.items() if key.instance == canary.id]
    if own:
        return streak_since(own, executed_at, policy) is not None
    if streak_since(probes.values(), executed_at, policy) is not None and probes:
        return diagnosis.health is Health.HEALTHY
    if not probes:
        return now - executed_at >= min(policy.grace_s, policy.soak_s)
    return diagnosis.health is Health.FAILED and now - executed_at >= policy.grace_s


def judge_step(
    before: Traffic | None,
    after: Traffic | None,
    diagnosis: Diagnosis,
    executed_at: Instant,
    now: Instant,
    policy: Policy,
) -> Judgement:
    """Judge a share that a circuit lets in again: by its real requests, else by our own checks.

    Args:
        before, after: what the gateway had counted when it was let in, and has counted by now;
            None where it cannot tell.
        diagnosis: from what measures the service besides its gateway.
    """
    requests = failed = 0
    if before is not None and after is not None:
        requests = max(0, after.requests - before.requests)
        failed = max(0, after.failed - before.failed)
    if requests >= policy.circuit_requests and failed > policy.degraded_error_rate * requests:
        return Judgement(Outcome.RELAPSED, f"{failed} of {requests} requests failed")
    if diagnosis.symptom is not None and requests < policy.circuit_requests:
        return Judgement(Outcome.RELAPSED, diagnosis.symptom.evidence)
    if diagnosis.symptom is not None and diagnosis.symptom.factual:
        return Judgement(Outcome.RELAPSED, diagnosis.symptom.evidence)
    done_at = Instant(executed_at + policy.circuit_step_s)
    if now < done_at:
        return Judgement(None, "a share is let in", None, done_at)
    return Judgement(Outcome.RECOVERED, f"{requests - failed} of {requests} requests were served")
