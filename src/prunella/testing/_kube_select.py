"""Which objects are meant: the selectors of lists and watches, and those inside of objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from prunella.kube.kinds import Json
from prunella.testing._kube_refusals import bad

Test = Callable[[Json], bool]

_BY_SET = re.compile(r"^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")
_BETWEEN = re.compile(r",(?![^(]*\))")
_FIELDS = {"metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"}


def selection(labels: str, fields: str) -> Test:
    """Whether an object is meant.

    Raises:
        Refused: one of them is no selector, or the field is none to select by.
    """
    tests = [_label_test(one.strip()) for one in _BETWEEN.split(labels) if one.strip()]
    tests += [_field_test(one) for one in fields.split(",") if one]
    return lambda item: all(test(item) for test in tests)


def selected(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether the ``matchLabels`` and ``matchExpressions`` in an object mean what has `labels`."""
    if selector is None:
        return False
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    return all(_holds(one, labels) for one in selector.get("matchExpressions") or ())


def labels_of(item: Json) -> Mapping[str, str]:
    return item["metadata"].get("labels") or {}


def at(item: Json, path: str) -> Any:
    """What is at ``a.b.c``; None where there is nothing."""
    value: Json | None = item
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def part(item: Json, path: str) -> Json:
    """The object at ``a.b.c``; empty where there is none."""
    return cast("Json", at(item, path) or {})


def parts(item: Json, path: str) -> list[Json]:
    """The list of objects at ``a.b.c``; empty where there is none."""
    return cast("list[Json]", at(item, path) or [])


def _holds(one: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    found, values = labels.get(one["key"]), one.get("values") or ()
    return {
        "In": found in values,
        "NotIn": found not in values,
        "Exists": found is not None,
        "DoesNotExist": found is None,
    }[one["operator"]]


def _label_test(one: str) -> Test:
    if by_set := _BY_SET.match(one):
        name, way, listed = by_set.groups()
        values = {value.strip() for value in listed.split(",")}
        return lambda item: (labels_of(item).get(name) in values) == (way == "in")
    if "!=" in one:
        name, _, value = one.partition("!=")
        return lambda item: labels_of(item).get(name.strip()) != value.strip()
    if "=" in one:
        name, _, value = one.replace("==", "=").partition("=")
        return lambda item: labels_of(item).get(name.strip()) == value.strip()
    if one.startswith("!"):
        return lambda item: one[1:].strip() not in labels_of(item)
    if " " in one:
        raise bad(f"unable to parse requirement: {one!r}")
    return lambda item: one in labels_of(item)


def _field_test(one: str) -> Test:
    name, sign, value = one.replace("==", "=").partition("=")
    differs = name.endswith("!")
    name = name.removesuffix("!")
    if not sign or (name not in _FIELDS and not name.startswith("involvedObject.")):
        raise bad(f'field label not supported: "{name}"')
    return lambda item: (str(at(item, name) or "") == value) != differs
