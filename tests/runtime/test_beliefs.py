"""What is believed of a service whose instances come and go."""

from prunella.core.health import ProbeKey
from prunella.core.model import (
    Health,
    Instance,
    InstanceId,
    InstanceState,
    Instant,
    Observation,
    Status,
    Verdict,
)
from prunella.core.policy import Policy
from prunella.runtime.beliefs import Beliefs


def status(**states: InstanceState) -> Status:
    found = (Instance(InstanceId(name), state, "run") for name, state in states.items())
    return Status(tuple(found), len(states))


def watched(**states: InstanceState) -> Beliefs:
    """Beliefs of a service whose every instance has answered well."""
    beliefs = Beliefs(Policy(), [True], Instant(0.0))
    beliefs.look(status(**states), Instant(1.0))
    for second in range(2, 6):
        for name in states:
            seen = Observation(Verdict.PASS, Instant(float(second)), 0.01)
            beliefs.observe(ProbeKey(0, InstanceId(name)), seen)
    beliefs.reassess(Instant(6.0))
    return beliefs


def health_of(beliefs: Beliefs) -> Health:
    beliefs.reassess(Instant(8.0))
    return beliefs.diagnosis.health


RUNNING, STOPPED = InstanceState.RUNNING, InstanceState.STOPPED


def test_an_instance_that_was_stopped_is_not_well_for_having_been_so() -> None:
    beliefs = watched(a=RUNNING)
    assert health_of(beliefs) is Health.HEALTHY
    beliefs.look(status(a=STOPPED), Instant(7.0))
    assert health_of(beliefs) is Health.UNKNOWN


def test_the_others_are_as_well_as_they_were() -> None:
    beliefs = watched(a=RUNNING, b=RUNNING)
    beliefs.look(status(a=RUNNING, b=STOPPED), Instant(7.0))
    assert health_of(beliefs) is Health.HEALTHY


def test_a_new_instance_has_to_be_seen_first() -> None:
    beliefs = watched(a=RUNNING)
    beliefs.look(status(a=RUNNING, b=RUNNING), Instant(7.0))
    assert health_of(beliefs) is Health.UNKNOWN
