"""Gateway ``kong``: the plugin request-termination on a Kong service, through the Admin API.

Written from Kong's published API description; not run against Kong yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from pydantic import Field

from prunella.core.model import Epoch, ServiceId
from prunella.core.traffic import Flow, Traffic, Valve
from prunella.errors import PermanentError, TransientError
from prunella.gateways._admin import Admin, Base, refuse_parts, share_of, unknown_to
from prunella.plugins import GatewayContext, GatewayPlugin
from prunella.ports import Remark, Route
from prunella.spec import GatewaySpec, RouteSpec

_PAGES = 100
_TAG = "prunella"


class KongSpec(GatewaySpec):
    """A Kong with a database: without one its Admin API takes no single changes."""

    admin: Base = Field("http://127.0.0.1:8001", description="Where its Admin API answers.")
    token_file: Path | None = Field(
        default=None,
        description="File with the token to send as Kong-Admin-Token, if it wants one.",
    )


class KongRoute(RouteSpec):
    """A service behind it."""

    service: str = Field(min_length=1, description="Name or id of the service in Kong.")


class KongGateway:
    """A circuit is a plugin of a fixed id on the service, with the tag ``prunella``."""

    kind: ClassVar[str] = "kong"
    shares = False
    shuts = False

    def __init__(self, spec: KongSpec, context: GatewayContext) -> None:
        self._clock = context.clock
        headers = {} if spec.token_file is None else {"Kong-Admin-Token": "{token}"}
        self._admin = Admin(spec.timeout, spec.admin, headers, spec.token_file)
        self._routes: Mapping[ServiceId, Route] = {}

    async def route(self, routes: Sequence[Route], /) -> None:
        if any(route.fallback for route in routes):
            raise PermanentError("a kong gateway cannot send requests to a fallback")
        self._routes = {route.service: route for route in routes}

    async def observe(self) -> Mapping[ServiceId, Flow]:
        try:
            ids = {name: one["id"] for one in await self._all("/services") for name in _names(one)}
            plugins = await self._all(f"/plugins?tags={_TAG}")
            closed = {one["service"]["id"] for one in plugins if _is_circuit(one)}
        except (KeyError, TypeError) as error:
            raise TransientError(f"what Kong says makes no sense: {error!r}") from error
        traffic = Traffic(self._clock.now())
        return {
            service: Flow(Valve(0 if ids[route.spec.service] in closed else 100), traffic)
            for service, route in self._routes.items()
            if route.spec.service in ids
        }

    async def turn(
        self,
        service: ServiceId,
        valve: Valve,
        /,
        *,
        before: Valve,
        lease_s: float,  # noqa: ARG002 - Kong has no such thing
        epoch: Epoch,  # noqa: ARG002 - nor a fence
    ) -> None:
        refuse_parts(self.kind, valve, before, shares=False, shuts=False)
        flow = (await self.observe()).get(service)
        if flow is None:
            raise PermanentError(f"{service} is not behind this gateway, or Kong does not know it")
        share = share_of(service, flow.valve, before, valve)
        if share == flow.valve.share:
            return
        route = self._routes[service]
        found = await self._admin.get(f"/services/{quote(route.spec.service, safe='')}")
        path = f"/plugins/{uuid5(NAMESPACE_URL, 'prunella:' + found['id'])}"
        if share == 100:
            (await self._admin.ask("DELETE", path)).require(frozenset({204, 404}))
        else:
            (await self._admin.put("PUT", path, _plugin(found["id"], route.body))).require()
        if (await self.observe())[service].valve.share != share:
            raise TransientError(
                f"Kong accepted that {service} is at {share} %, and does not say so"
            )

    async def close(self) -> None:
        await self._admin.close()

    async def examine(self) -> Sequence[Remark]:
        return await unknown_to(
            self.observe,
            self._routes,
            lambda route: f"Kong has no service {route.spec.service}",
        )

    async def _all(self, path: str) -> Sequence[Mapping[str, Any]]:
        """All pages of a list."""
        found: list[Mapping[str, Any]] = []
        following = f"{path}{'&' if '?' in path else '?'}size=1000"
        for _ in range(_PAGES):
            page = await self._admin.get(following)
            found += page["data"]
            if not page.get("next"):
                return found
            following = str(page["next"])
        raise TransientError("Kong's list has no end")


def _names(service: Mapping[str, Any]) -> Iterator[str]:
    yield service["id"]
    if service.get("name"):
        yield service["name"]


def _is_circuit(plugin: Mapping[str, Any]) -> bool:
    """A person may have disabled ours, or put our tag on another plugin."""
    ours = plugin["name"] == "request-termination" and plugin.get("service") is not None
    return ours and plugin.get("enabled", True)


def _plugin(service: str, body: str) -> Mapping[str, Any]:
    config: dict[str, Any] = {"status_code": 503}
    if body:  # Kong refuses an empty one, and has words of its own
        config |= {"content_type": "text/plain; charset=utf-8", "body": body}
    return {
        "name": "request-termination",
        "service": {"id": service},
        "config": config,
        "tags": [_TAG],
        "enabled": True,
    }


PLUGIN = GatewayPlugin("kong", KongSpec, KongRoute, KongGateway, experimental=True)
