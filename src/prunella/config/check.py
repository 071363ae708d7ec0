"""The whole tree against the file's schema and the plugins' specs.

Goes on after a fault, so that one run names all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prunella.config import schema
from prunella.config.choice import choose
from prunella.config.faults import Places, Report
from prunella.config.gateways import CheckedGateway, check_gateways, check_route
from prunella.config.node import Node
from prunella.config.registry import Registry
from prunella.config.rules import (
    check_dependencies,
    check_file,
    check_healing,
    check_ports,
    check_scale,
)
from prunella.config.spec import check
from prunella.config.template import is_template, sampled
from prunella.config.words import schema_of, shortened
from prunella.plugins import PlatformPlugin, ProbePlugin, ReleasePlugin
from prunella.spec import ProbeSpec, ReleaseSpec, RouteSpec, Spec

_ELSEWHERE = schema.Defaults.model_fields.keys() - schema.Healing.model_fields.keys()


@dataclass(frozen=True, slots=True)
class CheckedProbe:
    """A valid probe; ``template`` is how it was written, if it is for every instance."""

    kind: str
    spec: ProbeSpec
    template: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CheckedService:
    """A service whose every piece is valid; ``healing`` has the file's defaults in it."""

    id: str
    service: schema.Service
    healing: schema.Healing
    platform: Spec
    probes: tuple[CheckedProbe, ...]
    release: tuple[str | None, ReleaseSpec]
    route: RouteSpec | None
    places: Places


@dataclass(frozen=True, slots=True)
class Checked:
    """A file whose every piece is valid."""

    file: schema.File
    services: tuple[CheckedService, ...]
    gateways: tuple[CheckedGateway, ...]


def check_tree(root: Node, registry: Registry, report: Report) -> Checked | None:
    """All of the file, or None after its faults went to `report`."""
    if not isinstance(root.kids, dict):
        report.add(root.place, "the file is not a mapping, expected keys such as 'services:'")
        return None
    file = check(schema.File, _known(root), "the file", report)
    defaults = schema.Defaults() if file is None else file.defaults
    if file is not None:
        check_file(root, file, registry, report)
    gateways = check_gateways(root, registry.gateways, report)
    needed = root.kid("operator") is None
    checked = [*_services(root, defaults, gateways, registry, report, needed=needed)]
    check_dependencies(root, [one for one in checked if one is not None], report)
    if file is None or len(report):
        return None
    return Checked(
        file,
        tuple(service for service in checked if service is not None),
        tuple(gateway for gateway in gateways.values() if gateway is not None),
    )


def _known(root: Node) -> Node:
    """The file without its services: `_services` has words of its own for them."""
    return _replaced(root, "services", Node({}, root.place, kids={}))


def _replaced(node: Node, key: str, kid: Node) -> Node:
    assert isinstance(node.kids, dict)
    return Node(
        {**node.value, key: kid.value}, node.place, kids={**node.kids, key: kid}, keys=node.keys
    )


def _services(
    root: Node,
    defaults: schema.Defaults,
    gateways: Mapping[str, CheckedGateway | None],
    registry: Registry,
    report: Report,
    *,
    needed: bool,
) -> Iterator[CheckedService | None]:
    services = root.kid("services")
    if services is None:
        if needed:
            report.add(root.place, "the file has no 'services', expected at least one service")
        return
    if services.value is None or services.value in ({}, []):
        if needed:
            report.add(services.place, "'services' is empty, expected at least one service")
    elif not isinstance(services.kids, dict):
        report.add(services.place, "'services' is not a mapping, expected services by their id")
    for name, node in services.items():
        if not re.fullmatch(schema.SERVICE_ID, name):
            report.add(
                services.key_place(name),
                f"the service id {shortened(name)!r} is not allowed, expected at most 63 of "
                "a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit",
            )
        yield _service(name, node, defaults, gateways, registry, report)


def _service(
    name: str,
    node: Node,
    defaults: schema.Defaults,
    gateways: Mapping[str, CheckedGateway | None],
    registry: Registry,
    report: Report,
) -> CheckedService | None:
    subject = f"service '{shortened(name)}'"
    if not isinstance(node.kids, dict):
        check(schema.Service, node, subject, report)
        return None
    plugin = _platform(node, subject, registry.platforms, report)
    sections = [key for key, _ in node.items() if key in registry.platforms]
    service = _own_keys(node, subject, sections, report)
    spec = None if plugin is None else _section(node, subject, plugin, report)
    probes = _probes(node, subject, registry.probes, report)
    release = _release(node, subject, registry.releases, report)
    route = check_route(node, subject, gateways, report)
    if service is None:
        return None
    healing = defaults.under(service)
    check_healing(node, subject, service, healing, report)
    check_scale(node, subject, service, spec, report)
    check_ports(node, subject, spec, report)
    if spec is None or probes is None or release is None:
        return None
    places = _places(node, service)
    return CheckedService(name, service, healing, spec, probes, release, route, places)


