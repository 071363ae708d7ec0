"""One piece of the tree against one spec: the frozen value, or faults in plain words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from prunella.config.faults import Place, Report
from prunella.config.node import Node
from prunella.config.words import (
    Path,
    Schema,
    expected,
    known_keys,
    schemas_at,
    shortened,
    unit_of,
    unknown,
)

M = TypeVar("M", bound=BaseModel)

MAX_FAULTS_COUNT = 200  # of one spec; more of them tell nobody more


class _Found(NamedTuple):
    path: Path
    place: Place
    message: str
    type_only: bool  # says only that the type is wrong


def check(model: type[M], node: Node, subject: str, report: Report) -> M | None:
    """The spec in `node`, or None after its faults went to `report`.

    Args:
        model: the spec.
        node: where it is written.
        subject: how faults call it, such as ``service 'shop'``.
        report: takes the faults.
    """
    if not isinstance(node.kids, dict):
        report.add(node.place, f"{subject} {_is(node)}, expected a mapping")
        return None
    faults = _booleans(model, node)[:MAX_FAULTS_COUNT]
    checked: M | None = None
    try:
        checked = model.model_validate(node.value)
    except ValidationError as error:
        details = error.errors(include_url=False)[:MAX_FAULTS_COUNT]
        faults += [_explain(model, node, subject, detail) for detail in details]
    for fault in _weightiest(faults):
        report.add(fault.place, fault.message)
    return None if faults else checked


def _booleans(model: type[BaseModel], node: Node) -> list[_Found]:
    """True and false where something else is wanted: they would pass for 1 and 0."""
    return [
        _Found(path, leaf.place, _wrong(model, node, path), type_only=True)
        for path, leaf in node.leaves()
        if isinstance(leaf.value, bool)
        and (schemas := schemas_at(model, path))
        and not any(_takes_boolean(schema) for schema in schemas)
    ]


def _takes_boolean(schema: Schema) -> bool:
    return schema.get("type", "boolean") == "boolean" and unit_of(schema) is None


def _weightiest(faults: list[_Found]) -> list[_Found]:
    """Without those that only say that another member of a union did not fit either."""
    kept: list[_Found] = []
    for fault in faults:
        rivals = (
            other
            for other in faults
            if other is not fault
            and other.path[: len(fault.path)] == fault.path
            and not (other.type_only and len(other.path) == len(fault.path))
        )
        if not (fault.type_only and any(rivals)):
            kept.append(fault)
    return kept


def _explain(model: type[BaseModel], node: Node, subject: str, error: ErrorDetails) -> _Found:
    """One of pydantic's errors as a fault."""
    kind, location = error["type"], error["loc"]
    if kind == "missing":
        *parents, name = location
        path = _walk(node, tuple(parents))
        what = f"{_subject(path, subject)} has no '{name}'"
        message = f"{what}, expected {expected(model, (*path, name))}"
        return _Found((*path, name), _place(node, path), message, type_only=False)
    path = _walk(node, location)
    if kind == "extra_forbidden" or location[-1:] == ("[key]",):
        *above, name = path
        message = unknown("key", str(name), known_keys(model, tuple(above)))
        return _Found(path, _key_place(node, path), message, type_only=False)
    wanted = _wanted(kind, error.get("ctx", {}), model, path)
    if wanted is None:
        return _Found(path, _place(node, path), _wrong(model, node, path), type_only=True)
    here = node.find(*path)
    said = f"{_subject(path, subject)} {_is(here)}, {wanted}"
    if not path or not wanted.startswith("expected"):
        said = f"{_subject(path, subject)}: {wanted}"
    return _Found(path, _place(node, path), said, type_only=False)


def _walk(node: Node, location: tuple[str | int, ...]) -> Path:
    """The path in the data of pydantic's location, which also names members of unions."""
    path: list[str | int] = []
    for key in location:
        below = node.kid(key)
        if below is not None:
            path.append(key)
            node = below
    return tuple(path)


def _place(node: Node, path: Path) -> Place:
    here = node.find(*path)
    return node.place if here is None else here.place


def _key_place(node: Node, path: Path) -> Place:
    above = node.find(*path[:-1])
    return node.place if above is None else above.key_place(str(path[-1]))


def _subject(path: Path, subject: str) -> str:
    """How a fault calls the value at `path`: by its key, and its number in a list."""
    if not path:
        return subject
    if isinstance(path[-1], str):
        return f"{path[-1]!r}"
    return f"item {path[-1] + 1} of {_subject(path[:-1], subject)}"


def _is(node: Node | None) -> str:
    """What stands there, shortened, without passwords of URLs."""
    if node is None or node.value is None:
        return "is empty"
    if isinstance(node.kids, dict):
        return "is a mapping" if node.kids else "is an empty mapping"
    if isinstance(node.kids, list):
        return "is a list" if node.kids else "is an empty list"
    text = re.sub(r"://[^@/\s]*@", "://***@", node.text)
    short = shortened(text)
    return f"is {short!r}" if isinstance(node.value, str) else f"is {short}"


def _wrong(model: type[BaseModel], node: Node, path: Path) -> str:
    """A value of the wrong type."""
    here = node.find(*path)
    wanted = expected(model, path)
    scalar = here is not None and isinstance(here.value, bool | int | float)
    if here is not None and scalar and wanted.startswith("text"):
        wanted = f'{wanted}: write "{here.text}"'
    return f"{_subject(path, 'the value')} {_is(here)}, expected {wanted}"


_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "of at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "of at most"),
    "multiple_of": ("multiple_of", "that is a multiple of"),
}
_LENGTHS = {
    "too_short": ("min_length", "at least", "item"),
    "too_long": ("max_length", "at most", "item"),
    "string_too_short": ("min_length", "at least", "character"),
    "string_too_long": ("max_length", "at most", "character"),
}


def _wanted(
    kind: str, context: Mapping[str, Any], model: type[BaseModel], path: Path
) -> str | None:
    """What a rule says, beginning with "expected" if it is our rule; None: the type is wrong."""
    if kind in _BOUNDS:
        name, word = _BOUNDS[kind]
        return f"expected {_bounded(model, path, word, context[name])}"
    if kind in _LENGTHS:
        name, word, noun = _LENGTHS[kind]
        count = int(context[name])
        return f"expected {word} {count} {noun}{'s' * (count != 1)}"
    if kind == "string_pattern_mismatch":
        return f"expected text that matches {context['pattern']}"
    if kind in {"value_error", "assertion_error"}:
        return str(context["error"]).strip() or "expected another value"
    return None


def _bounded(model: type[BaseModel], path: Path, word: str, bound: float) -> str:
    show: Callable[[float], str] = "{:g}".format
    what = expected(model, path)
    for schema in schemas_at(model, path):
        if unit := unit_of(schema):
            noun, examples, show = unit
            if bound == 1 and noun == "a percentage":
                return f"{noun} {examples}"  # whoever writes 10 means 10%
            what = noun
    if any(mark in what for mark in (" of at ", " above ", " below ", " from ")):
        return what
    return f"{what} {word} {show(bound)}"
