"""Gateway ``traefik``: one file for each open circuit, in the folder of Traefik's file provider.

Written from Traefik's published description; not run against Traefik yet.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field

from prunella.core.model import Epoch, Instant, ServiceId
from prunella.core.traffic import Flow, Traffic, Valve
from prunella.errors import PermanentError, TransientError
from prunella.gateways._admin import Admin, Base, refuse_parts, route_of, share_of, unknown_to
from prunella.plugins import GatewayContext, GatewayPlugin
from prunella.ports import Remark, Route
from prunella.spec import Duration, GatewaySpec, RouteSpec

_LOOK_S = 0.05


class TraefikSpec(GatewaySpec):
    """A Traefik 2 or 3 on this machine, with its API and a file provider."""

    api: Base = Field("http://127.0.0.1:8080", description="Where its API answers.")
    timeout: Duration = Field(
        default=5.0,
        description="A gateway that takes longer to answer, or to do what it was told, is in "
        "trouble. Traefik gathers changes for up to 2s.",
    )
    folder: Path = Field(description="The `directory` of its file provider, which it watches.")


class TraefikRoute(RouteSpec):
    """A service behind it."""

    router: str = Field(
        pattern=r"^[^@/]+@[^@/]+$", description="The service's router, such as shop@docker."
    )


class TraefikGateway:
    """A circuit is a router of the same rule and a higher priority; Traefik's API says what is."""

    kind: ClassVar[str] = "traefik"
    shares = True
    shuts = False

    def __init__(self, spec: TraefikSpec, context: GatewayContext) -> None:
        self._spec = spec
        self._clock = context.clock
        self._admin = Admin(spec.timeout, spec.api)
        self._routes: Mapping[ServiceId, Route] = {}

    async def route(self, routes: Sequence[Route], /) -> None:
        self._routes = {route.service: route for route in routes}

    async def observe(self) -> Mapping[ServiceId, Flow]:
        data = await self._data()
        traffic = Traffic(self._clock.now())
        return {
            service: Flow(Valve(share), traffic)
            for service, route in self._routes.items()
            if (share := _share(service, route, data)) is not None
        }

    async def turn(
        self,
        service: ServiceId,
        valve: Valve,
        /,
        *,
        before: Valve,
        lease_s: float,
        epoch: Epoch,  # noqa: ARG002 - no fence
    ) -> None:
        refuse_parts(self.kind, valve, before, shares=True, shuts=False)
        route = route_of(self._routes, service)
        data = await self._data()
        present = _share(service, route, data)
        if present is None:
            raise PermanentError(f"Traefik has no router {route.spec.router}")
        share = share_of(service, Valve(present), before, valve)
        if share == present:
            return
        file = self._spec.folder / f"prunella-{service}.yml"
        router = data["routers"][route.spec.router]
        text = None if share == 100 else _document(service, route, router, share, lease_s)
        was = await asyncio.to_thread(_replace, file, text)
        try:
            await self._until(service, route, share)
        except TransientError:
            await asyncio.to_thread(_replace, file, was)
            raise

    async def close(self) -> None:
        await self._admin.close()

    async def examine(self) -> Sequence[Remark]:
        folder = self._spec.folder
        if not os.access(folder, os.W_OK | os.X_OK):
            return [Remark(f"{folder} is no folder that can be written to", fault=True)]
        return await unknown_to(
            self.observe,
            self._routes,
            lambda route: f"Traefik has no router {route.spec.router}",
        )

    async def _data(self) -> Mapping[str, Any]:
        data = await self._admin.get("/api/rawdata")
        if not isinstance(data, dict):
            raise TransientError("what Traefik says makes no sense")
        fields = cast("Mapping[str, Any]", data)
        return {kind: fields.get(kind) or {} for kind in ("routers", "services")}

    async def _until(self, service: ServiceId, route: Route, share: int) -> None:
        """Traefik takes up a file a moment later, and says nothing if it cannot."""
        try:
            async with asyncio.timeout(self._spec.timeout):
                while _share(service, route, await self._data()) != share:
                    await self._clock.sleep_until(Instant(self._clock.now() + _LOOK_S))
        except TimeoutError as error:
            msg = f"Traefik did not take up that {service} is at {share} %: is the folder watched?"
            raise TransientError(msg) from error


def _share(service: ServiceId, route: Route, data: Mapping[str, Any]) -> int | None:
    """What Traefik says of it now; None: it has no such router."""
    routers, services = data["routers"], data["services"]
    try:
        if route.spec.router not in routers:
            return None
        own = routers.get(f"prunella-{service}@file")
        if own is None or own.get("status") == "disabled":
            return 100
        parts = services.get(f"prunella-{service}-part@file")
        return 0 if parts is None else int(parts["weighted"]["services"][0]["weight"])
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise TransientError(f"what Traefik says makes no sense: {error!r}") from error


def _document(
    service: ServiceId, route: Route, router: Mapping[str, Any], share: int, lease_s: float
) -> str:
    """JSON is YAML. A load balancer without servers is Traefik's own way to answer 503."""
    own, provider = f"prunella-{service}", route.spec.router.partition("@")[2]
    away, part = route.fallback or f"{own}-away", f"{own}-part"
    services: dict[str, Any] = {}
    if not route.fallback:
        services[away] = {"loadBalancer": {"servers": [], "passHostHeader": True}}
    given = cast("Sequence[str]", router.get("middlewares") or [])
    middlewares = [_whole(name, provider) for name in given]
    http: dict[str, Any] = {"services": services}
    if share > 0:
        real = _whole(str(router["service"]), provider)
        weights = {real: share, away: 100 - share}
        listed = [{"name": name, "weight": weight} for name, weight in weights.items()]
        services[part] = {"weighted": {"services": listed}}
    elif not route.fallback:
        after = {"Retry-After": str(math.ceil(lease_s))}
        http["middlewares"] = {own: {"headers": {"customResponseHeaders": after}}}
        middlewares.append(own)
    rule = str(router["rule"])
    written = {
        "rule": rule,
        "entryPoints": router.get("entryPoints") or [],
        "priority": max(int(router.get("priority") or 0), len(rule)) + 1,
        "service": part if share > 0 else away,
        "middlewares": middlewares,
    }
    if "tls" in router:
        written["tls"] = router["tls"]
    http["routers"] = {own: {key: value for key, value in written.items() if value != []}}
    return json.dumps({"http": http}, indent=1)


def _whole(name: str, provider: str) -> str:
    """A name as another provider has to call it."""
    return name if "@" in name else f"{name}@{provider}"


def _replace(file: Path, text: str | None) -> str | None:
    """Put a whole file there, or take it away (None); what was there before."""
    beside = file.with_name(f".{file.name}.new")
    try:
        was = file.read_text("utf-8") if file.exists() else None
        if text is None:
            file.unlink(missing_ok=True)
        else:
            with beside.open("w", encoding="utf-8") as written:
                written.write(text)
                written.flush()
                os.fsync(written.fileno())
            beside.replace(file)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise PermanentError(f"{file} cannot be written: {error.strerror}") from error
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise TransientError(f"{file} cannot be written: {error.strerror}") from error
    return was


PLUGIN = GatewayPlugin("traefik", TraefikSpec, TraefikRoute, TraefikGateway, experimental=True)
