"""What counts against a service: remedies, and what its platform has restarted by itself."""

from prunella.core.budget import within
from prunella.core.fleet import AT_ONCE_S
from prunella.core.ledger import Attempt
from prunella.core.model import ActionKind, IncidentId, InstanceId, Instant, Outcome

NOW = Instant(10_000.0)


def restarted(instance: str, ago_s: float, outcome: Outcome = Outcome.FOREIGN) -> Attempt:
    at = Instant(NOW - ago_s)
    id_ = InstanceId(instance)
    return Attempt(ActionKind.RESTART, at, at, outcome, "docker", IncidentId("i"), id_)


def count(*attempts: Attempt) -> int:
    return len(within(sorted(attempts, key=lambda one: -one.at), 3600, NOW))


def test_many_instances_that_a_platform_restarts_in_one_moment_count_once() -> None:
    assert count(*(restarted(f"web.{number}", 30 - number * 0.5) for number in range(10))) == 1


def test_an_instance_that_is_restarted_again_and_again_counts_each_time() -> None:
    assert count(*(restarted("web.1", 30 - number * 0.1) for number in range(5))) == 5


def test_instances_that_are_restarted_at_other_times_count_each_by_itself() -> None:
    assert count(*(restarted(f"web.{n}", 300 - n * (AT_ONCE_S + 1)) for n in range(4))) == 4


def test_our_own_actions_count_whatever_a_platform_does_beside_them() -> None:
    ours = [restarted(f"web.{number}", 29.5 - number, Outcome.RECOVERED) for number in range(3)]
    assert count(*ours, *(restarted(f"web.{number}", 30 - number) for number in range(5))) == 4
