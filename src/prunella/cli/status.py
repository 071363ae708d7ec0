"""``prunella status``: how everything is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

from prunella.cli import _terminal
from prunella.cli._client import connect
from prunella.cli._options import Api, Json

_WORDS = ("healthy", "degraded", "failed", "recovering", "unknown")

Service = Mapping[str, Any]


def command(ctx: typer.Context, *, as_json: Json = False, api: Api = None) -> None:
    """Show all services and how they are."""
    health = connect(ctx, api).get("/health")
    if as_json:
        _terminal.say_json(health)
        return
    _terminal.say(_summary(health))
    services: Sequence[Service] = health["services"]
    if services:
        columns = _columns(services)
        rows = ([show(service) for show in columns.values()] for service in services)
        _terminal.say("")
        _terminal.say_table(tuple(columns), rows)
    details = [f"{service['id']}: {service['detail']}" for service in services if service["detail"]]
    if details:
        _terminal.say("", *details)


def _summary(health: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{health[word]} {word}" for word in _WORDS if health[word])
    average = _terminal.milliseconds(health["averageResponseTime"])
    return (
        f"{_count(health['totalServices'], 'service')} ({counts or 'none'}), "
        f"{health['healthPercentage']:.0f} % healthy, "
        f"{_count(health['totalRestarts'], 'restart')}, "
        f"{_count(health['totalHealingActions'], 'healing action')}, average response {average}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _columns(services: Sequence[Service]) -> dict[str, Callable[[Service], str]]:
    """Columns with how each shows a service; those that nothing is known for are left out."""
    known = {key for service in services for key in ("replicas", "revision") if service.get(key)}
    columns: dict[str, Callable[[Service], str]] = {
        "SERVICE": lambda service: service["id"],
        "STATUS": lambda service: service["status"] + (" (paused)" if service["paused"] else ""),
    }
    if "replicas" in known:
        columns["REPLICAS"] = _replicas
    columns |= {
        "UPTIME": _uptime,
        "RESPONSE": lambda service: _terminal.milliseconds(service["responseTime"]),
        "ERRORS": lambda service: _terminal.percent(service["errorRate"] * 100, 1),
        "RESTARTS": lambda service: str(service["restartCount"]),
    }
    if "revision" in known:
        columns["VERSION"] = lambda service: _terminal.version(service.get("revision") or "-")
    return columns


def _replicas(service: Service) -> str:
    found = service.get("replicas")
    return f"{found['running']}/{found['desired']}" if found else "-"


def _uptime(service: Service) -> str:
    uptime = service["uptime"]
    return "-" if uptime is None else _terminal.percent(uptime, 2)
