"""Caddy's configuration as far as circuits are concerned: where a service is, and what is set.

A circuit is a handler before the service's ``reverse_proxy``, in the same list, with an ``@id`` of
ours. It answers a request if an expression says so that ends by Caddy's own clock. Servers that
are shut are not among the proxy's upstreams; the circuit's second route keeps them, and is never
taken. Everything that is set is in the configuration, and nothing in Prunella.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

_KEPT = "prunella_shut"
_ENDS = "int({{time.now.unix_ms}}) < {}"
_PART = '{{http.request.uuid}} >= "{:04x}"'
_SET = re.compile(
    r'int\(\{time\.now\.unix_ms\}\) < (\d+)(?: && \{http\.request\.uuid\} >= "([0-9a-f]{4})")?'
)
_WHOLE = 0x10000

Handles = Sequence[Mapping[str, Any]]


class Place(NamedTuple):
    """Where a service is.

    Attributes:
        path: of the list that its handler is in.
        counted: the Caddy server that has no other proxy, so that what it counts is of this one;
            empty: there are others, or it lies deeper than Caddy counts.
        metrics: whether that one counts at all.
    """

    path: str
    handles: Handles
    counted: str
    metrics: bool


class Circuit(NamedTuple):
    """What is set for a service.

    Attributes:
        share: percent of the requests that are let through until `ends_ms`.
        ends_ms: by the wall clock, since 1970.
        upstreams: of the proxy, as Caddy writes them.
        kept: those that are shut.
    """

    share: int
    ends_ms: int
    upstreams: Handles
    kept: Handles

    def share_at(self, wall_ms: float) -> int:
        return self.share if wall_ms < self.ends_ms else 100


def places(servers: Mapping[str, Any]) -> Mapping[str, Place]:
    """All proxies that have an ``@id``."""
    found: dict[str, Place] = {}
    for name, server in servers.items():
        top = f"/config/apps/http/servers/{name}/routes"
        proxies = [*_proxies(server.get("routes"), top)]
        for path, handles, proxy in proxies:
            if "@id" in proxy:
                direct = re.fullmatch(r"/\d+/handle", path.removeprefix(top))
                counted = name if len(proxies) == 1 and direct else ""
                found[str(proxy["@id"])] = Place(path, handles, counted, "metrics" in server)
    return found


def _proxies(node: Any, path: str) -> Iterator[tuple[str, Handles, Mapping[str, Any]]]:
    if isinstance(node, list):
        listed = cast("Sequence[Any]", node)
        for index, one in enumerate(listed):
            yield from _proxies(one, f"{path}/{index}")
    if not isinstance(node, dict):
        return
    fields = cast("dict[str, Any]", node)
    if str(fields.get("@id", "")).startswith("prunella-"):
        return
    handles = fields.get("handle")
    if isinstance(handles, list):
        for one in cast("Handles", handles):
            if one.get("handler") == "reverse_proxy":
                yield f"{path}/handle", cast("Handles", handles), one
    for key, one in fields.items():
        yield from _proxies(one, f"{path}/{key}")


def proxy_of(id_: str, handles: Handles) -> Mapping[str, Any] | None:
    return next((one for one in handles if one.get("@id") == id_), None)


def read(id_: str, handles: Handles) -> Circuit | None:
    """What is set; None: not what Prunella writes."""
    proxy, circuit = proxy_of(id_, handles), proxy_of(f"prunella-{id_}", handles)
    if proxy is None:
        return None
    upstreams = _upstreams(proxy)
    share, ends_ms = 100, 0
    kept: Handles = []
    for route in (circuit or {}).get("routes", ()):
        handler, expression = route["handle"][0], route["match"][0]["expression"]
        if handler["handler"] == "vars":
            kept = handler[_KEPT]
        elif said := _SET.fullmatch(expression):
            share = round(int(said[2] or "0", 16) * 100 / _WHOLE)
            ends_ms = int(said[1])
        else:
            return None
    there = {one.get("dial") for one in upstreams}
    return Circuit(share, ends_ms, upstreams, [one for one in kept if one["dial"] not in there])


def _upstreams(proxy: Mapping[str, Any]) -> Handles:
    return cast("Handles", proxy.get("upstreams") or [])


def write(
    id_: str, handles: Handles, circuit: Circuit, *, lease_s: float, body: str, fallback: str
) -> Handles:
    """The list with another circuit in it; the rest is as it was."""
    routes: list[Any] = []
    if circuit.share < 100:
        says = _ENDS.format(circuit.ends_ms)
        if circuit.share > 0:
            # A random UUID is at least this one in all but `share` percent of the requests.
            says += " && " + _PART.format(round(circuit.share * _WHOLE / 100))
        answer: dict[str, Any] = {
            "handler": "static_response",
            "status_code": 503,
            "headers": {"Retry-After": [str(math.ceil(lease_s))]},
            "body": _literal(body),
        }
        if fallback:
            answer = {"handler": "reverse_proxy", "upstreams": [{"dial": fallback}]}
        routes.append({"match": [{"expression": says}], "handle": [answer]})
    if circuit.kept:
        keeps = {"handler": "vars", _KEPT: [*circuit.kept]}
        routes.append({"match": [{"expression": "false"}], "handle": [keeps]})
    own = f"prunella-{id_}"
    written: list[Mapping[str, Any]] = []
    for one in handles:
        if one.get("@id") == id_:
            if routes:
                written.append({"@id": own, "handler": "subroute", "routes": routes})
            changed = [*_upstreams(one)] != [*circuit.upstreams]
            written.append({**one, "upstreams": [*circuit.upstreams]} if changed else one)
        elif one.get("@id") != own:
            written.append(one)
    return written


def _literal(text: str) -> str:
    """So that Caddy fills nothing into it."""
    return text.replace("{", "\\{")
