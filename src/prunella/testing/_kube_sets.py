"""StatefulSets and DaemonSets with their ControllerRevisions, as the real controllers keep them."""

from __future__ import annotations

from prunella.kube.kinds import CONTROLLER_REVISION, NODE, Json
from prunella.testing._kube_budget import ready, share
from prunella.testing._kube_hands import (
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
from prunella.testing._kube_select import at, labels_of, part
from prunella.testing._kube_store import Store

_LABEL = "controller-revision-hash"

Revision = tuple[Key, Json]


def keep_stateful_set(store: Store, key: Key) -> None:
    """One step: pods in their order, each after the one before it serves."""
    item = store.get(key)
    newest = _newest(store, item, item["spec"]["template"])
    status = part(item, "status")
    present = status.get("currentRevision") or newest[1]["metadata"]["name"]
    _order(store, item, present, newest[1]["metadata"]["name"])
    _tell_order(store, key, present, newest[1]["metadata"]["name"])
    _forget(store, store.get(key), {present, newest[1]["metadata"]["name"]})


def keep_daemon_set(store: Store, key: Key) -> None:
    """One step: a pod on each node; few at a time are replaced by such of a new template."""
    item = store.get(key)
    newest = _newest(store, item, item["spec"]["template"])
    digest = hash_of(item["spec"]["template"])
    nodes = {node["metadata"]["name"] for _, node in store.of_kind(NODE)}
    there = {one["spec"]["nodeName"] for one in _all_pods(store, item)}
    for node in sorted(nodes - there):
        make_pod(store, item, item["spec"]["template"], labels={_LABEL: digest}, node=node)
    for pod_key, pod in pods_of(store, item):
        if pod["spec"]["nodeName"] not in nodes:
            store.mark(pod_key, 30)
    if at(item, "spec.updateStrategy.type") == "RollingUpdate":
        _replace_some(store, item, digest, len(nodes))
    pods = pods_of(store, item)
    serving = count_ready(pods)
    updated = sum(labels_of(pod).get(_LABEL) == digest for _, pod in pods)
    tell(
        store,
        key,
        desiredNumberScheduled=len(nodes),
        currentNumberScheduled=len(pods),
        numberMisscheduled=0,
        numberReady=serving,
        numberAvailable=serving or None,
        numberUnavailable=len(nodes) - serving or None,
        updatedNumberScheduled=updated or None,
    )
    _forget(store, item, {newest[1]["metadata"]["name"]})


# Revisions -------------------------------------------------------------------------------------


def _newest(store: Store, item: Json, template: Json) -> Revision:
    """The revision of that template; one from before becomes the newest again."""
    known = owned(store, item, CONTROLLER_REVISION)
    digest = hash_of(template)
    last = max((one["revision"] for _, one in known), default=0)
    name = f"{item['metadata']['name']}-{digest}"
    for key, one in known:
        if one["metadata"]["name"] == name:
            number = last if one["revision"] == last else last + 1
            return key, store.replace(key, {**one, "revision": number})
    body: Json = {
        "metadata": {
            "name": name,
            "labels": {
                **part(template, "metadata.labels"),
                "controller.kubernetes.io/hash": digest,
                _LABEL: digest,
            },
            "annotations": part(item, "metadata.annotations"),
            "ownerReferences": [owner_reference(item)],
        },
        "data": {"spec": {"template": {**copied(template), "$patch": "replace"}}},
        "revision": last + 1,
    }
    made = store.create(CONTROLLER_REVISION, item["metadata"]["namespace"], body)
    return Key("apps", "controllerrevisions", item["metadata"]["namespace"], name), made


def _forget(store: Store, item: Json, live: set[str]) -> None:
    names = live | {labels_of(pod).get(_LABEL, "") for _, pod in pods_of(store, item)}
    known = sorted(owned(store, item, CONTROLLER_REVISION), key=lambda one: one[1]["revision"])
    unused = [
        key
        for key, one in known
        if not {one["metadata"]["name"], labels_of(one).get(_LABEL)} & names
    ]
    limit = item["spec"].get("revisionHistoryLimit", 10)
    for key in unused[: max(0, len(unused) - limit)]:
        store.remove(key)


def _template(store: Store, item: Json, revision: str) -> Json:
    found = store.objects.get(
        Key("apps", "controllerrevisions", item["metadata"]["namespace"], revision)
    )
    if found is None:
        return dict(item["spec"]["template"])
    return {name: v for name, v in part(found, "data.spec.template").items() if name[0] != "$"}


# StatefulSet -----------------------------------------------------------------------------------


def _all_pods(store: Store, item: Json) -> list[Json]:
    found = store.owned(item["metadata"]["uid"])
    return [pod for key, pod in found if key.plural == "pods"]


def _ordinal(pod: Json) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])


def _order(store: Store, item: Json, present: str, newest: str) -> None:
    wanted = item["spec"]["replicas"]
    parallel = at(item, "spec.podManagementPolicy") == "Parallel"
    rolling = at(item, "spec.updateStrategy.type") == "RollingUpdate"
    first_new = at(item, "spec.updateStrategy.rollingUpdate.partition") or 0
    pods = {_ordinal(pod): pod for pod in _all_pods(store, item)}
    for ordinal in range(wanted):
        if ordinal not in pods:
            revision = present if ordinal < first_new else newest
            name = f"{item['metadata']['name']}-{ordinal}"
            labels = {
                _LABEL: revision,
                "statefulset.kubernetes.io/pod-name": name,
                "apps.kubernetes.io/pod-index": str(ordinal),
            }
            template = _template(store, item, revision)
            pods[ordinal] = make_pod(store, item, template, name=name, labels=labels)
        if not parallel and not ready(pods[ordinal]):
            return  # also where a new template would mend it: somebody has to delete that pod
    for ordinal in sorted((one for one in pods if one >= wanted), reverse=True):
        store.mark(_key_of(pods[ordinal]), 30)
        if not parallel:
            return
    for ordinal in sorted(range(first_new, wanted), reverse=True) if rolling else ():
        if labels_of(pods[ordinal]).get(_LABEL) != newest:
            store.mark(_key_of(pods[ordinal]), 30)
            return
        if not ready(pods[ordinal]):
            return


def _tell_order(store: Store, key: Key, present: str, newest: str) -> None:
    item = store.get(key)
    pods = pods_of(store, item)
    serving, wanted = count_ready(pods), item["spec"]["replicas"]
    updated = sum(labels_of(pod).get(_LABEL) == newest for _, pod in pods)
    if updated == len(pods) == serving == wanted:
        present = newest
    current = sum(labels_of(pod).get(_LABEL) == present for _, pod in pods)
    tell(
        store,
        key,
        replicas=len(_all_pods(store, item)),
        readyReplicas=serving or None,
        availableReplicas=serving,
        currentReplicas=current or None,
        updatedReplicas=updated or None,
        currentRevision=present,
        updateRevision=newest,
        collisionCount=0,
    )


# DaemonSet -------------------------------------------------------------------------------------


def _replace_some(store: Store, item: Json, digest: str, nodes: int) -> None:
    most = at(item, "spec.updateStrategy.rollingUpdate.maxUnavailable")
    spare = max(1, share(1 if most is None else most, nodes))
    pods = pods_of(store, item)
    spare -= nodes - count_ready(pods)
    for key, pod in sorted(pods, key=lambda one: (ready(one[1]), one[0])):
        if labels_of(pod).get(_LABEL) == digest:
            continue
        if ready(pod) and spare < 1:
            break
        spare -= ready(pod)
        store.mark(key, 30)


def _key_of(pod: Json) -> Key:
    return Key("", "pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
