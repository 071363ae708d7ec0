"""What we say in Envoy's own language: its bootstrap, and the files that it watches."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from prunella.core.model import ServiceId
from prunella.ports import Endpoint

NODE = "prunella"
_MANY = 2**31  # requests and connections at once: what is too much is for circuits to say
ADMIN, WORKERS = "admin.sock", "workers.sock"
_TYPE = "type.googleapis.com/envoy."
_LUA = f"{_TYPE}extensions.filters.http.lua.v3.Lua"
_HCM = f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = {
    "name": "router",
    "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"},
}
_STATS = (
    ".upstream_rq_completed",
    ".upstream_rq_5xx",
    ".upstream_rq_active",
    ".upstream_rq_time",
    ".upstream_cx_connect_fail",
    ".version_text",
)
_FILTER = """
function envoy_on_request(handle)
  local valve = valves[handle:streamInfo():routeName()]
  if valve == nil then return end
  local now = handle:timestamp()
  if now >= valve.ends or math.random() * 100 < valve.share then return end
  handle:streamInfo():dynamicMetadata():set("prunella", "away", valve.service)
  if valve.fallback then
    handle:clearRouteCache()
    return
  end
  local left = tostring(math.ceil((valve.ends - now) / 1000))
  handle:respond({[":status"] = "503", ["retry-after"] = left}, valve.body)
