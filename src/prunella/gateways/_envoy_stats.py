"""What Envoy counts: of services and of their servers, in two questions for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Any, NamedTuple

from prunella.core.model import Instant, ServiceId
from prunella.core.traffic import Traffic
from prunella.errors import TransientError
from prunella.gateways._envoy_program import Program
from prunella.gateways._envoy_resources import NODE
from prunella.ports import Clock

_FILTER = (
    r"^(cluster\..*\.(upstream_rq_completed|upstream_rq_5xx|upstream_rq_active|"
    rf"upstream_cx_connect_fail|upstream_rq_time)|{NODE}\..*)$"
)
_FIELDS = {
    "upstream_rq_completed": "requests",
    "upstream_rq_5xx": "failed",
    "upstream_rq_active": "in_flight",
    "upstream_cx_connect_fail": "unconnected",
}
_OF_SERVER = {
    "rq_success": "requests",
    "rq_error": "failed",
    "rq_active": "in_flight",
    "cx_connect_fail": "unconnected",
}
_LINE = re.compile(
    rf"^([^:\n]+)::([^:\n]+:\d+|\[[^]\n]+\]:\d+)::({'|'.join(_OF_SERVER)})::(\d+)$", re.MULTILINE
)
_QUANTILES = {50: "p50_s", 95: "p95_s", 99: "p99_s"}


class Stats(NamedTuple):
    """Totals, by service, and by service and place of a server."""

    services: Mapping[ServiceId, Traffic]
    servers: Mapping[tuple[ServiceId, str, int], Traffic]


async def read(program: Program, services: Iterable[ServiceId], clock: Clock) -> Stats:
    """Raises: TransientError, ConnectionError: as ``Program.get``."""
    stats = await program.json(f"/stats?format=json&filter={_FILTER}")
    hosts = (await program.get("/clusters")).decode()
    try:
        now = clock.now()
        return Stats(_services(stats, services, now), dict(_servers(hosts, now)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TransientError(f"what Envoy counts makes no sense: {error!r}") from error


def _services(stats: Any, services: Iterable[ServiceId], now: Instant) -> dict[ServiceId, Traffic]:
    found: dict[str, dict[str, Any]] = {service: {} for service in services}
    for one in stats["stats"]:
        if "histograms" in one:
            for name, times in _times(one["histograms"]):
                found.get(name, {}).update(times)
            continue
        name, value = str(one["name"]), int(one["value"])
        if name.startswith(f"{NODE}."):
            service = name.removeprefix(f"{NODE}.away.service.")
            found.get(service, {})["turned_away"] = value
            continue
        service, _, what = name.removeprefix("cluster.").rpartition(".")
        if service in found:
            found[service][_FIELDS[what]] = value
    return {ServiceId(name): Traffic(now, **fields) for name, fields in found.items()}


def _times(histograms: Any) -> Iterable[tuple[str, dict[str, float]]]:
    quantiles = [float(one) for one in histograms["supported_quantiles"]]
    for one in histograms["computed_quantiles"]:
        name = str(one["name"]).removeprefix("cluster.").removesuffix(".upstream_rq_time")
        times: dict[str, float] = {}
        for quantile, value in zip(quantiles, one["values"], strict=True):
            recent = value["interval"]
            field = _QUANTILES.get(round(quantile, 3))  # type: ignore[call-overload]
            if field is not None and recent is not None and isfinite(recent):
                times[field] = recent / 1000
        yield name, times


def _servers(hosts: str, now: Instant) -> Iterator[tuple[tuple[ServiceId, str, int], Traffic]]:
    """From lines such as ``shop::127.0.0.1:8001::rq_total::5``; the other format is ten times as
    slow to write and to read.
    """
    fields: dict[tuple[str, str], dict[str, int]] = {}
    for cluster, place, what, count in _LINE.findall(hosts):
        fields.setdefault((cluster, place), {})[_OF_SERVER[what]] = int(count)
    for (cluster, place), found in fields.items():
        found["requests"] = found.get("requests", 0) + found.get("failed", 0)
        host, _, port = place.rpartition(":")
        yield (ServiceId(cluster), host.strip("[]"), int(port)), Traffic(now, **found)
