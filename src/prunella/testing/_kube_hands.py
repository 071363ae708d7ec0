"""What the controllers of the fake cluster have in common: how they make, end and describe."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence

from prunella.kube.kinds import POD, Json, Kind
from prunella.testing._kube_budget import ready
from prunella.testing._kube_fill import filled
from prunella.testing._kube_patch import copied
from prunella.testing._kube_refusals import Key
from prunella.testing._kube_select import part, parts
from prunella.testing._kube_store import Store

HASH = "pod-template-hash"


def hash_of(template: Json) -> str:
    """The same for the same template, whatever a controller has put into it."""
    bare: Json = copied(template)
    part(bare, "metadata.labels").pop(HASH, None)
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:10]


def owner_reference(owner: Json) -> Json:
    meta = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def suffixed(name: str) -> str:
    return f"{name}-{secrets.token_hex(3)[:5]}"


def make_pod(
    store: Store,
    owner: Json,
    template: Json,
    *,
    name: str = "",
    labels: Mapping[str, str] | None = None,
    node: str = "",
) -> Json:
    """A pod of the owner, from a template."""
    meta = owner["metadata"]
    pod: Json = copied(template)
    inner: Json = pod.setdefault("metadata", {})
    inner["name"] = name or suffixed(meta["name"])
    inner["labels"] = {**inner.get("labels", {}), **(labels or {})}
    inner["ownerReferences"] = [owner_reference(owner)]
    if node:
        pod["spec"]["nodeName"] = node
    return store.create(POD, meta["namespace"], filled(POD, pod))


def pods_of(store: Store, owner: Json) -> list[tuple[Key, Json]]:
    """Those that it counts: neither about to go nor at their end."""
    return [
        (key, pod)
        for key, pod in store.owned(owner["metadata"]["uid"])
        if key.plural == "pods" and "deletionTimestamp" not in pod["metadata"]
        if pod["status"]["phase"] not in {"Failed", "Succeeded"}
    ]


def owned(store: Store, owner: Json, kind: Kind) -> list[tuple[Key, Json]]:
    found = store.owned(owner["metadata"]["uid"])
    return [(key, item) for key, item in found if key.kind == (kind.group, kind.plural)]


def count_ready(pods: Sequence[tuple[Key, Json]]) -> int:
    return sum(ready(pod) for _, pod in pods)


def tell(store: Store, key: Key, **status: object) -> None:
    """Change a part of the status; what is None is left out."""
    item = store.get(key)
    whole = {**item.get("status", {}), "observedGeneration": item["metadata"].get("generation")}
    whole |= status
    kept = {name: value for name, value in whole.items() if value is not None}
    store.replace(key, {**item, "status": kept})


def condition(
    store: Store, item: Json, kind: str, *, holds: bool, reason: str = "", message: str = ""
) -> Json:
    """One condition of the item, with the time at which it came to be so."""
    status = "True" if holds else "False"
    same = [
        one
        for one in parts(item, "status.conditions")
        if (one["type"], one["status"]) == (kind, status)
    ]
    since = same[0].get("lastTransitionTime") if same else store.now()
    words = {"reason": reason, "message": message}
    return {
        "type": kind,
        "status": status,
        "lastTransitionTime": since,
        **{name: value for name, value in words.items() if value},
    }
