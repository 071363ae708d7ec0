"""Gateway ``haproxy``: driven by its Runtime API, over the socket of its administrator."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

from pydantic import AfterValidator, Field

from prunella.core.model import Epoch, Instant, ServiceId
from prunella.core.traffic import Flow, Valve
from prunella.errors import PermanentError, PrunellaError, TransientError
from prunella.gateways._haproxy_circuits import BODY_BYTES, file_text, listed
from prunella.gateways._haproxy_examine import examine
from prunella.gateways._haproxy_files import KeptFile
from prunella.gateways._haproxy_log import TimesLog, trouble_at
from prunella.gateways._haproxy_point import Order, Point
from prunella.gateways._haproxy_ratchet import Ratchet
from prunella.gateways._haproxy_reading import Backend, backends, shut_servers
from prunella.gateways._haproxy_socket import AdminSocket
from prunella.plugins import GatewayContext, GatewayPlugin
from prunella.ports import Remark, Route
from prunella.spec import GatewaySpec, RouteSpec

_BACKENDS_AND_SERVERS = 2 | 4  # the types of `show stat`
_NO_BACKEND = "No such proxy"
_NAME = r"[A-Za-z0-9_.:-]+"  # HAProxy's own rule


def _plain(path: Path) -> Path:
    if any(sign.isspace() or sign in ";\\" for sign in str(path)):
        raise ValueError("HAProxy cannot be told a path with a space, a ; or a \\ in it")
    return path


class HAProxySpec(GatewaySpec):
    """HAProxy 2.4 or newer. Its own configuration says what it serves, and reads `circuits`."""

    socket: Path = Field(
        description="Its `stats socket`, of the level admin, such as /run/haproxy/admin.sock."
    )
    circuits: Annotated[Path, AfterValidator(_plain)] | None = Field(
        default=None,
        description="The map file in which its configuration looks up circuits. Without it, and "
        "for TCP, a circuit is opened by putting all servers into maintenance.",
    )
    state_file: Path | None = Field(
        default=None,
        description="Its `server-state-file`, so that a reload keeps what is in maintenance.",
    )
    log: Path | None = Field(
        default=None,
        description="A socket for its log, such as /run/haproxy/prunella.log.sock. Prunella reads "
        "there how long requests took; without it there are means and no percentiles.",
    )


class HAProxyRoute(RouteSpec):
    """A backend of HAProxy, or one server of it."""

    backend: str = Field(pattern=f"^{_NAME}$", description="The backend that serves it.")
    server: str = Field(
        default="",
        pattern=f"^({_NAME})?$",
        description="The one server of the backend that it is. Default: all of them.",
    )


class _View(NamedTuple):
    """One reading of HAProxy. ``circuits``: its map; None: there is to be none."""

    backends: Mapping[str, Backend]
    circuits: Mapping[str, str] | None
    states: str


class HAProxyGateway:
    """What is set is in HAProxy; files follow it, for the next reload."""

    kind: ClassVar[str] = "haproxy"
    shuts = True

    def __init__(self, spec: HAProxySpec, context: GatewayContext) -> None:
        self.shares = spec.circuits is not None
        self._spec = spec
        self._clock = context.clock
        self._socket = AdminSocket(spec.socket, spec.timeout)
        self._routes: Mapping[ServiceId, Route] = {}
        self._log = TimesLog(spec.log, context.clock) if spec.log else None
        self._turning = asyncio.Lock()
        self._ratchet = Ratchet()
        self._circuits = KeptFile(spec.circuits) if spec.circuits else None
        self._state = KeptFile(spec.state_file) if spec.state_file else None
        self._apart_file = KeptFile(context.state_dir / "haproxy-shut.json", ours=True)
        self._apart: dict[str, list[str]] | None = None

    async def route(self, routes: Sequence[Route], /) -> None:
        """Remember them.

        Raises:
            PermanentError: a body is too long, or a fallback is no name of a backend.
        """
        for route in routes:
            if len(route.body.encode()) > BODY_BYTES:
                raise PermanentError(
                    f"HAProxy can be told {BODY_BYTES:,} bytes, and the body of {route.service} "
                    "has more"
                )
            if route.fallback and not re.fullmatch(_NAME, route.fallback):
                raise PermanentError(f"{route.fallback!r} is no name of a backend of HAProxy")
        self._routes = {route.service: route for route in routes}

    async def observe(self) -> Mapping[ServiceId, Flow]:
        apart = await self._read_apart()
        backends = {route.spec.backend for route in self._routes.values()}
        view = await self._view(
            backends | {route.fallback for route in self._routes.values() if route.fallback}
        )
        if self._log is not None:
            self._log.open(
                {
                    name: [one.name for one in backend.members]
                    for name, backend in view.backends.items()
                }
            )
        now, now_ms = self._clock.now(), self._now_ms()
        points = {
            service: point
            for service, route in self._routes.items()
            if (point := self._point(route, view, apart, now_ms)) and point.found
        }
        await self._keep(view)
        return {
            service: self._ratchet.hold(service, point.total, self._flow(point, now))
            for service, point in points.items()
        }

    async def turn(
        self,
        service: ServiceId,
        valve: Valve,
        /,
        *,
        before: Valve,
        lease_s: float,
        epoch: Epoch,  # noqa: ARG002 - HAProxy has no fence
    ) -> None:
        """Set the circuit first, then the servers.

        Raises:
            ConflictError: as in `Gateway`; also where a server was drained that is to be touched.
            PermanentError: there is no such backend or server, or the socket is not an admin's.
            TransientError: HAProxy does not answer.
        """
        if (route := self._routes.get(service)) is None:
            raise PermanentError(f"no service {service} is behind this gateway")
        async with self._turning:
            apart = await self._read_apart()
            view = await self._view({route.spec.backend})
            point = self._point(route, view, apart, self._now_ms())
            if point is None:
                raise PermanentError(f"HAProxy has no backend {route.spec.backend}")
            wanted = point.wanted(valve, before)
            if point.circuits is None and wanted.share == 0:
                apart[point.name] = sorted(wanted.shut)
                await self._apart_file.keep(json.dumps(apart, sort_keys=True))
            orders = list(point.orders(wanted, lease_s, self._spec.circuits))
            if orders:
                await self._carry_out(orders)
                with suppress(TransientError):  # it is turned, and the next reading keeps it
                    await self._keep(await self._view({route.spec.backend}))

    async def examine(self) -> Sequence[Remark]:
        kept = [one for one in (self._circuits, self._state) if one]
        remarks = await examine(self._socket, self._spec.circuits, [*self._routes.values()], kept)
        if self._log is None:
            return remarks
        if trouble := trouble_at(self._log.path):
            return [*remarks, Remark(trouble, fault=True)]
        if elsewhere := self._log.elsewhere():
            return [*remarks, Remark(elsewhere)]
        if unread := self._log.unread():
            return [*remarks, Remark(unread)]
        return remarks

    async def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def _flow(self, point: Point, at: Instant) -> Flow:
        flow = point.flow(at)
        if self._log is None:
            return flow
        return self._log.timed(flow, point.route.spec.backend, point.route.spec.server)

    def _now_ms(self) -> int:
        return round(self._clock.wall().timestamp() * 1000)

    async def _view(self, names: AbstractSet[str]) -> _View:
        """These backends; all servers, if they are to be kept."""
        only = next(iter(names)) if len(names) == 1 else ""
        commands = [
            f"show stat {only or '-1'} {_BACKENDS_AND_SERVERS} -1",
            f"show servers state {'' if self._state else only}",
        ]
        if self._spec.circuits:
            commands.append(f"show map {self._spec.circuits}")
        stat, states, *maps = await self._socket.ask(*commands)
        circuits = None
        for reply in maps:
            if (circuits := listed(reply)) is None:
                raise TransientError(
                    f"HAProxy has no map {self._spec.circuits}: {reply.strip()[:80]}"
                )
        if only and stat.startswith(_NO_BACKEND):
            return _View({}, circuits, "")
        return _View(backends(stat, states, names), circuits, states)

    def _point(
        self, route: Route, view: _View, apart: Mapping[str, Sequence[str]], now_ms: int
    ) -> Point | None:
        if (backend := view.backends.get(route.spec.backend)) is None:
            return None
        in_map = backend.http and not route.spec.server
        return Point(
            route,
            backend,
            view.circuits if in_map else None,
            apart,
            view.backends.get(route.fallback),
            now_ms,
        )

    async def _carry_out(self, orders: Sequence[Order]) -> None:
        try:
            await self._socket.order([order.do for order in orders])
        except PrunellaError:
            with suppress(TransientError):
                for order in reversed(orders):
                    with suppress(PermanentError):
                        await self._socket.order([order.undo])
            raise

    async def _keep(self, view: _View) -> None:
        if self._circuits is not None and view.circuits is not None:
            await self._circuits.keep(file_text(view.circuits))
        if self._state is not None and view.states:
            await self._state.keep(shut_servers(view.states))

    async def _read_apart(self) -> dict[str, list[str]]:
        """Servers that were shut before the others were; a file that makes no sense says none."""
        if self._apart is None:
            try:
                found = json.loads(await self._apart_file.read() or "{}")
                self._apart = {str(name): [*map(str, servers)] for name, servers in found.items()}
            except (ValueError, AttributeError, TypeError):
                self._apart = {}
        return self._apart


PLUGIN = GatewayPlugin("haproxy", HAProxySpec, HAProxyRoute, HAProxyGateway)
