"""Totals that never become smaller, unless the gateway has begun to count anew."""

from __future__ import annotations

from prunella.core.model import ServiceId
from prunella.core.traffic import Flow, Traffic


class Ratchet:
    """Some of HAProxy's totals are differences of two, and for a moment only one of them is there.

    A try of a TCP session that failed is taken back before the next try is counted, for example.
    """

    def __init__(self) -> None:
        self._flows: dict[ServiceId, tuple[int, Flow]] = {}

    def hold(self, service: ServiceId, total: int, flow: Flow) -> Flow:
        """The flow, not below the one before, unless `total` is: a count that only ever grows."""
        if (before := self._flows.get(service)) is not None and total >= before[0]:
            known = {server.name: server.traffic for server in before[1].servers}
            servers = tuple(
                server._replace(traffic=_held(server.traffic, known.get(server.name)))
                for server in flow.servers
            )
            traffic = _held(flow.traffic, before[1].traffic)
            assert traffic is not None
            flow = Flow(flow.valve, traffic, servers)
        self._flows[service] = total, flow
        return flow


def _held(now: Traffic | None, before: Traffic | None) -> Traffic | None:
    if now is None or before is None:
        return now
    if (
        now.requests >= before.requests
        and now.failed >= before.failed
        and now.turned_away >= before.turned_away
    ):
        return now  # as good as always, and this is done for each server of each service
    return now._replace(
        requests=max(now.requests, before.requests),
        failed=max(now.failed, before.failed),
        turned_away=max(now.turned_away, before.turned_away),
    )
