"""What a PodDisruptionBudget allows."""

from __future__ import annotations

from prunella.kube.kinds import DISRUPTION_BUDGET, POD, Json
from prunella.testing._kube_refusals import Key, over_budget
from prunella.testing._kube_select import at, labels_of, parts, selected
from prunella.testing._kube_store import Store


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
    healthy, expected = sum(map(ready, pods)), _expected(store, pods)
    least, most = at(budget, "spec.minAvailable"), at(budget, "spec.maxUnavailable")
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
    """As many as their controllers want, and each that has none."""
    wanted: dict[str, int] = {}
    for pod in pods:
        owners = [one for one in parts(pod, "metadata.ownerReferences") if one["controller"]]
        owner = owners[0] if owners else None
        uid = owner["uid"] if owner else pod["metadata"]["uid"]
        wanted.setdefault(uid, 0)
        wanted[uid] += 1
        if owner is not None:
            found = [
                one["spec"]["replicas"]
                for place, one in store.objects.items()
                if place.namespace == pod["metadata"]["namespace"]
                and one["metadata"]["uid"] == uid
                and "replicas" in one.get("spec", {})
            ]
            wanted[uid] = found[0] if found else wanted[uid]
    return sum(wanted.values())