end
"""


class Line(NamedTuple):
    """One service as Envoy is to have it."""

    service: ServiceId
    listen: tuple[str, int]
    domains: tuple[str, ...]
    prefix: str
    timeout_s: float
    body: str
    fallback: tuple[str, int] | None
    endpoints: tuple[Endpoint, ...]


class Open(NamedTuple):
    """A circuit that is not closed, until ``ends_ms`` of the wall clock."""

    share: int
    ends_ms: int


def node(gateway: str) -> str:
    """What the Envoy of a gateway is called, so that no other takes it for its own."""
    return f"{NODE}-{gateway}"


def bootstrap(folder: Path, gateway: str) -> str:
    return json.dumps(
        {
            "node": {"id": node(gateway), "cluster": NODE},
            "admin": {"address": _pipe(folder / ADMIN)},
            "dynamic_resources": {
                "lds_config": _source(folder / "listeners.json"),
                "cds_config": _source(folder / "clusters.json"),
            },
            "stats_config": {
                "stats_matcher": {
                    "inclusion_list": {
                        "patterns": [*({"suffix": one} for one in _STATS), {"prefix": NODE}]
                    }
                }
            },
        }
    )


def listeners(folder: Path, lines: Sequence[Line], version: str) -> str:
    """One for each address, and one on which each worker says what it has taken up."""
    places = sorted({line.listen for line in lines})
    return _response(
        version,
        [
            *(_listener(folder, host, port) for host, port in places),
            {
                "@type": f"{_TYPE}config.listener.v3.Listener",
                "name": "workers",
                "stat_prefix": "workers",
                "connection_balance_config": {"exact_balance": {}},
                "address": _pipe(folder / WORKERS),
                "filter_chains": [_chain(folder, "workers", "workers.json", [_ROUTER])],
            },
        ],
    )


def routes(lines: Sequence[Line], listen: tuple[str, int], version: str) -> str:
    """Which requests on one address are whose; the longest prefix is asked first."""
    hosts: dict[str, list[Line]] = {}
    for line in lines:
        if line.listen == listen:
            for domain in line.domains:
                hosts.setdefault(domain, []).append(line)
    virtual = [
        {
            "name": domain,
            "domains": [domain],
            "routes": [
                route
                for line in sorted(behind, key=lambda one: -len(one.prefix))
                for route in _routes(line)
            ],
        }
        for domain, behind in hosts.items()
    ]
    config = {
        "@type": f"{_TYPE}config.route.v3.RouteConfiguration",
        "name": _name(listen),
        "virtual_hosts": virtual,
    }
    return _response(version, [config])


def clusters(lines: Iterable[Line], shut: Mapping[ServiceId, frozenset[str]], version: str) -> str:
    """Where servers answer, and which of them get nothing.

    One file for all: Envoy has one watcher for each file, and the kernel few watchers for each
    user. Of what it reads anew it touches only the clusters that differ.
    """
    found: list[dict[str, Any]] = []
    for line in lines:
        ends = [
            {
                "health_status": "DRAINING" if one.name in shut[line.service] else "HEALTHY",
                "endpoint": {"hostname": one.name, "address": _socket(one.address, one.port)},
            }
            for one in line.endpoints
        ]
        by_name = any(not _is_ip(one.address) for one in line.endpoints)
        found.append(_cluster(line.service, ends, by_name=by_name))
        if line.fallback is not None:
            host, port = line.fallback
            end = {"endpoint": {"address": _socket(host, port)}}
            found.append(_cluster(f"{line.service} fallback", [end], by_name=not _is_ip(host)))
    return _response(version, found)


def shut_of(text: str) -> dict[ServiceId, frozenset[str]]:
    """The servers that a file of `clusters` keeps requests from, by service."""
    return {
        ServiceId(cluster["name"]): frozenset(
            one["endpoint"]["hostname"]
            for one in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            if one.get("health_status") == "DRAINING"
        )
        for cluster in json.loads(text)["resources"]
    }


def routes_file(listen: tuple[str, int]) -> str:
    return f"routes-{listen[0].replace(':', '_')}-{listen[1]}.json"


def routes_version(listen: tuple[str, int]) -> str:
    """The statistic that shows the version of these routes."""
    return f"http.{_prefix(_name(listen))}.rds.{_name(listen)}.version_text".replace(":", "_")


def version_of(text: str) -> str:
    """Which one a text is: the first thing in it, so that a large one is not parsed for it."""
    found = re.match(r'\{"version_info": "([^"]*)"', text)
    return found[1] if found is not None else ""


def valves(opened: Mapping[ServiceId, Open], lines: Mapping[ServiceId, Line], version: str) -> str:
    """The filter that turns requests away. Its first line is what it is made from."""
    kept = json.dumps({name: list(one) for name, one in sorted(opened.items())})
    # Each script would begin the same row of chances: at few requests a share would be all or none.
    seed = int(version[:12], 16)
    source = [f"-- {kept}", f"math.randomseed({seed})", "local valves = {}"]
    for name, one in sorted(opened.items()):
        line = lines.get(name)
        fallback = "true" if line is not None and line.fallback is not None else "false"
        source.append(
            f'valves["{name}"] = {{service = "{name}", share = {one.share}, ends = {one.ends_ms}, '
            f"fallback = {fallback}, body = {_lua(line.body if line is not None else '')}}}"
        )
    code = "\n".join(source) + (_FILTER if opened else "\n")
    config = {
        "@type": f"{_TYPE}config.core.v3.TypedExtensionConfig",
        "name": "valves",
        "typed_config": {"@type": _LUA, "default_source_code": {"inline_string": code}},
    }
    return _response(version, [config])


def opened_of(text: str) -> dict[ServiceId, Open]:
    """The circuits that a file of `valves` has open."""
    code = json.loads(text)["resources"][0]["typed_config"]["default_source_code"]
    first = code["inline_string"].partition("\n")[0].removeprefix("-- ")
    return {ServiceId(name): Open(*one) for name, one in json.loads(first).items()}


def workers(nonce: str) -> str:
    """What each worker answers once it has taken up all that was written before."""
    answer = {"status": 200, "body": {"inline_string": nonce}}
    config = {
        "@type": f"{_TYPE}config.route.v3.RouteConfiguration",
        "name": "workers",
        "virtual_hosts": [
            {
                "name": "workers",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "direct_response": answer}],
            }
        ],
    }
    return _response(nonce, [config])


def _listener(folder: Path, host: str, port: int) -> dict[str, Any]:
    discovered = {
        "name": "valves",
        "config_discovery": {
            "config_source": _source(folder / "valves.json"),
            "type_urls": [_LUA],
        },
    }
    return {
        "@type": f"{_TYPE}config.listener.v3.Listener",
        "name": _name((host, port)),
        "address": _socket(host, port),
        # Else the kernel lets a second Envoy listen there too, and gives it half of the callers.
        "enable_reuse_port": False,
        "filter_chains": [
            _chain(folder, _name((host, port)), routes_file((host, port)), [discovered, _ROUTER])
        ],
    }


def _chain(folder: Path, name: str, file: str, filters: list[dict[str, Any]]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "@type": _HCM,
        "stat_prefix": _prefix(name),
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "localhost"},
        "rds": {"config_source": _source(folder / file), "route_config_name": name},
        "http_filters": filters,
    }
    if name != "workers":
        config["access_log"] = [_COUNTING]
    return {"filters": [{"name": "http", "typed_config": config}]}


_COUNTING = {
    "name": "away",
    "filter": {
        "metadata_filter": {
            "matcher": {
                "filter": NODE,
                "path": [{"key": "away"}],
                "value": {"present_match": True},
            },
            "match_if_key_not_found": False,
        }
    },
    "typed_config": {
        "@type": f"{_TYPE}extensions.access_loggers.stats.v3.Config",
        "stat_prefix": NODE,
        "counters": [
            {
                "stat": {
                    "name": "away",
                    "tags": [
                        {
                            "name": "service",
                            "value_format": f"%DYNAMIC_METADATA({NODE}:away)%",
                        }
                    ],
                },
                "value_fixed": 1,
            }
        ],
    },
}


def _routes(line: Line) -> list[dict[str, Any]]:
    timeout = f"{line.timeout_s:g}s"
    plain = {
        "name": line.service,
        "match": {"prefix": line.prefix},
        "route": {"cluster": line.service, "timeout": timeout},
    }
    if line.fallback is None:
        return [plain]
    turned_away = {
        "filter": NODE,
        "path": [{"key": "away"}],
        "value": {"string_match": {"exact": line.service}},
    }
    other = {
        "name": f"{line.service} fallback",
        "match": {"prefix": line.prefix, "dynamic_metadata": [turned_away]},
        "route": {"cluster": f"{line.service} fallback", "timeout": timeout},
    }
    return [other, plain]


def _cluster(name: str, ends: list[dict[str, Any]], *, by_name: bool) -> dict[str, Any]:
    return {
        "@type": f"{_TYPE}config.cluster.v3.Cluster",
        "name": name,
        "type": "STRICT_DNS" if by_name else "STATIC",
        "connect_timeout": "1s",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {"thresholds": [_LIMITS]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": ends}]},
    }


_LIMITS = {
    "max_connections": _MANY,
    "max_pending_requests": _MANY,
    "max_requests": _MANY,
}


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _response(version: str, resources: list[dict[str, Any]]) -> str:
    return json.dumps({"version_info": version, "resources": resources})


def _source(path: Path) -> dict[str, Any]:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def _pipe(path: Path) -> dict[str, Any]:
    return {"pipe": {"path": str(path), "mode": 0o600}}


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _name(listen: tuple[str, int]) -> str:
    return f"{listen[0]}:{listen[1]}"


def _prefix(name: str) -> str:
    return name.replace(".", "_")


def _lua(text: str) -> str:
    """A string of Lua that says exactly `text`."""
    kept = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03d}"
        for byte in text.encode()
    )
    return f'"{kept}"'
