"""The fold of observations, as scripts: + pass, - refused, t timeout, e error, s slow, ? blind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunella.core.fleet import Loss
from prunella.core.health import (
    FRESH,
    ProbeKey,
    Vitals,
    diagnose,
    fold,
    loss_of,
    status_word,
    uptime_ratio,
)
from prunella.core.machine import Phase
from prunella.core.model import (
    Cause,
    Health,
    Instance,
    InstanceId,
    InstanceState,
    Instant,
    Observation,
    Status,
    SymptomKind,
    Verdict,
)
from prunella.core.policy import WINDOW, Policy

POLICY = Policy()
ONLY = ProbeKey(0)
SIGNS = {
    "+": (Verdict.PASS, 0.01, None),
    "s": (Verdict.PASS, 2.0, None),
    "-": (Verdict.FAIL, 0.01, Cause.REFUSED),
    "t": (Verdict.FAIL, 2.0, Cause.TIMEOUT),
    "e": (Verdict.FAIL, 0.01, Cause.ERROR),
    "?": (Verdict.INCONCLUSIVE, 0.0, None),
}


def folded(script: str) -> Vitals:
    vitals = FRESH
    for number, sign in enumerate(script):
        verdict, latency_s, cause = SIGNS[sign]
        seen = Observation(verdict, Instant(float(number)), latency_s, cause, "detail")
        vitals = fold(vitals, seen, POLICY)
    return vitals


@pytest.mark.parametrize(
    ("script", "health", "kind"),
    [
        ("", Health.UNKNOWN, None),
        ("???", Health.UNKNOWN, None),
        ("+", Health.HEALTHY, None),
        ("+-", Health.SUSPECT, None),
        ("+--", Health.SUSPECT, None),
        ("+---", Health.FAILED, SymptomKind.DOWN),
        ("+--?-", Health.FAILED, SymptomKind.DOWN),
        ("+--+--", Health.SUSPECT, None),
        ("+ttt", Health.FAILED, SymptomKind.HUNG),
        ("+eee", Health.FAILED, SymptomKind.ERRORING),
        ("+sss", Health.DEGRADED, SymptomKind.SLOW),
        ("+ss", Health.SUSPECT, None),
        ("+sss+", Health.SUSPECT, None),
        ("+sss++", Health.HEALTHY, None),
        ("+---+", Health.SUSPECT, None),
        ("+---++", Health.HEALTHY, None),
        ("+---???", Health.FAILED, SymptomKind.DOWN),
        ("+++???", Health.UNKNOWN, None),
        ("---" * 10 + "++" + "e", Health.SUSPECT, None),
        ("+" * 19 + "e", Health.SUSPECT, None),
        ("+" * 36 + "e+e+", Health.HEALTHY, None),
        ("+" * 30 + "e+e++", Health.HEALTHY, None),
        ("+" * 30 + "e+e+", Health.DEGRADED, SymptomKind.ERRORING),
        ("+" * 15 + "e+e+e+", Health.FAILED, SymptomKind.ERRORING),
        ("+" * 10 + "e+e+e", Health.SUSPECT, None),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_scripts_of_observations_are_believed_as(
    script: str, health: Health, kind: SymptomKind | None
) -> None:
    found = diagnose({ONLY: folded(script)}, None, POLICY, Instant(1000.0))
    assert (found.health, found.symptom.kind if found.symptom else None) == (health, kind)


def test_an_exit_is_believed_at_once_and_outranks_every_sample() -> None:
    gone = Instance(InstanceId("0"), InstanceState.EXITED, "x", "killed by SIGKILL")
    found = diagnose({ONLY: folded("+++")}, Status((gone,), 1), POLICY, Instant(9.0))
    assert found.health is Health.FAILED
    assert found.symptom is not None
    assert found.symptom.factual
    assert "killed by SIGKILL" in found.symptom.evidence


def test_one_exit_of_several_instances_degrades_only() -> None:
    status = Status(
        (
            Instance(InstanceId("0"), InstanceState.EXITED),
            Instance(InstanceId("1"), InstanceState.RUNNING),
        ),
        2,
    )
    assert diagnose({}, status, POLICY, Instant(9.0)).health is Health.DEGRADED


def test_what_a_person_has_stopped_is_not_down() -> None:
    stopped = Instance(InstanceId("0"), InstanceState.STOPPED)
    assert diagnose({}, Status((stopped,), 1), POLICY, Instant(9.0)).symptom is None


@given(st.text("+-tes?", max_size=300))
def test_the_window_never_grows_and_counts_stay_in_bounds(script: str) -> None:
    vitals = folded(script)
    assert vitals.samples <= min(WINDOW, sum(sign != "?" for sign in script))
    assert 0 <= vitals.failures.bit_count() <= vitals.samples
    assert vitals.failures < 1 << WINDOW
    assert 0.0 <= vitals.error_rate <= 1.0


@given(st.text("+-tes", max_size=60), st.text("?", max_size=20))
def test_blind_observations_never_make_or_end_a_symptom(script: str, blind: str) -> None:
    now = Instant(1000.0)
    before = diagnose({ONLY: folded(script)}, None, POLICY, now).symptom
    after = diagnose({ONLY: folded(script + blind)}, None, POLICY, now).symptom
    assert (before is None) == (after is None)


@pytest.mark.parametrize(
    ("health", "phase", "word"),
    [
        (Health.SUSPECT, Phase.WATCHING, "healthy"),
        (Health.DEGRADED, Phase.WATCHING, "degraded"),
        (Health.UNKNOWN, Phase.WATCHING, "unknown"),
        (Health.FAILED, Phase.ACTING, "recovering"),
        (Health.HEALTHY, Phase.VERIFYING, "recovering"),
        (Health.FAILED, Phase.COOLING, "failed"),
        (Health.FAILED, Phase.QUARANTINED, "failed"),
    ],
)
def test_people_see_one_word(health: Health, phase: Phase, word: str) -> None:
    assert status_word(health, phase) == word


def test_uptime_counts_known_time_only() -> None:
    changes = [
        (Instant(0.0), Health.UNKNOWN),
        (Instant(10.0), Health.HEALTHY),
        (Instant(70.0), Health.FAILED),
        (Instant(90.0), Health.HEALTHY),
    ]
    assert uptime_ratio(changes, Instant(110.0), 1000.0) == pytest.approx(0.8)
    assert uptime_ratio(changes, Instant(110.0), 20.0) == pytest.approx(1.0)
    assert uptime_ratio([], Instant(5.0), 10.0) is None


EACH = [ProbeKey(0, InstanceId(name)) for name in "ab"]


def running(name: str, verdict: Verdict | None = None) -> Instance:
    return Instance(InstanceId(name), InstanceState.RUNNING, f"run-{name}", verdict=verdict)


def test_one_sick_instance_degrades_and_is_named() -> None:
    vitals = dict(zip(EACH, [folded("+ttt"), folded("++++")], strict=True))
    found = diagnose(vitals, None, POLICY, Instant(9.0))
    assert found.health is Health.DEGRADED
    assert found.symptom is not None
    assert (found.symptom.kind, found.symptom.instances) == (SymptomKind.HUNG, ("a",))


def test_when_every_instance_is_sick_the_service_has_failed() -> None:
    vitals = dict(zip(EACH, [folded("+eee"), folded("+eee")], strict=True))
    found = diagnose(vitals, None, POLICY, Instant(9.0))
    assert found.health is Health.FAILED
    assert found.symptom is not None
    assert set(found.symptom.instances) == {"a", "b"}


def test_what_the_platform_itself_condemns_is_a_symptom() -> None:
    status = Status((running("a", Verdict.FAIL), running("b", Verdict.PASS)), 2)
    found = diagnose({}, status, POLICY, Instant(9.0))
    assert found.symptom is not None
    assert (found.health, found.symptom.instances) == (Health.DEGRADED, ("a",))
    alone = diagnose({}, Status((running("a", Verdict.FAIL),), 1), POLICY, Instant(9.0))
    assert alone.health is Health.FAILED


def test_what_is_slow_while_a_resource_is_at_its_limit_is_saturated() -> None:
    busy = FRESH
    for second in range(3):
        at = Instant(float(second))
        seen = Observation(Verdict.FAIL, at, 0.0, Cause.SATURATED, "cpu", load=1.2)
        busy = fold(busy, seen, POLICY)
    found = diagnose({ProbeKey(0): folded("+sss"), ProbeKey(1): busy}, None, POLICY, Instant(9.0))
    assert found.symptom is not None
    assert (found.symptom.kind, found.symptom.saturated) == (SymptomKind.SLOW, True)
    assert busy.load == pytest.approx(1.2)


def test_load_is_a_mean_of_the_newest_measurements() -> None:
    vitals = FRESH
    loads: list[float] = []
    for load in (1.0, 1.0, 0.0, 0.5):
        vitals = fold(vitals, Observation(Verdict.PASS, Instant(0.0), 0.01, load=load), POLICY)
        assert vitals.load is not None
        loads.append(vitals.load)
    assert loads == pytest.approx([1.0, 1.0, 0.8, 0.74])


@pytest.mark.parametrize(
    ("down", "desired", "loss"),
    [
        (running("0")._replace(state=InstanceState.EXITED), 2, Loss.HALF),
        (running("0", Verdict.FAIL), 2, Loss.HALF),
        (running("0")._replace(is_restarting=True), 2, Loss.HALF),
        (running("0")._replace(is_restarting=True), 3, Loss.PART),
        (running("0")._replace(state=InstanceState.STOPPED), 2, Loss.NONE),
        (running("0"), 2, Loss.NONE),
    ],
)
def test_what_is_down_is_a_loss_whether_or_not_it_is_a_fault(
    down: Instance, desired: int, loss: Loss
) -> None:
    status = Status((down, *(running(str(number)) for number in range(1, desired))), desired)
    assert loss_of(diagnose({}, status, POLICY, Instant(9.0)), status) is loss


def test_instances_that_a_probe_condemns_are_a_loss() -> None:
    status = Status((running("0"), running("1"), running("2")), 3)
    vitals = {ProbeKey(0, InstanceId("0")): folded("ttt")}
    vitals |= {ProbeKey(0, InstanceId(str(number))): folded("+++") for number in (1, 2)}
    assert loss_of(diagnose(vitals, status, POLICY, Instant(9.0)), status) is Loss.PART


def test_what_is_slow_is_no_loss() -> None:
    status = Status((running("0"),), 1)
    diagnosis = diagnose({ONLY: folded("ssss")}, status, POLICY, Instant(9.0))
    assert diagnosis.health is Health.DEGRADED
    assert loss_of(diagnosis, status) is Loss.NONE
