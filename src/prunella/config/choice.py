"""Which plugin a piece of the file asks for by its ``kind``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from prunella.config.faults import Report
from prunella.config.node import Node
from prunella.config.words import one_of, unknown

P = TypeVar("P")


def choose(
    node: Node,
    subject: str,
    plugins: Mapping[str, P],
    report: Report,
    *,
    noun: str,
    key: str = "kind",
) -> P | None:
    """The plugin that `node` names, or None after the fault went to `report`.

    Args:
        node: where the choice is written.
        subject: how faults call it, such as ``gateway 'edge'``.
        plugins: those to choose from, by kind.
        report: takes the fault.
        noun: what is chosen, such as ``kind of gateway``.
        key: where in `node` the kind is written.
    """
    kinds = f"expected {one_of(sorted(plugins))}"
    if not isinstance(node.kids, dict):
        report.add(node.place, f"{subject} is not a mapping, expected one with a '{key}'")
        return None
    named = node.kid(key)
    if named is None:
        report.add(node.place, f"{subject} has no '{key}', {kinds}")
        return None
    kind: Any = named.value
    if not isinstance(kind, str):
        report.add(named.place, f"'{key}' is not the name of a {noun}, {kinds}")
        return None
    if kind not in plugins:
        report.add(named.place, unknown(noun, kind, sorted(plugins)))
        return None
    return plugins[kind]
