"""Gateway ``apisix``: the plugin fault-injection on a route or service, through the Admin API.

Written from APISIX's published API description; not run against APISIX yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from pydantic import Field

from prunella.core.model import Epoch, ServiceId
from prunella.core.traffic import Flow, Traffic, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.gateways._admin import Admin, Base, refuse_parts, route_of, share_of, unknown_to
from prunella.plugins import GatewayContext, GatewayPlugin
from prunella.ports import Remark, Route
from prunella.spec import GatewaySpec, RouteSpec

_PLUGIN = "fault-injection"


class ApisixSpec(GatewaySpec):
    """An APISIX 3, whose Admin API is enabled."""

    admin: Base = Field("http://127.0.0.1:9180", description="Where its Admin API answers.")
    token_file: Path = Field(description="File with the key to send as X-API-KEY.")


class ApisixRoute(RouteSpec):
    """A service behind it."""

    on: Literal["routes", "services"] = Field(
        default="routes", description="Whether id is of a route or of a service in APISIX."
    )
    id: str = Field(pattern=r"^[\w.-]+$", description="Its id in APISIX.")


class ApisixGateway:
    """A circuit aborts requests until a moment that APISIX compares its own clock with."""

    kind: ClassVar[str] = "apisix"
    shares = True
    shuts = False

    def __init__(self, spec: ApisixSpec, context: GatewayContext) -> None:
        self._clock = context.clock
        key = {"X-API-KEY": "{token}"}
        self._admin = Admin(spec.timeout, spec.admin, key, spec.token_file)
        self._routes: Mapping[ServiceId, Route] = {}

    async def route(self, routes: Sequence[Route], /) -> None:
        for route in routes:
            if route.fallback:
                raise PermanentError("an apisix gateway cannot send requests to a fallback")
            if "$" in route.body:
                raise PermanentError("APISIX would fill variables into a body with a $ in it")
        self._routes = {route.service: route for route in routes}

    async def observe(self) -> Mapping[ServiceId, Flow]:
        found: dict[tuple[str, str], int] = {}
        try:
            for on in sorted({route.spec.on for route in self._routes.values()}):
                for one in (await self._admin.get(f"/apisix/admin/{on}"))["list"]:
                    share = self._share(one["value"])
                    if share is not None:
                        found[on, str(one["value"]["id"])] = share
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise TransientError(f"what APISIX says makes no sense: {error!r}") from error
        traffic = Traffic(self._clock.now())
        return {
            service: Flow(Valve(found[route.spec.on, route.spec.id]), traffic)
            for service, route in self._routes.items()
            if (route.spec.on, route.spec.id) in found
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
        path = f"/apisix/admin/{route.spec.on}/{route.spec.id}"
        found = await self._admin.ask("GET", path)
        if found.status == 404:
            raise PermanentError(f"APISIX has no {route.spec.id} among its {route.spec.on}")
        present = self._read(found.require().json())
        if present is None:
            raise ConflictError(f"{path} has a {_PLUGIN} of somebody else")
        share = share_of(service, Valve(present), before, valve)
        if share == present == 100:
            return
        ends_at = math.ceil(self._wall_s() + lease_s)
        plugin = None if share == 100 else _abort(share, ends_at, lease_s, route.body)
        changed = await self._admin.put("PATCH", path, {"plugins": {_PLUGIN: plugin}})
        if self._read(changed.require().json()) != share:
            raise TransientError(f"{path} was changed, and is not at {share} %")

    async def close(self) -> None:
        await self._admin.close()

    async def examine(self) -> Sequence[Remark]:
        return await unknown_to(
            self.observe,
            self._routes,
            lambda route: (
                f"APISIX has no {route.spec.id} among its {route.spec.on}, or "
                f"it has a {_PLUGIN} of somebody else"
            ),
        )

    def _wall_s(self) -> float:
        return self._clock.wall().timestamp()

    def _read(self, answer: Any) -> int | None:
        try:
            return self._share(answer["value"])
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise TransientError(f"what APISIX says makes no sense: {error!r}") from error

    def _share(self, value: Mapping[str, Any]) -> int | None:
        """Percent that are let through; None: aborted for reasons that are not ours."""
        plugins = cast("Mapping[str, Any]", value.get("plugins") or {})
        if _PLUGIN not in plugins:
            return 100
        abort = cast("Mapping[str, Any]", plugins[_PLUGIN].get("abort") or {})
        rule = cast("list[Any]", abort.get("vars") or [[[]]])[0][0]
        if rule[:2] != ["msec", "<"] or abort["http_status"] != 503:
            return None
        return 100 if self._wall_s() >= float(rule[2]) else 100 - int(abort["percentage"])


def _abort(share: int, ends_at: int, lease_s: float, body: str) -> Mapping[str, Any]:
    return {
        "abort": {
            "http_status": 503,
            "body": body,
            "headers": {"Retry-After": str(math.ceil(lease_s))},
            "percentage": 100 - share,
            "vars": [[["msec", "<", ends_at]]],  # nginx's time, in seconds
        }
    }


PLUGIN = GatewayPlugin("apisix", ApisixSpec, ApisixRoute, ApisixGateway, experimental=True)
