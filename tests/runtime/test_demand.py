"""What real requests say of a service, whoever counts them."""

from prunella.core.model import Health, InstanceId, Instant, Status, SymptomKind, Traffic
from prunella.core.policy import Policy
from prunella.core.traffic import OPEN_WIDE, Flow, Server, Valve
from prunella.runtime.demand import Demand, Source

POLICY = Policy()
NOBODY = Status((), 0)


def flow(at_s: float, requests: int, failed: int = 0, **servers: tuple[int, int]) -> Flow:
    at = Instant(at_s)
    counted = tuple(Server(name, traffic=Traffic(at, *two)) for name, two in servers.items())
    return Flow(OPEN_WIDE, Traffic(at, requests, failed), counted)


def test_two_that_count_differently_are_not_mixed_up() -> None:
    demand = Demand(POLICY)
    for n in range(12):
        demand.take_flow(flow(n * 5.0, n * 20))
        demand.take(Source(0), Traffic(Instant(n * 5.0 + 1), 1_000_000 + n * 20, 50_000))
    now = Instant(60.0)
    assert demand.symptoms(NOBODY, now) == []
    found = demand.last_minute(now)
    assert found is not None
    assert found[0].requests == 220


def test_the_gateway_speaks_for_the_service_and_each_may_condemn_it() -> None:
    demand = Demand(POLICY)
    for n in range(12):
        demand.take(Source(0), Traffic(Instant(n * 5.0 + 1), n * 100, n * 50))
        demand.take_flow(flow(n * 5.0 + 2, n * 100))
    now = Instant(60.0)
    (symptom,) = demand.symptoms(NOBODY, now)
    assert (symptom.kind, symptom.severity) == (SymptomKind.ERRORING, Health.FAILED)
    found = demand.last_minute(now)
    assert found is not None
    assert found[0].error_ratio == 0


def test_what_one_instance_counts_condemns_that_one() -> None:
    demand = Demand(POLICY)
    for n in range(12):
        demand.take(Source(0, InstanceId("a")), Traffic(Instant(n * 5.0), n * 100, n * 50))
    (symptom,) = demand.symptoms(NOBODY, Instant(56.0))
    assert (symptom.severity, symptom.instances) == (Health.DEGRADED, ("a",))
    assert demand.last_minute(Instant(56.0)) is None


def test_a_sick_server_is_named_and_the_service_is_not_blamed_for_it() -> None:
    demand = Demand(POLICY)
    for n in range(12):
        demand.take_flow(flow(n * 5.0, n * 200, n * 50, a=(n * 100, 0), b=(n * 100, n * 50)))
    (symptom,) = demand.symptoms(NOBODY, Instant(56.0))
    assert (symptom.kind, symptom.instances) == (SymptomKind.ERRORING, ("b",))


def test_requests_that_were_served_since_contradict_and_those_before_do_not() -> None:
    demand = Demand(POLICY)
    for n in range(12):
        demand.take_flow(flow(n * 5.0, n * 100))
    assert demand.served_since(Instant(56.0)) == 50.0
    demand.take_flow(flow(60.0, 1100))  # and then none came to an end any more
    assert demand.served_since(Instant(61.0)) is None


def test_after_an_action_nothing_counts_that_was_before_it() -> None:
    demand = Demand(POLICY)
    for n in range(12):
        demand.take_flow(flow(n * 5.0, n * 100, n * 50, a=(n * 100, n * 50)))
    demand.forget()
    assert demand.symptoms(NOBODY, Instant(56.0)) == []
    demand.take_flow(flow(60.0, 1200, 550, a=(1200, 550)))
    found = demand.last_minute(Instant(60.0))
    assert found is not None
    assert found[0].requests == 100


def test_what_gets_no_requests_is_not_judged_by_those_before() -> None:
    demand = Demand(POLICY)
    for n in range(12):
        demand.take_flow(flow(n * 5.0, n * 200, n * 100, a=(n * 100, 0), b=(n * 100, n * 100)))
    shut = Valve(shut=frozenset({"b"}))
    demand.take_flow(flow(60.0, 2400, 1100, a=(1200, 0), b=(1200, 1100))._replace(valve=shut))
    (symptom,) = demand.symptoms(NOBODY, Instant(60.0))
    assert symptom.instances == ()
    demand.take_flow(flow(65.0, 2400, 1100)._replace(valve=Valve(0)))
    assert demand.symptoms(NOBODY, Instant(65.0)) == []
