"""Whether a remedy has helped, as scripts of checks: + pass, s slow pass, - fail, ? blind."""

import pytest

from prunella.core.health import FRESH, Diagnosis, ProbeKey, Vitals, diagnose, fold
from prunella.core.model import (
    Cause,
    Health,
    Instance,
    InstanceId,
    InstanceState,
    Instant,
    Observation,
    Outcome,
    Symptom,
    SymptomKind,
    Verdict,
)
from prunella.core.policy import Policy
from prunella.core.verify import has_come_up, is_proven, judge, streak_since

SIGNS = {
    "+": (Verdict.PASS, 0.01, None),
    "s": (Verdict.PASS, 2.0, None),
    "-": (Verdict.FAIL, 0.01, Cause.REFUSED),
    "?": (Verdict.INCONCLUSIVE, 0.0, None),
}


def folded(script: str) -> Vitals:
    vitals = FRESH
    for number, sign in enumerate(script):
        verdict, latency_s, cause = SIGNS[sign]
        vitals = fold(vitals, Observation(verdict, Instant(number), latency_s, cause), Policy())
    return vitals


@pytest.mark.parametrize(
    ("scripts", "since"),
    [
        ([""], None),
        (["+"], None),
        (["++"], 0),
        (["--++"], 2),
        (["+?+"], 0),
        (["+-+"], None),
        (["ss"], None),
        (["s++"], 1),
        (["++-"], None),
        (["++", "-+"], None),
        (["++", "-++"], 1),
        (["++", "??"], None),
    ],
    ids=lambda value: " and ".join(value) if isinstance(value, list) else "",
)
def test_it_is_up_when_every_probe_has_passed_in_time_twice_in_a_row(
    scripts: list[str], since: int | None
) -> None:
    probes = [folded(script) for script in scripts]
    assert has_come_up(probes, Policy()) is (since is not None)
    begun = streak_since(probes, Instant(-1.0), Policy())
    assert begun == (None if since is None else Instant(since))


def test_a_higher_rise_needs_more() -> None:
    assert not has_come_up([folded("++")], Policy(rise=3))
    assert has_come_up([folded("+++")], Policy(rise=3))


POLICY = Policy(soak_s=60, deadline_s=300, grace_s=10)
HUNG = Symptom(SymptomKind.HUNG, Health.FAILED, Instant(0), "3 checks in a row failed")
GONE = Symptom(SymptomKind.DOWN, Health.FAILED, Instant(0), "exit code 1", factual=True)


@pytest.mark.parametrize(
    ("script", "symptom", "had_recovered", "now", "outcome", "wake_at"),
    [
        ("", None, False, 1, None, 300),
        ("+", None, False, 2, None, 300),
        ("++", None, False, 2, None, 60),
        ("-++", None, True, 9, None, 61),
        ("++", None, True, 59.9, None, 60),
        ("++", None, True, 60, Outcome.RECOVERED, None),
        ("++s", None, True, 60, None, 300),
        ("---", HUNG, False, 3, None, 300),
        ("---", HUNG, False, 300, Outcome.INEFFECTIVE, None),
        ("---", HUNG, True, 3, Outcome.RELAPSED, None),
        ("++", GONE, False, 3, Outcome.INEFFECTIVE, None),
        ("++", GONE, True, 3, Outcome.RELAPSED, None),
        ("???", None, False, 299, None, 300),
        ("???", None, False, 300, Outcome.INEFFECTIVE, None),
    ],
)
def test_a_remedy_has_helped_when_it_is_well_through_the_whole_soak(
    script: str,
    symptom: Symptom | None,
    had_recovered: bool,  # noqa: FBT001 - a parameter of pytest
    now: float,
    outcome: Outcome | None,
    wake_at: float | None,
) -> None:
    vitals = folded(script)
    seen = diagnose({ProbeKey(0): vitals}, None, POLICY, Instant(now))
    diagnosis = seen if symptom is None else Diagnosis(symptom.severity, symptom)
    found = judge(diagnosis, [vitals], Instant(0), had_recovered, Instant(now), POLICY, 60)
    assert (found.outcome, found.wake_at) == (
        outcome,
        None if wake_at is None else Instant(wake_at),
    )


CANARY = Instance(InstanceId("0"), InstanceState.RUNNING, "new")
WELL, FAILED = Diagnosis(Health.HEALTHY), Diagnosis(Health.FAILED, HUNG)
UNWELL = Diagnosis(Health.DEGRADED, HUNG)


@pytest.mark.parametrize(
    ("canary", "own", "whole", "diagnosis", "after_s", "proven"),
    [
        (CANARY, None, "++", WELL, 2, True),
        (CANARY, None, "+", WELL, 2, False),
        (CANARY, None, "++", UNWELL, 2, False),
        (CANARY, "++", "--", UNWELL, 2, True),
        (CANARY, "+", "++", WELL, 2, False),
        (CANARY, None, "--", FAILED, 9, False),
        (CANARY, None, "--", FAILED, 10, True),
        (CANARY, None, "--", UNWELL, 99, False),
        (CANARY, None, None, WELL, 9, False),
        (CANARY, None, None, WELL, 10, True),
        (CANARY._replace(verdict=Verdict.FAIL), None, "++", WELL, 99, False),
        (CANARY._replace(verdict=Verdict.PASS), None, "++", WELL, 2, True),
        (CANARY._replace(state=InstanceState.EXITED), None, "++", WELL, 99, False),
        (None, None, "++", WELL, 99, False),
    ],
)
def test_the_next_ones_turn_comes_when_the_canary_is_proven(
    canary: Instance | None,
    own: str | None,
    whole: str | None,
    diagnosis: Diagnosis,
    after_s: float,
    proven: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    probes: dict[ProbeKey, Vitals] = {}
    if whole is not None:
        probes[ProbeKey(0)] = folded(whole)
    if own is not None:
        probes[ProbeKey(1, InstanceId("0"))] = folded(own)
    assert is_proven(diagnosis, probes, canary, Instant(0), Instant(after_s), POLICY) is proven
