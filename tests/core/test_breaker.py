"""Circuits: how long they stay open, and how many servers may be shut, whatever is seen."""

from hypothesis import given
from hypothesis import strategies as st
from tests.core.conftest import NOW

from prunella.core.breaker import (
    LONGEST_S,
    SHARES,
    instance_of,
    is_panic,
    may_shut,
    next_share,
    open_s,
    opened_count,
    share_of,
    sick_servers,
    with_share,
)
from prunella.core.ledger import Attempt
from prunella.core.model import (
    ActionId,
    ActionKind,
    Debt,
    Health,
    IncidentId,
    Instance,
    InstanceId,
    InstanceState,
    Instant,
    Outcome,
    Status,
    Symptom,
    SymptomKind,
)
from prunella.core.policy import Policy
from prunella.core.traffic import OPEN_WIDE, Flow, Server, Traffic, Valve

POLICY = Policy()
BREAK, CLOSE = ActionKind.CIRCUIT_BREAK, ActionKind.CIRCUIT_CLOSE


def flow_of(count: int, *, down: frozenset[int] = frozenset(), valve: Valve = OPEN_WIDE) -> Flow:
    servers = tuple(Server(str(n), up=n not in down) for n in range(count))
    return Flow(valve, Traffic(NOW), servers)


def owed(*names: str) -> tuple[Debt, ...]:
    return tuple(Debt(BREAK, ActionId(1), 100, 0, NOW, instance=InstanceId(name)) for name in names)


def opened(ago_s: float, instance: str | None = None, kind: ActionKind = BREAK) -> Attempt:
    at = Instant(NOW - ago_s)
    who = None if instance is None else InstanceId(instance)
    return Attempt(kind, at, at, Outcome.CONTAINED, "prunella", IncidentId("i"), who)


def test_each_time_it_stays_open_longer_and_never_for_ever() -> None:
    spans = [open_s(POLICY, count) for count in range(20)]
    assert spans[:3] == [30, 60, 90]
    assert spans[-1] == LONGEST_S == 300


def test_the_count_is_of_that_circuit_alone_and_fades() -> None:
    attempts = [opened(1), opened(2), opened(3, "a"), opened(4, kind=CLOSE)]
    assert opened_count(attempts, None, POLICY, NOW) == 2
    assert opened_count(attempts, InstanceId("a"), POLICY, NOW) == 1
    assert opened_count([opened(POLICY.backoff_half_life_s * 2)], None, POLICY, NOW) == 0


@given(st.integers(0, 100))
def test_a_step_lets_in_more_and_never_more_than_the_next_share(present: int) -> None:
    step = next_share(present)
    assert step in SHARES
    assert step > present or step == 100
    assert all(share <= present for share in SHARES if share < step)


@given(st.integers(0, 100), st.frozensets(st.sampled_from("abc")), st.sampled_from("abc"))
def test_a_valve_has_the_share_that_it_is_given(share: int, shut: frozenset[str], one: str) -> None:
    valve, server = Valve(share, shut), InstanceId(one)
    for wanted in (0, 100):
        turned = with_share(valve, server, wanted)
        assert share_of(turned, server) == wanted
        assert (turned.share, turned.shut - {one}) == (share, shut - {one})
    assert share_of(with_share(valve, None, 10), None) == 10


pools = st.integers(1, 40).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.frozensets(st.integers(0, count - 1)),
        st.lists(st.integers(0, count - 1), max_size=60),
    )
)


@given(pools)
def test_however_many_are_sick_enough_stay(
    pool: tuple[int, frozenset[int], list[int]],
) -> None:
    """Servers are condemned in any order, while others go down by themselves."""
    count, down, condemned = pool
    shut: list[str] = []
    for number in condemned:
        valve = Valve(shut=frozenset(shut))
        if str(number) in shut or may_shut(
            flow_of(count, down=down, valve=valve), str(number), owed(*shut)
        ):
            continue
        shut.append(str(number))
        left = count - len({*shut} | {str(n) for n in down})
        assert left >= 1
        assert left >= count / 2
    assert len(shut) <= max(1, count // 10)
    assert count > 1 or not shut


@given(pools)
def test_too_few_are_left_exactly_when_it_is_below_half(
    pool: tuple[int, frozenset[int], list[int]],
) -> None:
    count, down, shut = pool
    flow = flow_of(count, down=down, valve=Valve(shut=frozenset(map(str, shut))))
    left = count - len(down | set(shut))
    assert is_panic(flow) is (left < max(1, count / 2))


def test_a_server_is_known_by_its_place_or_by_its_name() -> None:
    instance = Instance(InstanceId("1"), InstanceState.RUNNING, port=8001)
    other = instance._replace(id=InstanceId("2"), port=0)
    flow = Flow(
        Valve(),
        Traffic(NOW),
        (Server("web1", "127.0.0.1", 8001), Server("web2", "127.0.0.1", 8002), Server("2")),
    )
    status = Status((instance, other), 2)
    assert instance_of(flow.servers[0], status) == "1"
    assert instance_of(flow.servers[1], status) is None
    assert instance_of(flow.servers[2], status) == "2"
    symptom = Symptom(
        SymptomKind.ERRORING, Health.DEGRADED, NOW, "500", instances=(instance.id, other.id)
    )
    assert sick_servers(symptom, status, flow) == ["2", "web1"]
    shut = flow._replace(valve=Valve(shut=frozenset({"2"})))
    assert sick_servers(symptom, status, shut) == ["web1"]
