"""What a value should have been, in plain words, read off the JSON Schema of its spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter

from prunella.spec import Duration, Ratio, Size

Schema = Mapping[str, Any]
Path = tuple[str | int, ...]

SHOWN_COUNT = 40  # characters of a wrong value that a fault repeats


def show_duration(seconds: float) -> str:
    """A duration as it would be written: ``1h30m``, ``250ms``."""
    left_ms = round(seconds * 1000)
    parts: list[str] = []
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        count, left_ms = divmod(left_ms, size_ms)
        parts += [f"{count}{unit}"] if count else []
    parts += [f"{left_ms}ms"] if left_ms else []
    return "".join(parts) or "0s"


def show_ratio(ratio: float) -> str:
    """A ratio as a percentage: ``5%``."""
    return f"{ratio * 100:.6g}%"


def _unit(kind: Any) -> Any:
    return TypeAdapter[Any](kind).json_schema()["anyOf"]


_UNITS: tuple[tuple[Any, str, str, Callable[[float], str]], ...] = (
    (_unit(Duration), "a duration", "such as 250ms, 5s, 10m or 1h30m", show_duration),
    (_unit(Ratio), "a percentage", "such as 5%, or a number from 0 to 1", show_ratio),
    (_unit(Size), "a size", "such as 64KiB, 10MiB or 1GiB", lambda bound: f"{bound:.0f}B"),
)


def unit_of(schema: Schema) -> tuple[str, str, Callable[[float], str]] | None:
    """Noun, examples and writer of a duration, ratio or size; None for other schemas."""
    for alternatives, noun, examples, show in _UNITS:
        if schema.get("anyOf") == alternatives:
            return noun, examples, show
    return None


@cache
def schema_of(model: type[BaseModel]) -> Schema:
    """The JSON Schema of a spec."""
    return model.model_json_schema()


def schemas_at(model: type[BaseModel], path: Path) -> list[Schema]:
    """The alternatives for the value at a path in a spec; empty if it may not be there."""
    root = schema_of(model)
    found = list(_alternatives(root, root))
    for key in path:
        found = [
            leaf
            for schema in found
            for below in _below(schema, key)
            for leaf in _alternatives(root, below)
        ]
    return found


def _alternatives(root: Schema, schema: Schema) -> Iterator[Schema]:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        yield from _alternatives(root, root["$defs"][name])
        return
    several = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    if several and unit_of(schema) is None:
        for one in several:
            yield from _alternatives(root, one)
    else:
        yield schema


def _below(schema: Schema, key: str | int) -> Iterator[Schema]:
    if isinstance(key, str):
        rest = schema.get("additionalProperties")
        if key in schema.get("properties", {}):
            yield schema["properties"][key]
        elif isinstance(rest, Mapping):
            yield cast("Schema", rest)
        return
    first = schema.get("prefixItems", ())
    if key < len(first):
        yield first[key]
    elif isinstance(schema.get("items"), Mapping):
        yield schema["items"]


def known_keys(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that the mapping at a path may have, in the order of the spec."""
    root = schema_of(model)
    keys: list[str] = []
    for schema in schemas_at(model, path):
        keys += schema.get("properties", {})
        if isinstance(names := schema.get("propertyNames"), Mapping):
            for leaf in _alternatives(root, cast("Schema", names)):
                keys += leaf.get("enum", ())
    return keys


def unknown(noun: str, name: str, known: Iterable[str]) -> str:
    """A fault about a name that is not one of the known ones, with the nearest of them."""
    known = list(known)
    near = get_close_matches(name[:SHOWN_COUNT], known, n=1)
    what = f"unknown {noun} {shortened(name)!r}"
    if near:
        return f"{what}, did you mean {near[0]!r}?"
    return f"{what}, expected {one_of(known)}"


def one_of(known: Iterable[str]) -> str:
    """Names to choose from, as the object of "expected"."""
    return f"one of: {', '.join(known) or '(there is none)'}"


def shortened(text: str) -> str:
    """A text of the user's as far as a fault repeats it."""
    return text if len(text) <= SHOWN_COUNT else f"{text[:SHOWN_COUNT]}…"


def expected(model: type[BaseModel], path: Path) -> str:
    """What may stand at a path, as the object of "expected"."""
    root = schema_of(model)
    nouns = (noun(root, schema) for schema in schemas_at(model, path))
    return " or ".join(dict.fromkeys(word for word in nouns if word)) or "another value"


def noun(root: Schema, schema: Schema) -> str:
    """One schema in words; empty for null, which nobody writes on purpose."""
    if unit := unit_of(schema):
        return f"{unit[0]} {unit[1]}"
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        texts = [str(value) for value in values if not isinstance(value, bool)]
        return f"one of: {', '.join(texts)}" if len(texts) > 1 else "".join(texts)
    kind = schema.get("type")
    if kind in {"integer", "number"}:
        return f"{'a whole' if kind == 'integer' else 'a'} number{_bounds(schema)}"
    if kind == "array":
        return f"a list{_items(root, schema)}"
    if kind == "string" and schema.get("format") == "path":
        return "a path"
    return {"string": "text", "boolean": "true or false", "object": "a mapping"}.get(str(kind), "")


def _items(root: Schema, schema: Schema) -> str:
    kinds = {
        leaf.get("type")
        for item in _below(schema, len(schema.get("prefixItems", ())))
        for leaf in _alternatives(root, item)
        if "enum" not in leaf
    }
    kind = str(kinds.pop()) if len(kinds) == 1 else ""
    return {"string": " of texts", "integer": " of whole numbers"}.get(kind, "")


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    words = {
        "minimum": "of at least",
        "exclusiveMinimum": "above",
        "maximum": "of at most",
        "exclusiveMaximum": "below",
    }
    said = [f"{word} {schema[key]}" for key, word in words.items() if key in schema]
    return f" {' and '.join(said)}" if said else ""
