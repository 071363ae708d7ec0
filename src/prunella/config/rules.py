"""Rules between values, each of which is right by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from prunella.config import schema
from prunella.config.faults import Report
from prunella.config.node import Node
from prunella.config.registry import Registry
from prunella.config.template import words_of
from prunella.config.words import Path, show_duration, show_ratio, unknown
from prunella.spec import Spec


class Dependent(Protocol):
    """A checked service, as far as it concerns others."""

    @property
    def id(self) -> str: ...
    @property
    def service(self) -> schema.Service: ...


_PAIRS: tuple[tuple[Path, Path], ...] = (  # the first is never above the second
    (("thresholds", "degraded_error_rate"), ("thresholds", "failed_error_rate")),
    (("verify", "soak"), ("verify", "deadline")),
    (("guards", "backoff", "base"), ("guards", "backoff", "cap")),
    (("guards", "chain", "ineffective"), ("guards", "chain", "attempts")),
)


def check_file(root: Node, file: schema.File, registry: Registry, report: Report) -> None:
    """Rules on the top-level keys."""
    defaults = root.kid("defaults")
    if defaults is not None:
        check_healing(defaults, "'defaults'", file.defaults, file.defaults, report)
    store = root.kid("store")
    if store is not None and file.store is not None:
        scheme = file.store.partition("://")[0]
        if scheme not in registry.stores:
            report.add(store.place, unknown("kind of store", scheme, sorted(registry.stores)))


def check_healing(
    node: Node, subject: str, own: schema.Healing, healing: schema.Healing, report: Report
) -> None:
    """Rules between settings, for those that stand in `node`; inherited ones were checked.

    Args:
        node: where they are written.
        subject: whose they are, for the message.
        own: what is written in `node`.
        healing: the same with all that is inherited.
        report: takes the faults.
    """
    for low, high in _PAIRS:
        spot = node.find(*low) or node.find(*high)
        if spot is None:
            continue
        lower, upper = _value(healing, low), _value(healing, high)
        if lower > upper:
            report.add(
                spot.place,
                f"'{low[-1]}' of {subject} is {_show(low, lower)}, which is above its "
                f"'{high[-1]}' of {_show(high, upper)}, expected at most that",
            )
    _check_ladder(node, own, report)


def check_scale(
    node: Node, subject: str, service: schema.Service, platform: Spec | None, report: Report
) -> None:
    """Rules on a service's ``scale``: against itself, and against the replicas of its platform."""
    scale = service.scale
    if scale is None:
        return
    spot = node.find("scale", "min") or node.find("scale")
    assert spot is not None
    if scale.min > scale.max:
        report.add(
            spot.place,
            f"'min' of {subject} is {scale.min}, which is above its 'max' of {scale.max}, "
            "expected at most that",
        )
        return
    replicas: object = getattr(platform, "replicas", None)
    if isinstance(replicas, int) and not scale.min <= replicas <= scale.max:
        report.add(
            (node.find(service.platform, "replicas") or spot).place,
            f"'replicas' of {subject} is {replicas}, which its 'scale' does not allow, "
            f"expected from {scale.min} to {scale.max}",
        )


def check_ports(node: Node, subject: str, platform: Spec | None, report: Report) -> None:
    """No probe asks for the ports of replicas that have none: it would never measure anything."""
    probes = node.kid("probes")
    has_ports: object = getattr(platform, "has_ports", None)
    if has_ports is not False or probes is None or not isinstance(probes.kids, list):
        return
    for number, probe in enumerate(probes.kids, 1):
        for path, leaf in probe.leaves():
            if "port" in words_of(leaf):
                report.add(
                    leaf.place,
                    f"'{path[-1]}' of probe {number} of {subject} has {{port}}, but its replicas "
                    "have no port of their own, expected {port} in what starts them as well",
                )


def check_dependencies(root: Node, services: Sequence[Dependent], report: Report) -> None:
    """Every service that another one depends on is there, and none depends on itself."""
    needs = {one.id: [need.service for need in one.service.depends_on] for one in services}
    listed = root.kid("services")
    names = [] if listed is None else [name for name, _ in listed.items()]
    for service, needed in needs.items():
        node = root.find("services", service, "depends_on")
        assert node is not None or not needed, "what is needed has been written"
        for name in needed:
            assert node is not None
            if name not in names:
                report.add(node.place, unknown("service", name, names))
            elif (circle := _circle(service, name, needs)) is not None:
                report.add(
                    node.place,
                    f"service '{service}' depends on itself: {' -> '.join(circle)}, "
                    "expected services that can be healed one before the other",
                )


def _circle(start: str, via: str, needs: Mapping[str, Sequence[str]]) -> tuple[str, ...] | None:
    """A way from `start` by `via` back to `start`; None: there is none."""
    ways: list[tuple[str, ...]] = [(start, via)]
    seen = {via}
    while ways:
        way = ways.pop()
        if way[-1] == start:
            return way
        for name in needs.get(way[-1], ()):
            if name not in seen or name == start:
                seen.add(name)
                ways.append((*way, name))
    return None


def _check_ladder(node: Node, own: schema.Healing, report: Report) -> None:
    ladder = node.kid("ladder")
    if ladder is not None and "ladder" in own.model_fields_set and not own.ladder:
        report.add(ladder.place, "'ladder' is an empty mapping, expected remedies for a symptom")


def _value(healing: schema.Healing, path: Path) -> float:
    value: object = healing
    for name in path:
        value = getattr(value, str(name))
    assert isinstance(value, int | float)
    return value


def _show(path: Path, value: float) -> str:
    if path[0] == "thresholds":
        return show_ratio(value)
    return f"{value}" if "chain" in path else show_duration(value)
