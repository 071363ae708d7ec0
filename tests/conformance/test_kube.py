"""The fake API server behaves as a real one does: objects, conflicts and patches.

What only a real one can be asked is what makes the fake worth trusting; what only the fake can
do, to misbehave when told to, is no part of it.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.conformance.kube import (
    APPLY,
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    MERGE,
    PODS,
    READY,
    STEPS,
    STRATEGIC,
    Api,
    Json,
    config_map,
    generation,
    pod,
    version,
    workload,
)

LEASES = "coordination.k8s.io/v1/leases"

# Objects -------------------------------------------------------------------------------------


async def test_what_is_made_has_an_identity(api: Api) -> None:
    made = await api.make(DEPLOYMENTS, workload())
    meta = made["metadata"]
    assert (meta["name"], meta["namespace"], meta["generation"]) == ("shop", api.namespace, 1)
    assert meta["uid"]
    assert meta["creationTimestamp"].endswith("Z")
    assert (made["kind"], made["apiVersion"]) == ("Deployment", "apps/v1")
    strategy = made["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "25%"}
    assert made["spec"]["revisionHistoryLimit"] == 10


async def test_what_there_is_is_not_made_again(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload())
    status, refusal = await api.ask("POST", api.path(DEPLOYMENTS), workload())
    assert status == 409
    assert refusal["kind"] == "Status"
    assert (refusal["status"], refusal["reason"]) == ("Failure", "AlreadyExists")
    assert refusal["details"] == {"name": "shop", "group": "apps", "kind": "deployments"}
    assert refusal["message"] == 'deployments.apps "shop" already exists'


async def test_a_name_is_found_for_what_has_but_a_beginning(api: Api) -> None:
    made = await api.make(CONFIG_MAPS, {"metadata": {"generateName": "shop-"}})
    name = made["metadata"]["name"]
    assert name.startswith("shop-")
    assert len(name) == len("shop-") + 5


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
async def test_what_is_not_there_is_not_found(api: Api, method: str) -> None:
    content = MERGE if method == "PATCH" else "application/json"
    status, refusal = await api.ask(method, api.path(DEPLOYMENTS, "none"), {}, content)
    assert (status, refusal["reason"], refusal["code"]) == (404, "NotFound", 404)
    assert refusal["details"] == {"name": "none", "group": "apps", "kind": "deployments"}
    assert refusal["message"] == 'deployments.apps "none" not found'


async def test_a_kind_that_is_not_known_is_not_found(api: Api) -> None:
    status, refusal = await api.ask("GET", api.path("apps/v1/things"))
    assert (status, refusal["reason"], refusal["details"]) == (404, "NotFound", {})
    assert refusal["message"] == "the server could not find the requested resource"


async def test_a_group_that_is_not_known_has_no_page(api: Api) -> None:
    status, answer = await api.ask("GET", api.path("example.dev/v1/things"))
    assert (status, answer) == (404, {"text": "404 page not found\n"})


async def test_nothing_is_made_where_there_is_no_namespace(api: Api) -> None:
    path = "/api/v1/namespaces/none-such/configmaps"
    status, refusal = await api.ask("POST", path, config_map("a"))
    assert (status, refusal["reason"]) == (404, "NotFound")
    assert refusal["details"]["kind"] == "namespaces"


async def test_one_counter_counts_the_changes_of_all_kinds(api: Api) -> None:
    first = await api.make(CONFIG_MAPS, config_map("a"))
    second = await api.make(DEPLOYMENTS, workload())
    third = await api.make(CONFIG_MAPS, config_map("b"))
    assert version(first) < version(second) < version(third)


async def test_a_generation_is_of_what_is_wanted(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload())
    path = api.path(DEPLOYMENTS, "shop")
    labelled = await api.good("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, MERGE)
    assert generation(labelled) == 1
    wanted = await api.good("PATCH", path, {"spec": {"replicas": 3}}, MERGE)
    assert generation(wanted) == 2
    assert version(wanted) > version(labelled)
    seen = {"status": {"conditions": [{"type": "Odd", "status": "True"}]}}
    told = await api.good("PATCH", f"{path}/status", seen, MERGE)
    assert generation(told) == 2


@pytest.mark.parametrize(
    ("what", "more"), [(DEPLOYMENTS, 1), ("apps/v1/statefulsets", 0), (DAEMON_SETS, 0)]
)
async def test_annotations_are_what_is_wanted_of_a_deployment(
    api: Api, what: str, more: int
) -> None:
    body = workload(serviceName="shop") if what.endswith("statefulsets") else workload()
    if what == DAEMON_SETS:
        del body["spec"]["replicas"]
    await api.make(what, body)
    notes = {"metadata": {"annotations": {"a": "b"}}}
    assert generation(await api.good("PATCH", api.path(what, "shop"), notes, MERGE)) == 1 + more


async def test_a_status_is_only_changed_as_such(api: Api) -> None:
    made = await api.make(PODS, {**pod("a"), "status": {"phase": "Failed"}})
    assert made["status"]["phase"] == "Pending"
    path = api.path(PODS, "a")
    assert (await api.good("PATCH", path, READY, MERGE))["status"]["phase"] == "Pending"
    labels = {"metadata": {"labels": {"new": "yes"}}}
    whole = await api.good("PATCH", f"{path}/status", {**labels, **READY}, MERGE)
    assert whole["status"]["phase"] == "Running"
    assert whole["spec"]["nodeName"] == "nowhere"


async def test_what_changes_nothing_is_no_change(api: Api) -> None:
    made = await api.make(CONFIG_MAPS, config_map("a", x="1"))
    same = await api.good("PATCH", api.path(CONFIG_MAPS, "a"), {"data": {"x": "1"}}, MERGE)
    assert version(same) == version(made)


# Conflicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_who_has_seen_an_old_version_is_refused(api: Api, method: str) -> None:
    old = await api.make(CONFIG_MAPS, config_map("a", x="1"))
    path = api.path(CONFIG_MAPS, "a")
    await api.good("PATCH", path, {"data": {"x": "2"}}, MERGE)
    content = MERGE if method == "PATCH" else "application/json"
    status, refusal = await api.ask(method, path, {**old, "data": {"x": "3"}}, content)
    assert (status, refusal["reason"]) == (409, "Conflict")
    assert refusal["message"].startswith("Operation cannot be fulfilled on configmaps")
    assert "the object has been modified" in refusal["message"]
    assert (await api.read(CONFIG_MAPS, "a"))["data"] == {"x": "2"}


async def test_who_has_seen_the_newest_version_is_not(api: Api) -> None:
    made = await api.make(CONFIG_MAPS, config_map("a", x="1"))
    path = api.path(CONFIG_MAPS, "a")
    new = await api.good("PUT", path, {**made, "data": {"x": "2"}})
    assert version(new) > version(made)
    blind = await api.good("PUT", path, config_map("a", x="3"))
    assert blind["data"] == {"x": "3"}
    assert blind["metadata"]["uid"] == made["metadata"]["uid"]


async def test_one_of_two_gets_the_lease(api: Api) -> None:
    lease = await api.make(LEASES, {"metadata": {"name": "leader"}, "spec": {}})
    path = api.path(LEASES, "leader")
    bids = [{**lease, "spec": {"holderIdentity": name}} for name in ("a", "b", "c")]
    answers = await asyncio.gather(*(api.ask("PUT", path, bid) for bid in bids))
    assert sorted(status for status, _ in answers) == [200, 409, 409]


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
async def test_what_is_deleted_is_what_was_meant(api: Api, field: str) -> None:
    made = await api.make(CONFIG_MAPS, config_map("a"))
    path = api.path(CONFIG_MAPS, "a")
    wrong = {"preconditions": {field: "1"}}
    status, refusal = await api.ask("DELETE", path, wrong)
    assert (status, refusal["reason"]) == (409, "Conflict")
    await api.good("DELETE", path, {"preconditions": {field: made["metadata"][field]}})
    assert (await api.ask("GET", path))[0] == 404


# Patches -------------------------------------------------------------------------------------


async def test_steps_are_taken_where_their_tests_hold(api: Api) -> None:
    made = await api.make(DEPLOYMENTS, workload())
    path = api.path(DEPLOYMENTS, "shop")
    steps = [
        {"op": "test", "path": "/metadata/generation", "value": 1},
        {"op": "test", "path": "/metadata/uid", "value": made["metadata"]["uid"]},
        {"op": "replace", "path": "/spec/replicas", "value": 2},
        {"op": "add", "path": "/metadata/annotations", "value": {"a.dev/b": "c"}},
        {"op": "replace", "path": "/metadata/annotations/a.dev~1b", "value": "d"},
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "shop:2"},
    ]
    new = await api.good("PATCH", path, steps, STEPS)
    assert new["spec"]["replicas"] == 2
    assert new["metadata"]["annotations"]["a.dev/b"] == "d"
    assert new["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:2"


@pytest.mark.parametrize(
    "step",
    [
        {"op": "test", "path": "/metadata/generation", "value": 7},
        {"op": "test", "path": "/spec/selector/none", "value": "x"},
        {"op": "replace", "path": "/spec/none/none", "value": "x"},
        {"op": "remove", "path": "/spec/none"},
    ],
    ids=["another value", "no value", "nothing to replace", "nothing to remove"],
)
async def test_no_step_is_taken_where_one_cannot_be(api: Api, step: Json) -> None:
    await api.make(DEPLOYMENTS, workload())
    path = api.path(DEPLOYMENTS, "shop")
    steps = [{"op": "replace", "path": "/spec/replicas", "value": 9}, step]
    status, refusal = await api.ask("PATCH", path, steps, STEPS)
    assert (status, refusal["reason"]) == (422, "Invalid")
    assert (await api.read(DEPLOYMENTS, "shop"))["spec"]["replicas"] == 1


async def test_what_is_replaced_need_not_be_there(api: Api) -> None:
    """Other than the RFC says: it guards against nothing."""
    await api.make(CONFIG_MAPS, config_map("a", x="1"))
    steps = [{"op": "replace", "path": "/data/y", "value": "2"}]
    new = await api.good("PATCH", api.path(CONFIG_MAPS, "a"), steps, STEPS)
    assert new["data"] == {"x": "1", "y": "2"}


async def test_a_test_for_null_holds_where_there_is_nothing(api: Api) -> None:
    await api.make(CONFIG_MAPS, config_map("a", x="1"))
    steps = [
        {"op": "test", "path": "/metadata/annotations", "value": None},
        {"op": "add", "path": "/data/y", "value": "2"},
    ]
    new = await api.good("PATCH", api.path(CONFIG_MAPS, "a"), steps, STEPS)
    assert new["data"] == {"x": "1", "y": "2"}


async def test_a_merge_removes_what_is_null(api: Api) -> None:
    await api.make(CONFIG_MAPS, config_map("a", x="1", y="2"))
    patch = {"data": {"x": None, "z": "3"}}
    new = await api.good("PATCH", api.path(CONFIG_MAPS, "a"), patch, MERGE)
    assert new["data"] == {"y": "2", "z": "3"}


async def test_a_strategic_merge_knows_containers_by_name(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload())
    containers = [{"name": "web", "image": "shop:2"}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    new = await api.good("PATCH", api.path(DEPLOYMENTS, "shop"), patch, STRATEGIC)
    [container] = new["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("shop:2", "Never")


async def test_other_ways_to_patch_are_refused(api: Api) -> None:
    await api.make(CONFIG_MAPS, config_map("a"))
    status, refusal = await api.ask("PATCH", api.path(CONFIG_MAPS, "a"), {}, "text/plain")
    assert (status, refusal["reason"]) == (415, "UnsupportedMediaType")


async def test_what_is_no_json_is_refused(api: Api) -> None:
    status, refusal = await api.ask("POST", api.path(CONFIG_MAPS), b"{")
    assert (status, refusal["reason"]) == (400, "BadRequest")


async def apply(api: Api, manager: str, value: str, more: str = "") -> tuple[int, Json]:
    body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map("a", x=value)}
    path = api.path(CONFIG_MAPS, "a")
    return await api.ask("PATCH", f"{path}?fieldManager={manager}{more}", body, APPLY)


async def test_what_is_applied_belongs_to_its_manager(api: Api) -> None:
    assert (await apply(api, "one", "1"))[0] == 201
    assert (await apply(api, "one", "2"))[0] == 200
    status, refusal = await apply(api, "two", "3")
    assert (status, refusal["reason"]) == (409, "Conflict")
    [cause] = refusal["details"]["causes"]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".data.x")
    assert 'conflict with "one"' in cause["message"]
    status, forced = await apply(api, "two", "3", "&force=true")
    assert (status, forced["data"]) == (200, {"x": "3"})
    assert (await apply(api, "one", "4"))[0] == 409
    assert (await apply(api, "one", "3"))[0] == 200  # of one mind: both own it


async def test_what_is_not_applied_any_more_goes(api: Api) -> None:
    await apply(api, "one", "1")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"y": "2"}}
    path = f"{api.path(CONFIG_MAPS, 'a')}?fieldManager=one"
    assert (await api.good("PATCH", path, body, APPLY))["data"] == {"y": "2"}


async def test_who_applies_says_who_it_is(api: Api) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map("a")}
    status, refusal = await api.ask("PATCH", api.path(CONFIG_MAPS, "a"), body, APPLY)
    assert status in {400, 422}
    assert "fieldManager" in refusal["message"]


# What is only rehearsed ------------------------------------------------------------------------


async def test_what_is_rehearsed_is_answered_and_not_done(api: Api) -> None:
    made = await api.make(CONFIG_MAPS, config_map("there", key="1"))
    version_, there = made["metadata"]["resourceVersion"], api.path(CONFIG_MAPS, "there")
    dry = "?dryRun=All"
    async with api.watch(CONFIG_MAPS, f"resourceVersion={version_}") as watch:
        new = await api.good("POST", api.path(CONFIG_MAPS) + dry, config_map("new", key="1"))
        assert new["metadata"]["uid"]
        other = {"data": {"key": "2"}}
        assert (await api.good("PATCH", there + dry, other, MERGE))["data"] == {"key": "2"}
        whole = {**made, **other}
        assert (await api.good("PUT", there + dry, whole))["data"] == {"key": "2"}
        await api.good("DELETE", there + dry)
        await api.good(
            "DELETE", there, {"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]}
        )
        assert await api.read(CONFIG_MAPS, "there") == made
        assert (await api.ask("GET", api.path(CONFIG_MAPS, "new")))[0] == 404
        await api.make(CONFIG_MAPS, config_map("last", key="1"))
        assert await watch.told() == ("ADDED", "last")


async def test_what_would_be_refused_is_refused_in_a_rehearsal(api: Api) -> None:
    await api.make(CONFIG_MAPS, config_map("there", key="1"))
    dry = "?dryRun=All"
    status, refusal = await api.ask(
        "POST", api.path(CONFIG_MAPS) + dry, config_map("there", key="1")
    )
    assert (status, refusal["reason"]) == (409, "AlreadyExists")
    old = {"metadata": {"resourceVersion": "1"}}
    assert (await api.ask("PATCH", api.path(CONFIG_MAPS, "there") + dry, old, MERGE))[0] == 409
    assert (await api.ask("DELETE", api.path(CONFIG_MAPS, "nothing") + dry))[0] == 404
    status, refusal = await api.ask("DELETE", api.path(CONFIG_MAPS, "there") + "?dryRun=Some")
    assert (status, refusal["reason"]) == (422, "Invalid")
    assert 'dryRun: Unsupported value: ["Some"]' in refusal["message"]


async def test_an_eviction_is_rehearsed(api: Api) -> None:
    made = await api.make(PODS, pod("one"))
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "one"},
        "deleteOptions": {"dryRun": ["All"]},
    }
    await api.good("POST", api.path(PODS, "one") + "/eviction", body)
    found = await api.read(PODS, "one")
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    assert "deletionTimestamp" not in found["metadata"]
