"""Gateway ``caddy``: circuits in Caddy's configuration, through its admin interface.

Each change is a graceful reload of Caddy's configuration, under the tag of what was read before:
a change by somebody else in between is never overwritten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from pydantic import Field

from prunella.core.model import Epoch, Instant, ServiceId
from prunella.core.traffic import Flow, Server, Traffic, Valve
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.gateways._admin import Admin, Base, route_of, share_of
from prunella.gateways._caddy_config import Circuit, Place, places, proxy_of, read, write
from prunella.gateways._caddy_metrics import Counts, counts, healthy
from prunella.gateways._caddy_tagged import tagged
from prunella.plugins import GatewayContext, GatewayPlugin
from prunella.ports import Remark, Route
from prunella.spec import GatewaySpec, RouteSpec

_SERVERS = "/config/apps/http/servers"
_TRIES = 5
_HERE = ("127.0.0.1", "::1", "localhost")
_MIGRATE = Path("/proc/sys/net/ipv4/tcp_migrate_req")


class CaddySpec(GatewaySpec):
    """A Caddy, 2.5 or newer."""

    admin: Base = Field(
        default="http://127.0.0.1:2019", description="Where its admin interface answers."
    )


class CaddyRoute(RouteSpec):
    """A service behind it."""

    id: str = Field(
        pattern=r"^[\w.-]+$", description="The `@id` of the service's handler `reverse_proxy`."
    )


class CaddyGateway:
    """All that is set is in Caddy; what it counts is read from its exposition of it."""

    kind: ClassVar[str] = "caddy"
    shares = True
    shuts = True

    def __init__(self, spec: CaddySpec, context: GatewayContext) -> None:
        self.spec = spec
        self._clock = context.clock
        self._admin = Admin(spec.timeout, spec.admin)
        self._routes: Mapping[ServiceId, Route] = {}
        self._counted: dict[ServiceId, tuple[Instant, Counts]] = {}

    async def route(self, routes: Sequence[Route], /) -> None:
        self._routes = {route.service: route for route in routes}

    async def observe(self) -> Mapping[ServiceId, Flow]:
        found, upstreams, metrics = await self._look()
        try:
            counted, up = counts(metrics), healthy(metrics)
            busy = {str(one["address"]): int(one["num_requests"]) for one in upstreams}
        except (KeyError, TypeError, ValueError) as error:
            raise TransientError(f"what Caddy counts makes no sense: {error!r}") from error
        flows: dict[ServiceId, Flow] = {}
        for service, route in self._routes.items():
            place = found.get(route.spec.id)
            circuit = None if place is None else _circuit(route, place.handles)
            if place is None or circuit is None:
                continue
            dials = [str(one.get("dial")) for one in circuit.upstreams]
            traffic = Traffic(self._clock.now())
            if place.counted:
                traffic = self._traffic(service, counted.get(place.counted, Counts()))
            traffic = traffic._replace(in_flight=sum(busy.get(dial, 0) for dial in dials))
            servers = tuple(_servers(route, circuit, up))
            flows[service] = Flow(self._valve(route, circuit), traffic, servers)
        return flows

    async def turn(
        self,
        service: ServiceId,
        valve: Valve,
        /,
        *,
        before: Valve,
        lease_s: float,
        epoch: Epoch,  # noqa: ARG002 - Caddy's tags are the fence
    ) -> None:
        route = route_of(self._routes, service)
        for _ in range(_TRIES):
            place = (await self._places()).get(route.spec.id)
            if place is None:
                raise PermanentError(f"Caddy has no reverse_proxy with the @id {route.spec.id}")
            handles, tag = await tagged(self.spec.admin, place.path, self.spec.timeout)
            circuit = _circuit(route, handles)
            if circuit is None:
                raise ConflictError(f"the circuit of {service} was rewritten by somebody else")
            wanted = self._wanted(route, circuit, valve, before, lease_s)
            if wanted == circuit:
                return
            changed = write(
                route.spec.id,
                handles,
                wanted,
                lease_s=lease_s,
                body=route.body,
                fallback=route.fallback,
            )
            answer = await self._admin.put("PATCH", place.path, changed, **{"If-Match": tag})
            if answer.status != 412:  # somebody else was faster: look again
                answer.require()
                return
        raise TransientError("Caddy's configuration changes all the time")

    async def close(self) -> None:
        await self._admin.close()

    async def examine(self) -> Sequence[Remark]:
        try:
            found = await self._places()
        except PrunellaError as error:
            return [Remark(str(error), fault=True)]
        return [
            *_kernel(self.spec.admin),
            *(
                remark
                for service, route in self._routes.items()
                for remark in _remarks(service, route, found.get(route.spec.id))
            ),
        ]

    async def _places(self) -> Mapping[str, Place]:
        try:
            return places(await self._admin.get(_SERVERS) or {})
        except (AttributeError, TypeError) as error:
            raise TransientError("Caddy's configuration makes no sense") from error

    async def _look(self) -> tuple[Mapping[str, Place], Sequence[Any], str]:
        """All of it at the same time, and to the end even if one of them fails."""
        found = asyncio.ensure_future(self._places())
        upstreams = asyncio.ensure_future(self._admin.get("/reverse_proxy/upstreams"))
        metrics = asyncio.ensure_future(self._admin.ask("GET", "/metrics"))
        looks: list[asyncio.Future[Any]] = [found, upstreams, metrics]
        await asyncio.gather(*looks, return_exceptions=True)
        listed = cast("Sequence[Any]", upstreams.result() or [])
        return found.result(), listed, metrics.result().require().text()

    def _traffic(self, service: ServiceId, now: Counts) -> Traffic:
        """Times are those of the last interval or so, however often one looks."""
        at = self._clock.now()
        since, before = self._counted.setdefault(service, (at, now))
        if now.requests < before.requests:  # Caddy began anew
            since, before = self._counted[service] = (at, Counts())
        if at - since >= self.spec.interval:
            self._counted[service] = (at, now)
        return now.traffic(at, before)

    def _wall_ms(self) -> float:
        return self._clock.wall().timestamp() * 1000

    def _valve(self, route: Route, circuit: Circuit) -> Valve:
        shut = frozenset(_name(route, one["dial"]) for one in circuit.kept)
        return Valve(circuit.share_at(self._wall_ms()), shut)

    def _wanted(
        self, route: Route, circuit: Circuit, valve: Valve, before: Valve, lease_s: float
    ) -> Circuit:
        present = self._valve(route, circuit)
        share = share_of(route.service, present, before, valve)
        shut = (present.shut | (valve.shut - before.shut)) - (before.shut - valve.shut)
        if share == 100 and (share, shut) == present:
            return circuit
        every = {_name(route, one["dial"]): one for one in (*circuit.upstreams, *circuit.kept)}
        if missing := shut - every.keys():
            raise PermanentError(f"Caddy has no server {', '.join(sorted(missing))} there")
        ends_ms = int(self._wall_ms() + lease_s * 1000) if share < 100 else 0
        return Circuit(
            share,
            ends_ms,
            [one for name, one in every.items() if name not in shut],
            [one for name, one in every.items() if name in shut],
        )


def _circuit(route: Route, handles: Any) -> Circuit | None:
    try:
        return read(route.spec.id, handles)
    except (AttributeError, KeyError, IndexError, TypeError):  # somebody else has written it
        return None


def _name(route: Route, dial: str) -> str:
    """The instance that answers there, if the platform knows one; else Caddy's own word."""
    for endpoint in route.endpoints:
        host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        if dial == f"{host}:{endpoint.port}":
            return endpoint.name
    return dial


