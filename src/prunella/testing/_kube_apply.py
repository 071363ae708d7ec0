"""Who owns which field of an object, and what one manager may apply to it.

Coarser than a real server in one thing: a list is one field, unless its members have names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from prunella.kube.kinds import Json
from prunella.testing._kube_patch import copied, merged
from prunella.testing._kube_refusals import Key, field_conflict
from prunella.testing._kube_select import parts

Path = tuple[str, ...]
Owners = dict[tuple[str, str], set[Path]]  # by manager and way

_SERVERS_OWN = {
    *("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation"),
    *("managedFields", "deletionTimestamp", "deletionGracePeriodSeconds"),
}
APPLY, UPDATE = "Apply", "Update"


def applied(key: Key, old: Json, body: Json, manager: str, *, force: bool) -> Json:
    """What becomes of `old`: what the manager does not say any more goes, if nobody else does.

    Raises:
        Refused: another manager owns what is to be changed, and `force` is not said.
    """
    owners, wanted, known = _owners(old), fields(body), fields(old)
    changed = {path for path, value in wanted.items() if known.get(path, ...) != value}
    mine = owners.pop((manager, APPLY), set())
    clashes = [
        (other, path)
        for (other, _), paths in owners.items()
        for path in sorted(paths & changed)
        if path in known
    ]
    if clashes and not force:
        raise field_conflict(key, [(other, _words(path)) for other, path in clashes])
    new = merged(old, body, by_name=True)
    others = {path for paths in owners.values() for path in paths}
    for path in mine - set(wanted) - others:
        _drop(new, path)
    for paths in owners.values():
        paths.difference_update(changed)
    owners[manager, APPLY] = set(wanted)
    return _noted(new, owners)


def owned(item: Json, said: Iterable[Path], manager: str, how: str) -> Json:
    """A new object, whose fields that were `said` are owned by who makes it."""
    return _noted(item, {(manager or "unknown", how): set(said)})


def updated(old: Json, new: Json, manager: str) -> Json:
    """`new`, with what has changed in it owned by who changed it."""
    known, wanted = fields(old), fields(new)
    changed = {path for path, value in wanted.items() if known.get(path, ...) != value}
    owners = _owners(old)
    for paths in owners.values():
        paths.difference_update(changed)
        paths.intersection_update(wanted)
    if changed:
        owners.setdefault((manager or "unknown", UPDATE), set()).update(changed)
    return _noted(new, owners)


def fields(item: Json) -> dict[Path, Any]:
    """By their paths, as a server writes them: ``f:data``, ``f:x``."""
    body = {name: value for name, value in item.items() if name not in {"apiVersion", "kind"}}
    meta = cast("Json", item.get("metadata") or {})
    body["metadata"] = {name: value for name, value in meta.items() if name not in _SERVERS_OWN}
    return dict(_fields((), body))


def _fields(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in cast("Json", value).items():
            yield from _fields((*path, f"f:{name}"), inner)
    elif _has_names(value):
        for one in cast("list[Json]", value):
            yield from _fields((*path, _named(one["name"])), one)
    elif value not in (None, {}):
        yield path, value


def _has_names(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(one, dict) and "name" in one for one in cast("list[object]", value))


def _named(name: str) -> str:
    """Which member of a list, as a server writes it: ``k:{"name":"shop"}``."""
    return f"k:{json.dumps({'name': name}, separators=(',', ':'))}"


def _name(part: str) -> str:
    return str(json.loads(part[2:])["name"])


def _words(path: Path) -> str:
    return "".join(
        f'[name="{_name(part)}"]' if part.startswith("k:") else f".{part[2:]}" for part in path
    )


def _drop(item: Json, path: Path) -> None:
    place: Any = item
    for part in path[:-1]:
        if part.startswith("k:"):
            place = next((one for one in place if one.get("name") == _name(part)), None)
        else:
            place[part[2:]] = place = copied(place[part[2:]])
    if isinstance(place, dict):
        cast("Json", place).pop(path[-1][2:], None)


def _owners(item: Mapping[str, Any]) -> Owners:
    listed = parts(cast("Json", item), "metadata.managedFields")
    return {
        (one["manager"], one["operation"]): set(_paths((), one.get("fieldsV1") or {}))
        for one in listed
    }


def _paths(path: Path, tree: Json) -> Iterator[Path]:
    for name, inner in tree.items():
        if inner:
            yield from _paths((*path, name), inner)
        else:
            yield (*path, name)


def _noted(item: Json, owners: Owners) -> Json:
    listed: list[Json] = []
    for (manager, operation), paths in owners.items():
        tree: Json = {}
        for path in sorted(paths):
            place = tree
            for part in path:
                place = place.setdefault(part, {})
        if tree:
            entry = {"manager": manager, "operation": operation, "fieldsType": "FieldsV1"}
            version = item.get("apiVersion", "v1")
            listed.append({**entry, "apiVersion": version, "fieldsV1": tree})
    return {**item, "metadata": {**(item.get("metadata") or {}), "managedFields": listed}}
