"""Gateway ``kubernetes``: circuits in the objects of a cluster that lead requests to pods.

What is set is in the object, with a note of what there was before. A cluster ends nothing by
itself: what is past its lease is closed by whoever reads it next, which is our next start.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import structlog
from pydantic import Field, model_validator

from prunella.core.model import Epoch, ServiceId
from prunella.core.traffic import OPEN_WIDE, Flow, Server, Traffic, Valve
from prunella.errors import PermanentError, PrunellaError, TransientError
from prunella.gateways._admin import refuse_parts
from prunella.gateways._kube_circuits import (
    Circuit,
    HttpRouteCircuit,
    ServiceCircuit,
    VirtualServiceCircuit,
)
from prunella.gateways._kube_examine import examine
from prunella.gateways._kube_objects import Note, until
from prunella.gateways._kube_pods import admit, is_able, is_shut, turn_pod
from prunella.gateways._kube_turning import Turn, turn
from prunella.gateways._kube_view import Point, View
from prunella.kube.access import access
from prunella.kube.shared import SharedCluster, cluster_at, leave
from prunella.plugins import GatewayContext, GatewayPlugin
from prunella.ports import Remark, Route
from prunella.spec import Duration, GatewaySpec, RouteSpec

_log = structlog.get_logger("prunella.kubernetes")
_FALLBACK = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?:[0-9]{1,5}")


class KubernetesGatewaySpec(GatewaySpec):
    """A cluster, found as kubectl finds it, or the one that Prunella itself runs in."""

    context: str | None = Field(
        default=None, description="Of the kubeconfig. Default: its current one; in a pod, its own."
    )
    kubeconfig: Path | None = Field(
        default=None, description="Default: $KUBECONFIG, or ~/.kube/config."
    )
    timeout: Duration = Field(
        default=10.0,
        description="A cluster that takes longer to follow what was set is in trouble.",
    )


class KubernetesRoute(RouteSpec):
    """The object that leads requests to a service. Exactly one is to be named."""

    namespace: str = Field(default="", description="Of the object. Default: the context's.")
    http_route: str = Field(default="", description="An HTTPRoute of the Gateway API.")
    virtual_service: str = Field(default="", description="A VirtualService of Istio.")
    destination: str = Field(
        default="",
        description="Only the http routes of the VirtualService that lead to this host. "
        "Default: all of them.",
    )
    service: str = Field(default="", description="A Service: all of its requests, or none.")

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if sum(map(bool, (self.http_route, self.virtual_service, self.service))) != 1:
            raise ValueError("name exactly one of http_route, virtual_service and service")
        if self.destination and not self.virtual_service:
            raise ValueError("destination goes with virtual_service")
        return self


class KubernetesGateway:
    """Reads what watches tell, and changes objects under the version that was read.

    Attributes:
        shares: all that is behind it can be let through in part; else each `Flow` says it.
        shuts: something behind it can be kept from one pod.
    """

    kind: ClassVar[str] = "kubernetes"

    def __init__(self, spec: KubernetesGatewaySpec, context: GatewayContext) -> None:
        self.shares = self.shuts = True
        self._spec = spec
        self._clock = context.clock
        self._routes: Mapping[ServiceId, Route] = {}
        self._cluster: SharedCluster | None = None
        self._view: View | None = None
        self._turning = asyncio.Lock()
        self._chores: dict[object, asyncio.Task[None]] = {}

    async def route(self, routes: Sequence[Route], /) -> None:
        """Remember them.

        Raises: PermanentError: a fallback cannot be had.
        """
        for route in routes:
            if route.fallback and not route.spec.http_route:
                raise PermanentError(f"{route.service}: only an http_route can have a fallback")
            if route.fallback and not _FALLBACK.fullmatch(route.fallback):
                raise PermanentError(
                    f"{route.service}: the fallback {route.fallback!r} is no SERVICE:PORT"
                )
        self._routes = {route.service: route for route in routes}
        circuits = [_circuit(route) for route in routes]
        self.shares = all(one.shares for one in circuits)
        self.shuts = any(one.shuts for one in circuits)

    async def observe(self) -> Mapping[ServiceId, Flow]:
        cluster, view = self._join()
        points = self._points(cluster)
        try:
            async with asyncio.timeout(self._spec.timeout):
                await cluster.alive()  # watches of a server that stands still are only silent
                await view.ready(points.values())
        except TimeoutError as error:
            late = f"{cluster.name} does not answer within {self._spec.timeout:g} s"
            raise TransientError(late) from error
        self._see_to_it()
        found = {service: self._flow(view, point) for service, point in points.items()}
        return {service: flow for service, flow in found.items() if flow is not None}

    async def turn(
        self,
        service: ServiceId,
        valve: Valve,
        /,
        *,
        before: Valve,
        lease_s: float,
        epoch: Epoch,  # noqa: ARG002 - the cluster's own fence is asked before each write
    ) -> None:
        """Set the circuit first, then the pods."""
        route = self._routes.get(service)
        if route is None:
            raise PermanentError(f"no service {service} is behind this gateway")
        circuit = _circuit(route)
        what = f"{circuit.kind.name} of a kubernetes"
        refuse_parts(what, valve, before, shares=circuit.shares, shuts=circuit.shuts)
        await self._turn(service, Turn(valve, before, lease_s))

    async def examine(self) -> Sequence[Remark]:
        try:
            cluster, _ = self._join()
            await cluster.alive()
        except PrunellaError as error:
            return [Remark(str(error), fault=True)]
        return await examine(cluster, self._points(cluster))

    async def close(self) -> None:
        chores = [*self._chores.values()]
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        view, self._view = self._view, None
        if view is not None:
            view.close()
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await leave(cluster)

    # How ---------------------------------------------------------------------------------------

    def _join(self) -> tuple[SharedCluster, View]:
        if self._cluster is None or self._view is None:
            way = access(self._spec.kubeconfig, self._spec.context)
            self._cluster = cluster_at(way, self._clock)
            self._view = View(self._cluster)
            self._view.follow(self._see_to_it)
        return self._cluster, self._view

    def _points(self, cluster: SharedCluster) -> Mapping[ServiceId, Point]:
        return {
            service: Point(
                _circuit(route),
                route.spec.namespace or cluster.access.namespace,
                route.spec.http_route or route.spec.virtual_service or route.spec.service,
                service,
            )
            for service, route in self._routes.items()
        }

    def _flow(self, view: View, point: Point) -> Flow | None:
        """None: there is no such object, or what it says makes no sense; `examine` says which."""
        try:
            share = view.share(point)
        except TransientError as error:
            _log.debug("object-unreadable", object=str(point), error=str(error))
            return None
        if share is None:
            return None
        pods = view.pods(point)
        return Flow(
            Valve(share, frozenset(one.metadata.name for one in pods if is_shut(one))),
            Traffic(self._clock.now()),
            tuple(Server(one.metadata.name, one.status.address, up=is_able(one)) for one in pods),
            shares=point.circuit.shares,
        )

    async def _turn(self, service: ServiceId, to: Turn) -> None:
        cluster, view = self._join()
        point = self._points(cluster)[service]
        async with self._turning:
            await view.ready([point])
            done = await self._turn_circuit(cluster, view, point, to)
            try:
                await self._turn_pods(cluster, view, point, to)
            except PrunellaError as error:
                if done and to.before.share != to.valve.share and not to.is_end:
                    try:
                        await self._turn_circuit(cluster, view, point, to.back())
                    except PrunellaError as trouble:
                        error.add_note(f"it could not be undone either: {trouble}")
                raise

    async def _turn_circuit(
        self, cluster: SharedCluster, view: View, point: Point, to: Turn
    ) -> bool:
        """Returns: it was changed, and new requests meet what was set."""
        done = await turn(cluster, point, to)
        if done is None:
            return False
        within_s = self._spec.timeout
        await view.until_seen(point, done["metadata"]["resourceVersion"], within_s)
        if not point.circuit.shuts:
            await view.until_accepted(point, within_s)
        elif to.valve.share != to.before.share:
            await view.until_served(point, open_=to.valve.share == 0, within_s=within_s)
        return True

    async def _turn_pods(self, cluster: SharedCluster, view: View, point: Point, to: Turn) -> None:
        """Shut and open what differs, renew the rest; in trouble, what was turned is put back."""
        note = Note(point.owner, until(self._clock.wall(), to.lease_s), None)
        within_s, turned = self._spec.timeout, list[str]()
        selector = view.selector(point)
        try:
            for name in sorted(to.valve.shut | to.before.shut):
                shut = name in to.valve.shut
                differs = shut != (name in to.before.shut)
                if differs and not to.is_end:
                    turned.append(name)
                put = note if shut else None
                done = await turn_pod(cluster, point, name, selector, put, is_end=to.is_end)
                if differs and done:
                    await view.until_shut(point, name, shut=shut, within_s=within_s)
        except PrunellaError:
            for name in turned:
                back = note if name in to.before.shut else None
                with suppress(PrunellaError):
                    await turn_pod(cluster, point, name, selector, back)
            raise

    # What is due by itself ---------------------------------------------------------------------

    def _see_to_it(self) -> None:
        """Let new pods in whose gate waits for it, and close what nobody has renewed."""
        cluster, view = self._cluster, self._view
        if cluster is None or view is None:
            return
        for service, point in self._points(cluster).items():
            for name in view.waiting(point):
                self._begin((point, name), partial(admit, cluster, point.namespace, name))
            expired = view.expired(point, self._clock.wall())
            if expired != OPEN_WIDE:
                self._begin(point, partial(self._end, service, expired))

    def _begin(self, key: object, work: Callable[[], Awaitable[None]]) -> None:
        if key not in self._chores:
            task = self._chores[key] = asyncio.create_task(self._done(key, work))
            task.add_done_callback(lambda _: self._chores.pop(key, None))

    async def _done(self, key: object, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except PrunellaError as error:
            _log.warning("chore-failed", about=str(key), error=str(error))

    async def _end(self, service: ServiceId, expired: Valve) -> None:
        _log.warning("circuit-expired", service=service, share=expired.share, shut=expired.shut)
        await self._turn(service, Turn(OPEN_WIDE, expired, is_end=True))


def _circuit(route: Route) -> Circuit:
    if route.spec.http_route:
        return HttpRouteCircuit(route.fallback)
    if route.spec.virtual_service:
        return VirtualServiceCircuit(route.spec.destination)
    return ServiceCircuit()


PLUGIN = GatewayPlugin("kubernetes", KubernetesGatewaySpec, KubernetesRoute, KubernetesGateway)
