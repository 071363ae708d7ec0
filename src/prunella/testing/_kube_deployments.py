"""Deployments and their ReplicaSets, as the real controllers keep them."""

from __future__ import annotations

from collections.abc import Sequence

from prunella.kube.kinds import REPLICA_SET, Json
from prunella.testing._kube_budget import ready, share
from prunella.testing._kube_hands import (
    HASH,
    condition,
    count_ready,
    hash_of,
    make_pod,
    owned,
    owner_reference,
    pods_of,
    tell,
)
from prunella.testing._kube_patch import copied
from prunella.testing._kube_refusals import Key
from prunella.testing._kube_select import at, part, parts
from prunella.testing._kube_store import Store

REVISION = "deployment.kubernetes.io/revision"
_HISTORY = "deployment.kubernetes.io/revision-history"
_OWN = {REVISION, _HISTORY, "kubectl.kubernetes.io/last-applied-configuration"}

Sets = list[tuple[Key, Json]]


def keep_replica_set(store: Store, key: Key) -> None:
    """As many pods as it wants; those that do not serve go first, then the newest."""
    item = store.get(key)
    pods, wanted = pods_of(store, item), item["spec"]["replicas"]
    for _ in range(wanted - len(pods)):
        make_pod(store, item, item["spec"]["template"])
    pods.sort(key=lambda one: (ready(one[1]), -int(one[1]["metadata"]["resourceVersion"])))
    for pod_key, _ in pods[: max(0, len(pods) - wanted)]:
        store.mark(pod_key, 30)
    pods = pods_of(store, item)
    serving = count_ready(pods)
    counts = {"fullyLabeledReplicas": len(pods), "readyReplicas": serving or None}
    tell(store, key, replicas=len(pods), availableReplicas=serving or None, **counts)


def keep_deployment(store: Store, key: Key, *, late: bool) -> None:
    """One step towards what it wants: those that it causes lead to the next ones."""
    item = store.get(key)
    sets = owned(store, item, REPLICA_SET)
    digest = hash_of(item["spec"]["template"])
    if not item["spec"].get("paused"):
        _choose(store, key, sets, digest)
        item = store.get(key)
        sets = owned(store, item, REPLICA_SET)
    new = [one for one in sets if _digest(one[1]) == digest]
    old = [one for one in sets if _digest(one[1]) != digest]
    if item["spec"].get("paused"):
        _resize(store, item, sets)
    elif at(item, "spec.strategy.type") == "Recreate":
        _recreate(store, item, new[0], old)
    else:
        _roll(store, item, new[0], old)
    sets = owned(store, item, REPLICA_SET)
    _tell(store, key, sets, digest, late=late)
    _forget(store, item, [one for one in sets if _digest(one[1]) != digest])


def revision_of(item: Json) -> int:
    return int(part(item, "metadata.annotations").get(REVISION, 0))


def _digest(item: Json) -> str:
    return str(part(item, "metadata.labels").get(HASH, ""))


def _choose(store: Store, key: Key, sets: Sets, digest: str) -> None:
    """The ReplicaSet of the present template is the newest revision, also if it was one before."""
    item = store.get(key)
    found = [one for one in sets if _digest(one[1]) == digest]
    newest = max((revision_of(one) for _, one in sets), default=0)
    notes = {n: v for n, v in part(item, "metadata.annotations").items() if n not in _OWN}
    if not found:
        newest += 1
        _make_set(store, item, digest, {**notes, REVISION: str(newest)})
    else:
        set_key, one = found[0]
        known = part(one, "metadata.annotations")
        was = revision_of(one)
        history = {_HISTORY: known[_HISTORY]} if _HISTORY in known else {}
        if was < newest:
            newest += 1
            history = {_HISTORY: ",".join(filter(None, (known.get(_HISTORY), str(was))))}
        _annotate(store, set_key, {**known, **notes, **history, REVISION: str(newest)})
    _annotate(store, key, {**part(item, "metadata.annotations"), REVISION: str(newest)})


def _make_set(store: Store, item: Json, digest: str, notes: Json) -> None:
    meta, template = item["metadata"], copied(item["spec"]["template"])
    labels = {**part(template, "metadata.labels"), HASH: digest}
    template["metadata"]["labels"] = labels
    selector = copied(item["spec"]["selector"])
    selector["matchLabels"] = {**selector.get("matchLabels", {}), HASH: digest}
    body = {
        "metadata": {
            "name": f"{meta['name']}-{digest}",
            "labels": labels,
            "annotations": notes,
            "ownerReferences": [owner_reference(item)],
        },
        "spec": {"replicas": 0, "selector": selector, "template": template},
    }
    store.create(REPLICA_SET, meta["namespace"], body)


