"""``prunella why``: why a service is treated as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from prunella.cli import _terminal
from prunella.cli._client import connect, service_path
from prunella.cli._options import Api, Json, Service


def command(
    ctx: typer.Context, service: Service, *, as_json: Json = False, api: Api = None
) -> None:
    """Say what was decided for a service, what was not done, and why."""
    told = connect(ctx, api).get(service_path(service, "/why"))
    if as_json:
        _terminal.say_json(told)
    else:
        _terminal.say(*_lines(told))


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    service = told["service"]
    symptom = f" ({service['symptom']})" if service.get("symptom") else ""
    detail = f": {service['detail']}" if service["detail"] else ""
    yield f"{service['id']} is {service['status']}{symptom}{detail}"
    if seen := ", ".join(_seen(service)):
        yield f"Seen: {seen}"
    yield f"Healing is {service['phase']}. {told['now']}".rstrip()
    for guard, reason in told["vetoes"].items():
        yield f"  refused by {guard}: {reason}"
    for hold in told["holds"]:
        yield f"  {hold_line(hold)}"
    for remark in told["remarks"]:
        yield f"  its configuration: {remark}"
    if told["nextLook"]:
        yield f"Next look: {_terminal.moment(told['nextLook'])}"
    if told["decisions"]:
        yield "Before:"
    for decision in told["decisions"]:
        guards = f" [{', '.join(decision['guards'])}]" if decision["guards"] else ""
        words = ": ".join(word for word in (decision["reason"], decision["detail"]) if word)
        yield f"  {_terminal.moment(decision['timestamp'])}  {words}{guards}"


def _seen(service: Mapping[str, Any]) -> Iterator[str]:
    if replicas := service.get("replicas"):
        yield f"{replicas['running']} of {replicas['desired']} replicas"
    if revision := service.get("revision"):
        yield f"version {revision}"
    if circuit := service.get("circuit"):
        if circuit["share"] < 100:
            yield f"its gateway lets through {circuit['share']} % of its requests"
        if circuit["shut"]:
            yield f"its gateway keeps requests from {', '.join(circuit['shut'])}"
    if traffic := service.get("traffic"):
        failed = _terminal.percent(traffic["errorRate"] * 100, 1)
        yield f"{traffic['requests']} requests in the last minute, {failed} of them failed"
    if last := service.get("lastCheck"):
        yield f"last check {_terminal.moment(last)}"


def hold_line(hold: Mapping[str, Any]) -> str:
    """A hold in words."""
    what = hold.get("serviceId") or "everything"
    until = f"until {_terminal.moment(hold['expires'])}" if hold.get("expires") else "until resumed"
    reason = f": {hold['reason']}" if hold["reason"] else ""
    return f"{what} is paused {until} by {hold['owner']}{reason}"
