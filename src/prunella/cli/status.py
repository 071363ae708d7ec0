"""``prunella status``: how everything is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from prunella.cli import _terminal
from prunella.cli._client import connect
from prunella.cli._options import Api, Json

_COLUMNS = ("SERVICE", "STATUS", "UPTIME", "RESPONSE", "ERRORS", "RESTARTS", "CHECKED", "DETAIL")
_WORDS = ("healthy", "degraded", "failed", "recovering", "unknown")


def command(ctx: typer.Context, *, as_json: Json = False, api: Api = None) -> None:
    """Show all services and how they are."""
    health = connect(ctx, api).get("/health")
    if as_json:
        _terminal.say_json(health)
        return
    _terminal.say(_summary(health))
    if health["services"]:
        _terminal.say("")
        _terminal.say_table(_COLUMNS, map(_row, health["services"]))


def _summary(health: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{health[word]} {word}" for word in _WORDS if health[word])
    average = _terminal.milliseconds(health["averageResponseTime"])
    total = health["totalServices"]
    return (
        f"{total} service{'' if total == 1 else 's'} ({counts or 'none'}), "
        f"{health['healthPercentage']:.0f} % healthy, {health['totalRestarts']} restarts, "
        f"{health['totalHealingActions']} healing actions, average response {average}"
    )


def _row(service: Mapping[str, Any]) -> tuple[str, ...]:
    uptime = service["uptime"]
    return (
        service["id"],
        service["status"] + (" (paused)" if service["paused"] else ""),
        "-" if uptime is None else f"{uptime:.2f} %",
        _terminal.milliseconds(service["responseTime"]),
        f"{service['errorRate'] * 100:.1f} %",
        str(service["restartCount"]),
        _terminal.moment(service["lastCheck"]),
        service["detail"],
    )
