"""When something that was started is up, as scripts: + pass, s slow pass, - fail, ? blind."""

import pytest

from prunella.core.health import FRESH, Vitals, fold
from prunella.core.model import Cause, Instant, Observation, Verdict
from prunella.core.policy import Policy
from prunella.core.verify import has_come_up, streak_since

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
