"""Circuits: how long one stays open, how it is closed again, and which servers may be shut.

A circuit is closed (all requests pass), open (none) or half-open (a share of them). Its memory is
a debt, the fact is the gateway's valve: what somebody else has set there is not fought over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prunella.core.ledger import Attempt
from prunella.core.model import (
    ActionKind,
    Debt,
    Instance,
    InstanceId,
    Instant,
    Status,
    Symptom,
    SymptomKind,
)
from prunella.core.policy import Policy
from prunella.core.traffic import Flow, Server, Valve

CIRCUIT = frozenset({ActionKind.CIRCUIT_BREAK, ActionKind.CIRCUIT_CLOSE})
SHARES = (10, 50, 100)  # on the way from open to closed
SHED = 50  # what a service that is overloaded keeps
LONGEST_S = 300.0
LEASE_S = 60.0  # after it the gateway closes by itself what we have not set again since
_SHUT_RATIO = 0.10  # servers that we keep requests from, at most; one may always be
_POOL_RATIO = 0.50  # servers that are left, at least


def open_s(policy: Policy, extended_count: int) -> float:
    """How long a circuit stays open that has been opened so many times before."""
    return min(policy.circuit_open_s * (1 + extended_count), LONGEST_S)


def opened_count(
    attempts: Iterable[Attempt], instance: InstanceId | None, policy: Policy, now: Instant
) -> int:
    """How often the circuit was opened lately; each time weighs half after each half-life."""
    weight = sum(
        0.5 ** (max(0.0, now - (one.ended_at or one.at)) / policy.backoff_half_life_s)
        for one in attempts
        if one.kind is ActionKind.CIRCUIT_BREAK and one.instance == instance
    )
    return int(weight + 0.5)


def next_share(present: int) -> int:
    """The next step towards closed."""
    return next((share for share in SHARES if share > present), SHARES[-1])


def share_of(valve: Valve, instance: InstanceId | None) -> int:
    """Percent of its requests that the service, or one server of it, gets."""
    if instance is None:
        return valve.share
    return 0 if instance in valve.shut else 100


def with_share(valve: Valve, instance: InstanceId | None, share: int) -> Valve:
    """The valve with that share for the service, or for one server of it."""
    if instance is None:
        return valve._replace(share=share)
    shut = valve.shut - {instance} if share else valve.shut | {instance}
    return valve._replace(shut=shut)


def opening(symptom: Symptom | None) -> int:
    """What is left of the requests when the circuit is broken for it."""
    overloaded = symptom is not None and symptom.kind is SymptomKind.SLOW
    return SHED if overloaded else 0


def circuits(debts: Iterable[Debt]) -> tuple[Debt, ...]:
    """Those that are open circuits, the service's first."""
    found = (debt for debt in debts if debt.kind is ActionKind.CIRCUIT_BREAK)
    return tuple(sorted(found, key=lambda debt: debt.instance or ""))


def last_of(attempts: Iterable[Attempt], instance: InstanceId | None) -> Attempt | None:
    """The newest turn of this circuit."""
    return next((one for one in attempts if one.kind in CIRCUIT and one.instance == instance), None)


# Servers -----------------------------------------------------------------------------------------


def instance_of(server: Server, status: Status | None) -> InstanceId | None:
    """The instance that a server is; None: its platform shows none that it could be."""
    for instance in status.instances if status is not None else ():
        if server.name == instance.id or (
            server.port and (server.address, server.port) == _place(instance)
        ):
            return instance.id
    return None


def _place(instance: Instance) -> tuple[str, int]:
    return instance.address or "127.0.0.1", instance.port


def sick_servers(symptom: Symptom, status: Status | None, flow: Flow) -> list[InstanceId]:
    """The servers that a symptom is about, by the gateway's names, without those that are shut."""
    named = set(symptom.instances)
    sick = {
        server.name
        for server in flow.servers
        if server.name in named or instance_of(server, status) in named
    }
    return [InstanceId(name) for name in sorted(sick - flow.valve.shut)]


def _out(flow: Flow) -> set[str]:
    return {server.name for server in flow.servers if not server.up} | flow.valve.shut


def is_panic(flow: Flow) -> bool:
    """Whether so few servers are left that the sick ones had better serve as well."""
    pool = len(flow.servers)
    return pool - len(_out(flow)) < max(1, _POOL_RATIO * pool)


def may_shut(flow: Flow, server: str, ours: Sequence[Debt]) -> str:
    """Why this server must not be shut; empty if it may be."""
    pool = len(flow.servers)
    if pool < 2:
        return "it is the only server"
    shut = sum(debt.instance is not None for debt in ours)
    if shut + 1 > max(1, int(_SHUT_RATIO * pool)):
        return f"{shut} of {pool} servers are shut already"
    left = pool - len(_out(flow) | {server})
    if left < max(1, _POOL_RATIO * pool):
        return f"{left} of {pool} servers would be left"
    return ""
