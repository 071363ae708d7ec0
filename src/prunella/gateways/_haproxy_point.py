"""One service as HAProxy has it now, and the commands that turn it: no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from prunella.core.model import Instant
from prunella.core.traffic import OPEN_WIDE, Flow, Traffic, Valve
from prunella.errors import ConflictError, PermanentError
from prunella.gateways._haproxy_circuits import Circuit, circuit_of, key_of, value_of
from prunella.gateways._haproxy_reading import DRAIN, MAINT, Backend, Member
from prunella.ports import Route


class Order(NamedTuple):
    """One command, and the one that undoes it."""

    do: str
    undo: str


class Point(NamedTuple):
    """A service with a circuit in the map, or one that is opened by shutting all its servers.

    Attributes:
        circuits: the map, if the service is in it; None: its servers are shut instead.
        apart: by `name`, servers that were shut already when the others were, to open the circuit.
        fallback: where requests go meanwhile, if there is such a backend.
        now_ms: of the epoch.
    """

    route: Route
    backend: Backend
    circuits: Mapping[str, str] | None
    apart: Mapping[str, Sequence[str]]
    fallback: Backend | None
    now_ms: int

    @property
    def name(self) -> str:
        return "/".join(filter(None, (self.route.spec.backend, self.route.spec.server)))

    @property
    def members(self) -> Sequence[Member]:
        if not (only := self.route.spec.server):
            return self.backend.members
        return [one for one in self.backend.members if one.name == only]

    @property
    def found(self) -> bool:
        return bool(self.members) or not self.route.spec.server

    @property
    def total(self) -> int:
        """Becomes smaller when HAProxy begins to count anew, and never else."""
        return sum(one.counts.stot for one in self.members)

    @property
    def valve(self) -> Valve:
        shut = frozenset([one.name for one in self.members if one.shut])
        if self.circuits is not None:
            return Valve(self._circuit.share_at(self.now_ms), shut)
        if len(shut) < len(self.members) or not shut:
            return Valve(OPEN_WIDE.share, shut)
        drained = frozenset(one.name for one in self.members if one.admin & DRAIN)
        before = shut.intersection(self.apart.get(self.name, ()))
        return Valve(0, before | drained)

    @property
    def _circuit(self) -> Circuit:
        return circuit_of((self.circuits or {}).get(key_of(self.route), ""))

    # What it counts ----------------------------------------------------------------------------

    def flow(self, at: Instant) -> Flow:
        http = self.backend.http
        every = [one.traffic(at, http=http) for one in self.members]
        servers = [one.server(traffic) for one, traffic in zip(self.members, every, strict=True)]
        return Flow(self.valve, self._traffic(at, every), tuple(servers))

    def _traffic(self, at: Instant, every: Sequence[Traffic]) -> Traffic:
        requests = failed = unconnected = in_flight = timed = 0
        spent_s = 0.0
        for one in every:
            requests += one.requests
            failed += one.failed
            unconnected += one.unconnected
            in_flight += one.in_flight
            if one.mean_s is not None:
                timed += one.requests
                spent_s += one.requests * one.mean_s
        mean_s = spent_s / timed if timed else None
        whole = Traffic(at, requests, failed, unconnected, in_flight=in_flight, mean_s=mean_s)
        if self.route.spec.server:
            return whole  # the rest of the backend is not this service
        unserved = self.backend.unserved
        if self.circuits is None:
            return whole._replace(turned_away=unserved)
        away = self.fallback.counts.stot if self.fallback else self.backend.counts.dreq
        return whole._replace(
            requests=whole.requests + unserved, failed=whole.failed + unserved, turned_away=away
        )

    # How it is turned --------------------------------------------------------------------------

    def wanted(self, valve: Valve, before: Valve) -> Valve:
        """The valve with no more than what differs between the two put into it.

        Raises:
            ConflictError: where they differ, neither is found.
            PermanentError: it cannot be set like this.
        """
        service, present = self.route.service, self.valve
        touched = valve.shut ^ before.shut
        if not self.found:
            raise PermanentError(f"HAProxy has no server {self.name}")
        if self.circuits is None and valve.share not in (0, OPEN_WIDE.share):
            raise PermanentError(f"HAProxy has no circuit of {service} that lets a share through")
        if valve.share != before.share and present.share not in (before.share, valve.share):
            raise ConflictError(f"somebody has set the circuit of {service} to {present.share} %")
        if unknown := touched - {one.name for one in self.members}:
            names = ", ".join(sorted(unknown))
            raise PermanentError(f"{self.route.spec.backend} has no server {names} in HAProxy")
        if drained := [
            one.name for one in self.members if one.admin & DRAIN and one.name in touched
        ]:
            raise ConflictError(f"somebody has {', '.join(drained)} of {service} drained")
        share = present.share if valve.share == before.share else valve.share
        return Valve(
            share, (present.shut | (valve.shut - before.shut)) - (before.shut - valve.shut)
        )

    def orders(self, wanted: Valve, lease_s: float, file: Path | None) -> Iterator[Order]:
        """What has to be done so that the valve is the wanted one; the lease begins anew."""
        if self.circuits is not None:
            yield from self._circuit_orders(self.circuits, wanted.share, lease_s, file)
        all_shut = self.circuits is None and wanted.share == 0
        for one in self.members:
            address = f"set server {self.route.spec.backend}/{one.name} state"
            if (all_shut or one.name in wanted.shut) and not one.shut:
                yield Order(f"{address} maint", f"{address} ready")
            if not (all_shut or one.name in wanted.shut) and one.admin & MAINT:
                yield Order(f"{address} ready", f"{address} maint")

    def _circuit_orders(
        self, circuits: Mapping[str, str], share: int, lease_s: float, file: Path | None
    ) -> Iterator[Order]:
        if share == self.valve.share == OPEN_WIDE.share:
            return
        end_ms = self.now_ms + round(lease_s * 1000) if share < OPEN_WIDE.share else 0
        key = key_of(self.route)
        value = value_of(self.route, Circuit(end_ms, share))
        if (present := circuits.get(key)) is None:
            yield Order(f"add map {file} {key} {value}", f"del map {file} {key}")
        else:
            yield Order(f"set map {file} {key} {value}", f"set map {file} {key} {present}")