def _places(node: Node, service: schema.Service) -> Places:
    named = node.kid("platform")
    assert named is not None, "a service without a platform is a fault"
    platform = node.keys.get(service.platform, named.place)
    return Places(platform, node.keys.get("release", platform), node.keys.get("gateway", platform))


def _own_keys(
    node: Node, subject: str, sections: list[str], report: Report
) -> schema.Service | None:
    """The keys that every service has, whatever runs it."""
    platform = node.kid("platform")
    aside = {*sections, *_ELSEWHERE, "" if platform is None else platform.text}
    own = node.without(aside - set(schema.Service.model_fields))
    for key in _ELSEWHERE & node.keys.keys():
        report.add(
            node.key_place(key),
            f"'{key}' is set for all checks of {subject}, expected it in a probe or in 'defaults'",
        )
    if platform is None or not isinstance(platform.value, str):
        # `_platform` has said it, with the kinds that there are.
        own = _replaced(own, "platform", Node("", node.place))
    return check(schema.Service, own, subject, report)


def _platform(
    node: Node, subject: str, platforms: Mapping[str, PlatformPlugin], report: Report
) -> PlatformPlugin | None:
    """The plugin that a service names; faults also for sections of other platforms."""
    plugin = choose(node, subject, platforms, report, noun="platform", key="platform")
    if plugin is None:
        return None
    for key in sorted(platforms.keys() - {plugin.kind}):
        if node.kid(key) is not None:
            report.add(
                node.key_place(key),
                f"the section '{key}' belongs to another platform than the service's, "
                f"expected only '{plugin.kind}'",
            )
    return plugin


def _section(node: Node, subject: str, plugin: PlatformPlugin, report: Report) -> Spec | None:
    section = node.kid(plugin.kind)
    if section is not None:
        return check(plugin.spec, section, f"'{plugin.kind}'", report)
    aside = Report("")
    spec = check(plugin.spec, Node({}, node.place, kids={}), plugin.kind, aside)
    if spec is None:
        keys = ", ".join(f"'{key}'" for key in schema_of(plugin.spec).get("required", ()))
        report.add(
            node.place,
            f"{subject} has no section '{plugin.kind}', expected a mapping with {keys or 'keys'}",
        )
    return spec


def _probes(
    node: Node, subject: str, plugins: Mapping[str, ProbePlugin], report: Report
) -> tuple[CheckedProbe, ...] | None:
    """The probes in order; None after faults."""
    listed = node.kid("probes")
    if listed is None or not isinstance(listed.kids, list):
        return ()
    found: list[CheckedProbe] = []
    first: dict[str, int] = {}
    for number, item in enumerate(listed.kids, 1):
        probe = _probe(item, f"probe {number} of {subject}", plugins, report)
        if probe is None:
            continue
        found.append(probe)
        same = first.setdefault(repr(probe), number)
        if same != number:
            report.add(
                item.place,
                f"probe {number} of {subject} is the same as probe {same}, expected each once",
            )
    return tuple(found) if len(found) == len(listed.kids) else None


def _probe(
    node: Node, subject: str, plugins: Mapping[str, ProbePlugin], report: Report
) -> CheckedProbe | None:
    plugin = choose(node, subject, plugins, report, noun="kind of probe")
    if plugin is None:
        return None
    own = node if "kind" in plugin.spec.model_fields else node.without(["kind"])
    for_each = is_template(own)
    spec = check(
        plugin.spec, sampled(own) if for_each else own, f"{subject} ({plugin.kind})", report
    )
    if spec is None:
        return None
    return CheckedProbe(plugin.kind, spec, own.value if for_each else None)


def _release(
    node: Node, subject: str, plugins: Mapping[str, ReleasePlugin], report: Report
) -> tuple[str | None, ReleaseSpec] | None:
    """Where its releases come from; None after faults."""
    section = node.kid("release")
    if section is None:
        return None, ReleaseSpec()
    if not isinstance(section.kids, dict):
        return None  # `_own_keys` has said it
    if section.kid("kind") is None:
        special = {key for plugin in plugins.values() for key in plugin.spec.model_fields}
        if not section.kids.keys() & (special - ReleaseSpec.model_fields.keys()):
            general = check(ReleaseSpec, section, "'release'", report)
            return None if general is None else (None, general)
    chosen = choose(section, f"'release' of {subject}", plugins, report, noun="kind of release")
    if chosen is None:
        return None
    spec = check(chosen.spec, section.without(["kind"]), f"'release' ({chosen.kind})", report)
    return None if spec is None else (chosen.kind, spec)
