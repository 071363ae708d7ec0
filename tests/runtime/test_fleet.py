"""The fleet: many failing at once are a storm, and after one healing starts small."""

import pytest

from prunella.core.fleet import AT_ONCE_S, Loss
from prunella.core.model import Health, Instant, ServiceId
from prunella.core.policy import FleetPolicy, Need
from prunella.runtime.fleet import Fleet

POLICY = FleetPolicy()
TEN = [ServiceId(f"s{number}") for number in range(10)]


@pytest.fixture
def fleet() -> Fleet:
    made = Fleet(POLICY)
    for service in TEN:
        made.join(service, "")
    return made


def fail(fleet: Fleet, count: int, at: float = 0.0) -> list[bool]:
    return [
        fleet.believe(service, Health.FAILED, Loss.HALF, Instant(at)) for service in TEN[:count]
    ]


def heal(fleet: Fleet, service: ServiceId, at: float, *, success: bool = True) -> None:
    fleet.acting(service, Instant(at), healing=True)
    fleet.ended(service, Instant(at + 1), success=success)


def test_a_storm_begins_once_with_the_failure_that_is_one_too_many(fleet: Fleet) -> None:
    assert fail(fleet, 5) == [False, False, False, True, False]
    assert fleet.storms == ("",)


def test_failures_that_are_far_apart_are_no_storm(fleet: Fleet) -> None:
    for number, service in enumerate(TEN[:6]):
        at = Instant(number * POLICY.storm_window_s)
        assert not fleet.believe(service, Health.FAILED, Loss.HALF, at)
    assert fleet.storms == ()


def test_many_that_lose_a_part_of_themselves_at_once_are_a_storm(fleet: Fleet) -> None:
    began = [fleet.believe(one, Health.DEGRADED, Loss.PART, Instant(2.0)) for one in TEN[:5]]
    assert began == [False, False, False, True, False]


def test_parts_that_are_lost_one_after_the_other_are_no_storm(fleet: Fleet) -> None:
    for number, service in enumerate(TEN):
        at = Instant(number * AT_ONCE_S / 2)
        assert not fleet.believe(service, Health.DEGRADED, Loss.PART, at)


def test_a_lost_part_does_not_make_the_quiet_begin_anew(fleet: Fleet) -> None:
    fail(fleet, 4)
    fleet.believe(TEN[9], Health.DEGRADED, Loss.PART, Instant(50.0))
    assert fleet.view(TEN[0], Instant(60.0)).storm.quiet_since == 0.0


def test_what_is_being_healed_has_not_ceased_to_fail(fleet: Fleet) -> None:
    fail(fleet, 3)
    for service in TEN[:3]:
        fleet.acting(service, Instant(1.0), healing=True)
        fleet.believe(service, Health.HEALTHY, Loss.NONE, Instant(2.0))
    assert fleet.view(TEN[9], Instant(2.0)).unwell == 3
    assert fleet.believe(TEN[3], Health.FAILED, Loss.HALF, Instant(3.0))


def test_what_has_been_healed_has_ceased_to_fail(fleet: Fleet) -> None:
    fail(fleet, 3)
    for service in TEN[:3]:
        fleet.acting(service, Instant(1.0), healing=True)
        fleet.believe(service, Health.HEALTHY, Loss.NONE, Instant(2.0))
        fleet.ended(service, Instant(2.5), success=True)
    assert fleet.view(TEN[9], Instant(2.5)).unwell == 0
    assert not fleet.believe(TEN[3], Health.FAILED, Loss.HALF, Instant(3.0))


@pytest.mark.parametrize("first", ["the cause", "its victims"])
def test_what_a_known_cause_explains_is_no_storm(first: str) -> None:
    fleet = Fleet(POLICY)
    cause, *victims = TEN
    fleet.join(cause, "")
    for victim in victims:
        fleet.join(victim, "", (Need(cause),))
    order = [cause, *victims] if first == "the cause" else [*victims, cause]
    for number, service in enumerate(order):
        fleet.dependencies.believe(service, Health.FAILED)
        fleet.believe(service, Health.FAILED, Loss.HALF, Instant(float(number)))
    assert fleet.storms == ()
    fleet.dependencies.believe(cause, Health.HEALTHY)
    fleet.believe(cause, Health.HEALTHY, Loss.NONE, Instant(20.0))
    assert fleet.view(cause, Instant(20.0)).unwell == 9
    assert fleet.storms == ()


def test_a_storm_that_a_cause_explains_in_part_only_stays_one() -> None:
    fleet = Fleet(POLICY)
    cause, *others = TEN
    fleet.join(cause, "")
    for number, service in enumerate(others):
        fleet.join(service, "", (Need(cause),) if number < 3 else ())
    for service in (*others, cause):
        fleet.dependencies.believe(service, Health.FAILED)
        fleet.believe(service, Health.FAILED, Loss.HALF, Instant(1.0))
    assert fleet.storms == ("",)