def _annotate(store: Store, key: Key, notes: Json) -> None:
    item = store.get(key)
    noted = {**item, "metadata": {**item["metadata"], "annotations": notes}}
    store.replace(key, noted, wanted=False)


def _scale(store: Store, key: Key, replicas: int) -> None:
    item = store.get(key)
    store.replace(key, {**item, "spec": {**item["spec"], "replicas": replicas}})


def _total(sets: Sequence[tuple[Key, Json]]) -> int:
    return sum(one["spec"]["replicas"] for _, one in sets)


def _available(store: Store, sets: Sets) -> int:
    return sum(count_ready(pods_of(store, one)) for _, one in sets)


def _resize(store: Store, item: Json, sets: Sets) -> None:
    """Paused: nothing rolls, and a new number is for the newest."""
    if sets:
        key, newest = max(sets, key=lambda one: revision_of(one[1]))
        others = _total(sets) - newest["spec"]["replicas"]
        _scale(store, key, max(0, item["spec"]["replicas"] - others))


def _recreate(store: Store, item: Json, new: tuple[Key, Json], old: Sets) -> None:
    for key, _ in old:
        _scale(store, key, 0)
    if not any(owned_pods(store, one) for _, one in old):
        _scale(store, new[0], item["spec"]["replicas"])


def owned_pods(store: Store, item: Json) -> list[Key]:
    """All, also those that are about to go."""
    return [key for key, _ in store.owned(item["metadata"]["uid"]) if key.plural == "pods"]


def _roll(store: Store, item: Json, new: tuple[Key, Json], old: Sets) -> None:
    """New ones first, as many as the surge allows; old ones go as new ones are ready."""
    wanted = item["spec"]["replicas"]
    rolling = part(item, "spec.strategy.rollingUpdate")
    surge = share(rolling.get("maxSurge", "25%"), wanted)
    spare = share(rolling.get("maxUnavailable", "25%"), wanted, down=True)
    spare = 1 if not surge and not spare else spare
    has = new[1]["spec"]["replicas"]
    room = wanted + surge - _total([new, *old])
    has = wanted if has > wanted else min(wanted, has + max(0, room))
    _scale(store, new[0], has)
    least = wanted - spare
    missing = max(0, has - _available(store, [new]))
    budget = has + _total(old) - least - missing
    for key, one in old:  # what does not serve anyway
        idle = one["spec"]["replicas"] - count_ready(pods_of(store, one))
        gone = max(0, min(idle, budget))
        _scale(store, key, one["spec"]["replicas"] - gone)
        budget -= gone
    old = [(key, store.get(key)) for key, _ in old]
    surplus = min(budget, _available(store, [new, *old]) - least)
    for key, one in sorted(old, key=lambda pair: pair[1]["metadata"]["creationTimestamp"]):
        gone = max(0, min(one["spec"]["replicas"], surplus))
        _scale(store, key, one["spec"]["replicas"] - gone)
        surplus -= gone


def _tell(store: Store, key: Key, sets: Sets, digest: str, *, late: bool) -> None:
    item = store.get(key)
    new = [one for one in sets if _digest(one[1]) == digest]
    wanted, total = item["spec"]["replicas"], sum(len(pods_of(store, one)) for _, one in sets)
    updated = sum(len(pods_of(store, one)) for _, one in new)
    serving = _available(store, sets)
    spare = share(at(item, "spec.strategy.rollingUpdate.maxUnavailable") or 0, wanted, down=True)
    done = updated == wanted == total and serving >= wanted
    # Once it is done, pods that fail do not make a new rollout of it.
    done |= updated == total and "NewReplicaSetAvailable" in [
        one.get("reason") for one in parts(item, "status.conditions")
    ]
    progress = {"reason": "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"}
    if late and not done:
        progress["reason"] = "ProgressDeadlineExceeded"
        name = new[0][1]["metadata"]["name"] if new else ""
        progress["message"] = f'ReplicaSet "{name}" has timed out progressing.'
    enough = serving >= wanted - spare
    minimum = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    conditions = [
        condition(store, item, "Available", holds=enough, reason=minimum),
        condition(store, item, "Progressing", holds=done or not late, **progress),
    ]
    counts = {
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": serving,
        "availableReplicas": serving,
        "unavailableReplicas": max(0, max(wanted, total) - serving),
    }
    shown = {name: count or None for name, count in counts.items()}
    tell(store, key, conditions=conditions, **shown)


def _forget(store: Store, item: Json, old: Sets) -> None:
    """All but the last few of those that are not used any more."""
    unused = [
        one for one in old if not one[1]["spec"]["replicas"] and not owned_pods(store, one[1])
    ]
    unused.sort(key=lambda one: revision_of(one[1]))
    limit = item["spec"].get("revisionHistoryLimit", 10)
    for key, _ in unused[: max(0, len(unused) - limit)]:
        store.remove(key)
