"""What real requests say of one service: from its gateway, and from probes that count them."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from prunella.core.breaker import instance_of
from prunella.core.demand import (
    NOTHING,
    RECENT_S,
    Rate,
    Window,
    burn,
    fold,
    is_well_served,
    outliers,
    rate,
    symptom_of_traffic,
)
from prunella.core.model import Health, InstanceId, Instant, Status, Symptom, Traffic
from prunella.core.policy import Policy
from prunella.core.traffic import Flow, Server

_NEWEST_COUNT = 10  # requests in the newest reading that are enough to contradict a probe


class Source(NamedTuple):
    """Who counts requests: a probe, by its number, or the gateway; and of whom, if of one."""

    number: int
    instance: InstanceId | None = None


_GATEWAY = Source(-1)


class Demand:
    """Windows of requests, one for each source: no two of them count the same.

    Where several count the service as a whole, each may condemn it, and the gateway, else the
    first of them, speaks for it.
    """

    __slots__ = ("_before", "_places", "_policy", "_servers", "_windows")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._windows: dict[Source, Window] = {}
        self._servers: dict[str, Window] = {}
        self._places: dict[str, Server] = {}
        self._before: tuple[Source, Traffic] | None = None  # its reading before the newest one

    def take(self, source: Source, seen: Traffic) -> None:
        """Take in the totals of one source."""
        window = self._windows.get(source, NOTHING)
        self._windows[source] = fold(window, seen, self._policy)
        if source == self._speaker and window.last is not None and seen.at > window.last.at:
            self._before = source, window.last

    @property
    def _speaker(self) -> Source | None:
        whole = [source for source in self._windows if source.instance is None]
        return min(whole, default=None)

    def take_flow(self, flow: Flow) -> None:
        """Take in what the gateway has counted.

        What gets no requests is not judged by those that it had before.
        """
        self.take(_GATEWAY, flow.traffic)
        if not flow.valve.share:
            self._windows[_GATEWAY] = Window(last=flow.traffic)
        self._places = {server.name: server for server in flow.servers}
        counted = [server for server in flow.servers if server.traffic is not None]
        for name in self._servers.keys() - {server.name for server in counted}:
            del self._servers[name]
        for server in counted:
            assert server.traffic is not None
            before = self._servers.get(server.name, NOTHING)
            if server.name in flow.valve.shut:
                self._servers[server.name] = Window(last=server.traffic)
                continue
            self._servers[server.name] = fold(before, server.traffic, self._policy, lasting=False)

    def forget(self) -> None:
        """What was counted before an action is no evidence after it."""
        self._windows = {of: Window(last=one.last) for of, one in self._windows.items()}
        self._servers = {name: Window(last=one.last) for name, one in self._servers.items()}
        self._before = None

    def last_minute(self, now: Instant) -> tuple[Rate, Traffic] | None:
        """What the requests of the service have met lately; None: nobody counts them."""
        window = self._windows[self._speaker] if self._speaker is not None else NOTHING
        if window.last is None:
            return None
        return rate(window, RECENT_S, now), window.last

    def symptoms(self, status: Status | None, now: Instant) -> list[Symptom]:
        """What the requests confirm, of the service and of what is sick among its peers."""
        if not self._windows:
            return []
        found: list[Symptom] = []
        for (_, of), window in self._windows.items():
            symptom = symptom_of_traffic(window, self._policy, now)
            if symptom is None and self._policy.slo is not None:
                symptom = burn(window, self._policy.slo, now)
            if symptom is None:
                continue
            if of is not None:
                symptom = replace(symptom, severity=Health.DEGRADED, instances=(of,), partial=True)
            found.append(symptom)
        sick = outliers(self._servers, self._policy, now)
        if not sick:
            return found
        names = [self._instance(one.server, status) for one in sick]
        worst = sick[0]
        evidence = f"server {worst.server}: {worst.evidence}"
        since = self._servers[worst.server].bad_since or now
        outlying = Symptom(
            worst.kind, Health.DEGRADED, since, evidence, instances=tuple(names), partial=True
        )
        # Where some servers alone are sick, the service is not.
        return [outlying, *(s for s in found if s.kind is not worst.kind)]

    def served_since(self, now: Instant) -> Instant | None:
        """From when on enough of the newest requests were served; None: not known, or not so."""
        if self._before is None or self._before[0] != self._speaker:
            return None
        source, before = self._before
        window = self._windows[source]
        assert window.last is not None, "there is one before it"
        requests = window.last.requests - before.requests
        failed = window.last.failed - before.failed
        if requests < _NEWEST_COUNT or failed > self._policy.degraded_error_rate * requests:
            return None
        return before.at if is_well_served(window, self._policy, now) else None

    def _instance(self, server: str, status: Status | None) -> InstanceId:
        found = instance_of(self._places[server], status)
        return InstanceId(server) if found is None else found
