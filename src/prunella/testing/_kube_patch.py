"""The ways to change a part of an object: merge patch, JSON patch, and apply."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from prunella.kube.client import APPLY_PATCH, JSON_PATCH, MERGE_PATCH
from prunella.kube.kinds import Json
from prunella.testing._kube_refusals import Refused, bad, rejected

STRATEGIC_PATCH = "application/strategic-merge-patch+json"


def patched(old: Json, patch: Any, content: str) -> Json:
    """A new object; the old one stays as it is.

    Raises:
        Refused: it is no patch of that kind, or a ``test`` in it does not hold.
    """
    if content == JSON_PATCH and isinstance(patch, list):
        return _stepped(old, cast("list[Json]", patch))
    if content in {MERGE_PATCH, APPLY_PATCH, STRATEGIC_PATCH} and isinstance(patch, dict):
        return merged(old, cast("Json", patch), by_name=content != MERGE_PATCH)
    if content in {JSON_PATCH, MERGE_PATCH, APPLY_PATCH, STRATEGIC_PATCH}:
        raise bad(f"the body is no {content}")
    raise Refused(415, "UnsupportedMediaType", f"the body of the request was in {content!r}")


def copied(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def merged(old: Json, patch: Json, *, by_name: bool = False) -> Json:
    """RFC 7386: lists are replaced whole, or, `by_name`, what is in them merged by its name.

    What a strategic patch says of an order is not followed.
    """
    result = dict(old)
    for key, value in patch.items():
        if by_name and key.startswith("$"):
            continue
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(old.get(key), value, by_name=by_name)
    return result


def _merged(old: Any, patch: Any, *, by_name: bool) -> object:
    if isinstance(patch, dict):
        known = cast("Json", old if isinstance(old, dict) else {})
        return merged(known, cast("Json", patch), by_name=by_name)
    both = (old, patch)
    if by_name and all(isinstance(one, list) for one in both) and all(map(_named, old + patch)):
        result = {one["name"]: one for one in old}
        for one in patch:
            if one.get("$patch") == "delete":
                result.pop(one["name"], None)
                continue
            result[one["name"]] = merged(result.get(one["name"], {}), one, by_name=True)
        return list(result.values())
    return copied(patch)


def _named(one: Any) -> bool:
    return isinstance(one, dict) and "name" in one


def _stepped(old: Json, steps: list[Json]) -> Json:
    """RFC 6902, what it says of adding, removing, replacing and testing."""
    whole: Json = copied(old)
    for step in steps:
        try:
            operation, path = str(step["op"]), str(step["path"])
            *way, last = [
                part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]
            ]
            place: Any = whole
            for part in way:
                place = place[_at(place, part)]
            _step(place, last, operation, step.get("value"))
        except (LookupError, ValueError, TypeError) as error:
            raise rejected() from error
    return whole


def _step(place: Any, last: str, operation: str, value: object) -> None:
    if operation == "add" and isinstance(place, list):
        items = cast("list[object]", place)
        items.insert(len(items) if last == "-" else int(last), copied(value))
    elif operation == "add":
        place[last] = copied(value)
    elif operation == "replace":
        place[_at(place, last)] = copied(value)  # in a map also what is not there, as real ones do
    elif operation == "remove":
        del place[_at(place, last)]
    elif operation == "test":
        whole = cast("Json | list[object]", place)
        absent = isinstance(whole, dict) and value is None and last not in whole
        if not absent and whole[_at(whole, last)] != value:
            raise ValueError(last)
    else:
        raise bad(f"Unexpected kind: {operation}")


def _at(place: object, part: str) -> Any:
    return int(part) if isinstance(place, list) else part
