"""The fake API server has the subresources, rights and kinds of a real one."""

from __future__ import annotations

from tests.conformance.kube import (
    DEPLOYMENTS,
    MERGE,
    PODS,
    READY,
    STEPS,
    Api,
    Json,
    generation,
    pod,
    version,
    workload,
)

BUDGETS = "policy/v1/poddisruptionbudgets"

# Subresources --------------------------------------------------------------------------------


async def test_a_scale_is_a_part_of_its_object(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload())
    path = api.path(DEPLOYMENTS, "shop") + "/scale"
    scale = await api.good("GET", path)
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert (scale["spec"], scale["status"]["selector"]) == ({"replicas": 1}, "app=shop")
    scale = await api.good("PATCH", path, {"spec": {"replicas": 3}}, MERGE)
    assert scale["spec"] == {"replicas": 3}
    whole = await api.read(DEPLOYMENTS, "shop")
    assert (whole["spec"]["replicas"], generation(whole)) == (3, 2)


async def test_a_scale_that_was_seen_before_a_change_is_refused(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload())
    path = api.path(DEPLOYMENTS, "shop")
    scale = await api.good("GET", f"{path}/scale")
    await api.good("PATCH", path, {"spec": {"replicas": 2}}, MERGE)
    status, refusal = await api.ask("PUT", f"{path}/scale", {**scale, "spec": {"replicas": 5}})
    assert (status, refusal["reason"]) == (409, "Conflict")
    steps = [
        {"op": "test", "path": "/spec/replicas", "value": 1},
        {"op": "replace", "path": "/spec/replicas", "value": 5},
    ]
    assert (await api.ask("PATCH", f"{path}/scale", steps, STEPS))[0] == 422
    assert (await api.read(DEPLOYMENTS, "shop"))["spec"]["replicas"] == 2


async def test_a_pod_stays_for_its_grace(api: Api) -> None:
    made = await api.make(PODS, pod("a"))
    path = api.path(PODS, "a")
    async with api.watch(PODS, f"resourceVersion={version(made)}") as watch:
        marked = await api.good("DELETE", path, {"gracePeriodSeconds": 20})
        assert marked["metadata"]["deletionTimestamp"]
        assert marked["metadata"]["deletionGracePeriodSeconds"] == 20
        assert (await api.read(PODS, "a"))["metadata"]["deletionTimestamp"]
        await api.good("DELETE", path, {"gracePeriodSeconds": 0})
        told = await watch.told()
        while told[0] == "MODIFIED":
            told = await watch.told()
        assert told == ("DELETED", "a")
    assert (await api.ask("GET", path))[0] == 404


async def evict(api: Api, name: str, options: Json | None = None) -> tuple[int, Json]:
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name},
        **({"deleteOptions": options} if options else {}),
    }
    return await api.ask("POST", api.path(PODS, name) + "/eviction", body)


async def test_a_pod_is_evicted_where_no_budget_forbids(api: Api) -> None:
    made = await api.make(PODS, pod("a"))
    await api.good("PATCH", api.path(PODS, "a") + "/status", READY, MERGE)
    status, refusal = await evict(api, "a", {"preconditions": {"uid": "another"}})
    assert (status, refusal["reason"]) == (409, "Conflict")
    status, answer = await evict(api, "a", {"preconditions": {"uid": made["metadata"]["uid"]}})
    assert (status, answer["kind"], answer["status"]) == (201, "Status", "Success")
    assert "deletionTimestamp" in (await api.read(PODS, "a"))["metadata"]
    assert (await evict(api, "none"))[0] == 404


async def test_a_budget_forbids_an_eviction(api: Api) -> None:
    selector = {"matchLabels": {"app": "shop"}}
    body = {"metadata": {"name": "all"}, "spec": {"minAvailable": 1, "selector": selector}}
    await api.make(PODS, pod("a"))
    await api.good("PATCH", api.path(PODS, "a") + "/status", READY, MERGE)
    await api.make(BUDGETS, body)
    words = "The disruption budget all needs 1 healthy pods and has 1 currently"

    async def refused() -> bool:
        status, refusal = await evict(api, "a")
        assert (status, refusal["reason"]) == (429, "TooManyRequests"), refusal
        [cause] = refusal["details"]["causes"]
        assert cause["reason"] == "DisruptionBudget"
        assert refusal["message"].startswith("Cannot evict pod as it would violate")
        return bool(cause["message"] == words)

    await api.until(refused)
    assert "deletionTimestamp" not in (await api.read(PODS, "a"))["metadata"]
    await api.make(PODS, pod("b"))
    await api.good("PATCH", api.path(PODS, "b") + "/status", READY, MERGE)

    async def granted() -> bool:
        return (await evict(api, "a"))[0] == 201

    await api.until(granted)


# Who may what, and what else there is ----------------------------------------------------------


async def test_who_may_not_is_told_so(api: Api) -> None:
    status, refusal = await api.ask("GET", api.path("v1/secrets"), headers=api.nobody)
    assert (status, refusal["reason"]) == (403, "Forbidden")
    assert refusal["details"] == {"kind": "secrets"}
    assert refusal["message"].startswith("secrets is forbidden: User ")
    assert 'cannot list resource "secrets" in API group ""' in refusal["message"]
    assert f'in the namespace "{api.namespace}"' in refusal["message"]


async def test_one_can_ask_what_one_may(api: Api) -> None:
    attributes = {"namespace": api.namespace, "verb": "list", "resource": "secrets"}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    status, answer = await api.ask("POST", path, body, headers=api.nobody)
    assert (status, answer["status"]["allowed"]) == (201, False)
    attributes["resource"] = "configmaps"
    assert (await api.ask("POST", path, body))[1]["status"]["allowed"] is True


async def test_a_kind_is_known_once_it_is_defined(api: Api) -> None:
    group = f"{api.namespace}.example.dev"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    one = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [one],
        },
    }
    things = f"{group}/v1/things"
    item = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {}}
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await api.good("POST", definitions, body)

    async def made() -> bool:
        return (await api.ask("POST", api.path(things), item))[0] == 201

    await api.until(made)
    path = api.path(things, "a")
    told = await api.good("PATCH", f"{path}/status", {"status": {"x": 1}}, MERGE)
    assert (told["status"], generation(told)) == ({"x": 1}, 1)
    wanted = await api.good("PATCH", path, {"spec": {"y": 2}, "status": {"x": 3}}, MERGE)
    assert (wanted["status"], generation(wanted)) == ({"x": 1}, 2)
    await api.good("DELETE", f"{definitions}/things.{group}")

    async def gone() -> bool:
        return (await api.ask("GET", path))[0] == 404

    await api.until(gone)
