"""What a PodDisruptionBudget allows."""

from __future__ import annotations

from prunella.kube.kinds import (
    DAEMON_SET,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    POD,
    REPLICA_SET,
    STATEFUL_SET,
    Json,
)
from prunella.testing._kube_refusals import Key, over_budget
from prunella.testing._kube_select import at, labels_of, parts, selected
from prunella.testing._kube_store import Store

OWNERS = {kind.name: kind for kind in (DEPLOYMENT, REPLICA_SET, STATEFUL_SET, DAEMON_SET)}


def ready(pod: Json) -> bool:
    """Whether it serves, and is not about to go."""
    conditions = parts(pod, "status.conditions")
    found = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return found and "deletionTimestamp" not in pod["metadata"]


def share(value: int | str, whole: int, *, down: bool = False) -> int:
    """A number, or a percentage of `whole`, rounded up where not told otherwise."""
    if isinstance(value, str) and value.endswith("%"):
        part = int(value[:-1]) * whole
        return part // 100 if down else -(-part // 100)
    return int(value)


def disruptions(store: Store, key: Key, budget: Json) -> Json:
    """The status of a budget as it is now."""
    pods = [
        pod
        for _, pod in store.of_kind(POD, key.namespace)
        if selected(at(budget, "spec.selector"), labels_of(pod))
    ]
    healthy = sum(map(ready, pods))
    least, most = at(budget, "spec.minAvailable"), at(budget, "spec.maxUnavailable")
    counted = most is None and not isinstance(least, str)
    expected = len(pods) if counted else _expected(store, pods)
    if most is not None:
        needed = max(0, expected - share(most, expected))
    else:
        needed = share(1 if least is None else least, expected)
    return {
        "currentHealthy": healthy,
        "desiredHealthy": needed,
        "expectedPods": expected,
        "disruptionsAllowed": max(0, healthy - needed),
        "observedGeneration": budget["metadata"].get("generation", 1),
    }


def forbid_eviction(store: Store, key: Key) -> None:
    """Raises: Refused: there is no such pod, or a budget does not allow that it goes now."""
    pod = store.get(key)
    if "deletionTimestamp" in pod["metadata"] or at(pod, "status.phase") != "Running":
        return  # it serves nobody, whatever a budget says
    for budget_key, budget in store.of_kind(DISRUPTION_BUDGET, key.namespace):
        if not selected(at(budget, "spec.selector"), labels_of(pod)):
            continue
        status = disruptions(store, budget_key, budget)
        needed, healthy = status["desiredHealthy"], status["currentHealthy"]
        always = at(budget, "spec.unhealthyPodEvictionPolicy") == "AlwaysAllow"
        if not ready(pod) and (always or healthy >= needed > 0):
            continue
        if status["disruptionsAllowed"] < 1:
            raise over_budget(key, budget_key.name, needed, healthy)


def _expected(store: Store, pods: list[Json]) -> int:
    """As many as those want who look after the pods in the end, and each that nobody does."""
    tops = [_top(store, pod) for pod in pods]
    wanted = {one["metadata"]["uid"]: int(at(one, "spec.replicas") or 1) for one in tops}
    return sum(wanted.values())


def _top(store: Store, item: Json) -> Json:
    for one in parts(item, "metadata.ownerReferences"):
        kind = OWNERS.get(one["kind"]) if one.get("controller") else None
        if kind is not None:
            key = Key(kind.group, kind.plural, item["metadata"]["namespace"], one["name"])
            if key in store.objects:
                return _top(store, store.objects[key])
    return item
