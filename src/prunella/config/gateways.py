"""The gateways of a file, and which services stand behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunella.config.choice import choose
from prunella.config.faults import Place, Report
from prunella.config.node import Node
from prunella.config.spec import check
from prunella.config.words import one_of, unknown
from prunella.plugins import GatewayPlugin
from prunella.spec import GatewaySpec, RouteSpec


@dataclass(frozen=True, slots=True)
class CheckedGateway:
    """A valid gateway."""

    name: str
    plugin: GatewayPlugin
    spec: GatewaySpec
    place: Place


def check_gateways(
    root: Node, plugins: Mapping[str, GatewayPlugin], report: Report
) -> dict[str, CheckedGateway | None]:
    """All gateways by name; None for one that is not valid."""
    listed = root.kid("gateways")
    if listed is None or not isinstance(listed.kids, dict):
        return {}
    return {name: _gateway(name, node, plugins, report) for name, node in listed.items()}


def _gateway(
    name: str, node: Node, plugins: Mapping[str, GatewayPlugin], report: Report
) -> CheckedGateway | None:
    subject = f"gateway '{name}'"
    plugin = choose(node, subject, plugins, report, noun="kind of gateway")
    if plugin is None:
        return None
    spec = check(plugin.spec, node.without(["kind"]), f"{subject} ({plugin.kind})", report)
    return None if spec is None else CheckedGateway(name, plugin, spec, node.place)


def check_route(
    node: Node, subject: str, gateways: Mapping[str, CheckedGateway | None], report: Report
) -> RouteSpec | None:
    """The section ``gateway`` of a service; None: there is none, or it has faults."""
    section = node.kid("gateway")
    if section is None:
        for key in ("circuit",):
            if node.kid(key) is not None:
                report.add(
                    node.key_place(key),
                    f"{subject} has a '{key}' and no gateway to break it at, expected 'gateway'",
                )
        return None
    if not isinstance(section.kids, dict):
        return None  # the schema has said it
    named = section.kid("name")
    known = f"expected {one_of(sorted(gateways))}" if gateways else "expected it in 'gateways'"
    if named is None:
        report.add(section.place, f"'gateway' of {subject} has no 'name', {known}")
        return None
    name: Any = named.value
    if not isinstance(name, str) or name not in gateways:
        said = unknown("gateway", str(name), sorted(gateways)) if gateways else ""
        report.add(named.place, said or f"there is no gateway {str(name)!r}, {known}")
        return None
    gateway = gateways[name]
    if gateway is None:
        return None  # its own faults come first
    return check(gateway.plugin.route, section, f"'gateway' of {subject}", report)