def _servers(route: Route, circuit: Circuit, up: Mapping[str, bool]) -> Iterator[Server]:
    for one in (*circuit.upstreams, *circuit.kept):
        dial = str(one.get("dial", ""))
        host, _, port = dial.rpartition(":")
        known = port.isdecimal() and "/" not in host
        address, number = (host.strip("[]"), int(port)) if known else ("", 0)
        yield Server(_name(route, dial), address, number, up.get(dial, True))


def _kernel(admin: str) -> Iterator[Remark]:
    """Caddy opens its ports anew at each reload; those who wait on the old ones must move."""
    with suppress(OSError):  # an older kernel, or none of Linux
        here = urlsplit(admin).hostname in _HERE
        if here and _MIGRATE.read_text().strip() == "0":
            yield Remark(
                "connections that are just being made are lost at each change, unless "
                "`sysctl net.ipv4.tcp_migrate_req=1` is set where Caddy runs"
            )


def _remarks(service: ServiceId, route: Route, place: Place | None) -> Iterator[Remark]:
    id_ = route.spec.id
    if place is None:
        yield Remark(
            f'{service}: Caddy has no handler reverse_proxy with "@id": "{id_}"', fault=True
        )
        return
    if _circuit(route, place.handles) is None:
        yield Remark(f"{service}: somebody else has written its circuit prunella-{id_}", fault=True)
    if "dynamic_upstreams" in (proxy_of(id_, place.handles) or {}):
        yield Remark(f"{service}: its upstreams are dynamic: none of them can be shut")
    if not place.counted:
        yield Remark(
            f"{service}: its requests are not counted: its handler would have to be the only "
            "reverse_proxy of its Caddy server, and directly in a route of it"
        )
    elif not place.metrics:
        yield Remark(f'{service}: Caddy counts only with "metrics": {{}} in {place.counted}')


PLUGIN = GatewayPlugin("caddy", CaddySpec, CaddyRoute, CaddyGateway)