def test_what_is_taken_back_does_not_count_as_unwell(fleet: Fleet) -> None:
    fleet.acting(TEN[0], Instant(1.0), healing=False)
    assert fleet.view(TEN[9], Instant(2.0)).unwell == 0


def test_the_same_service_failing_again_and_again_is_no_storm(fleet: Fleet) -> None:
    for number in range(20):
        at = Instant(float(number))
        assert not fleet.believe(TEN[0], Health.FAILED, Loss.HALF, at)
        assert not fleet.believe(TEN[0], Health.HEALTHY, Loss.NONE, at)
    assert fleet.storms == ()


def test_another_window_counts_as_soon_as_it_is_set(fleet: Fleet) -> None:
    fleet.policy = FleetPolicy(storm_window_s=10.0)
    for number, service in enumerate(TEN[:6]):
        at = Instant(number * 11.0)
        assert not fleet.believe(service, Health.FAILED, Loss.HALF, at)


def test_few_services_never_make_a_storm() -> None:
    fleet = Fleet(POLICY)
    for service in TEN[:2]:
        fleet.join(service, "")
    assert fail(fleet, 2) == [False, False]


def test_each_further_failure_makes_the_quiet_begin_anew(fleet: Fleet) -> None:
    fail(fleet, 4)
    fleet.believe(TEN[9], Health.FAILED, Loss.HALF, Instant(50.0))
    storm = fleet.view(TEN[0], Instant(60.0)).storm
    assert (storm.since, storm.quiet_since) == (0.0, 50.0)


def test_after_the_storm_one_canary_then_2_then_4_and_1_again_when_one_does_not_help(
    fleet: Fleet,
) -> None:
    fail(fleet, 8)
    widths = [fleet.view(TEN[0], Instant(130.0)).storm.width]
    for service in TEN[:2]:
        heal(fleet, service, 130.0)
        widths.append(fleet.view(TEN[0], Instant(140.0)).storm.width)
    heal(fleet, TEN[2], 150.0, success=False)
    storm = fleet.view(TEN[0], Instant(160.0)).storm
    assert [*widths, storm.width] == [1, 2, 4, 1]
    assert storm.quiet_since == 151.0


def test_an_action_from_before_the_storm_widens_nothing(fleet: Fleet) -> None:
    fleet.acting(TEN[0], Instant(0.0), healing=True)
    fail(fleet, 8, at=1.0)
    fleet.ended(TEN[0], Instant(5.0), success=True)
    assert fleet.view(TEN[0], Instant(6.0)).storm.width == 1


def test_others_see_what_runs_in_their_domain_and_not_their_own(fleet: Fleet) -> None:
    fleet.acting(TEN[0], Instant(0.0), healing=True)
    assert fleet.view(TEN[1], Instant(1.0)).domain_running == 1
    assert fleet.view(TEN[0], Instant(1.0)).domain_running == 0


def test_the_storm_ends_after_a_whole_window_with_few_failed(fleet: Fleet) -> None:
    fail(fleet, 5)
    for service in TEN[:4]:
        fleet.believe(service, Health.HEALTHY, Loss.NONE, Instant(10.0))
    for at, on in ((10.0, True), (10.0 + POLICY.storm_window_s - 1, True)):
        assert bool(fleet.view(TEN[0], Instant(at)).storm.since is not None) is on
    assert fleet.view(TEN[0], Instant(10.0 + POLICY.storm_window_s)).storm.since is None
    assert fleet.storms == ()


def test_a_relapse_within_that_window_keeps_the_storm_on(fleet: Fleet) -> None:
    fail(fleet, 5)
    for service in TEN[:4]:
        fleet.believe(service, Health.HEALTHY, Loss.NONE, Instant(10.0))
    fleet.view(TEN[0], Instant(10.0))
    fail(fleet, 4, at=100.0)
    assert fleet.view(TEN[0], Instant(10.0 + POLICY.storm_window_s)).storm.since is not None


def test_a_storm_in_one_domain_is_calm_in_another() -> None:
    fleet = Fleet(POLICY)
    for service in TEN:
        fleet.join(service, "north" if service in TEN[:5] else "south")
    fail(fleet, 4)
    assert fleet.storms == ("north",)
    assert fleet.view(TEN[9], Instant(0.0)).storm.since is None


def test_who_has_left_counts_no_more(fleet: Fleet) -> None:
    fail(fleet, 3)
    fleet.sight(TEN[0], blind=True)
    fleet.acting(TEN[0], Instant(0.0), healing=True)
    fleet.leave(TEN[0])
    view = fleet.view(TEN[1], Instant(0.0))
    assert (view.total, view.unwell, view.blind, view.domain_running) == (9, 2, 0, 0)
