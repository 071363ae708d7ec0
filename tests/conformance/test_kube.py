"""The fake API server behaves as a real one does: both pass this.

What only a real one can be asked is what makes the fake worth trusting; what only the fake can
do, to misbehave when told to, is no part of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
from tests.conformance.kube import (
    APPLY,
    DEPLOYMENTS,
    MERGE,
    READY,
    STEPS,
    STRATEGIC,
    Bench,
    Json,
    generation,
    pod,
    version,
    workload,
)
from tests.real.kubernetes import Kubernetes, OwnKubernetes

from prunella.testing.kube import FakeCluster

DAEMON_SETS = "apps/v1/daemonsets"
CONFIG_MAPS, PODS, BUDGETS = "v1/configmaps", "v1/pods", "policy/v1/poddisruptionbudgets"
LEASES = "coordination.k8s.io/v1/leases"
LONG_S = 600.0


@pytest.fixture(params=["fake", "real"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        if request.param == "real":
            real: Kubernetes = request.getfixturevalue("kubernetes")
            namespace: str = request.getfixturevalue("namespace")
            yield real_bench(real, session, namespace)
        else:
            yield fake_bench(await stack.enter_async_context(FakeCluster()), session)


def real_bench(real: Kubernetes, session: aiohttp.ClientSession, namespace: str) -> Bench:
    async def forget() -> None:
        if not isinstance(real, OwnKubernetes):
            pytest.skip("no Kubernetes of our own: set KUBEBUILDER_ASSETS")
        await asyncio.to_thread(real.forget_versions)

    headers = {"Authorization": f"Bearer {real.token}"}
    nobody = {"Impersonate-User": "nobody"}
    return Bench(session, real.server, headers, namespace, forget, nobody)


def fake_bench(fake: FakeCluster, session: aiohttp.ClientSession) -> Bench:
    async def forget() -> None:
        fake.expire()

    fake.grace_s = LONG_S
    fake.deny("list", "pods")
    return Bench(session, fake.access.server, {}, "default", forget, {})


def config_map(name: str, **data: str) -> Json:
    return {"metadata": {"name": name, "labels": {"name": name}}, "data": data}


# Objects -------------------------------------------------------------------------------------


async def test_what_is_made_has_an_identity(bench: Bench) -> None:
    made = await bench.make(DEPLOYMENTS, workload())
    meta = made["metadata"]
    assert (meta["name"], meta["namespace"], meta["generation"]) == ("shop", bench.namespace, 1)
    assert meta["uid"]
    assert meta["creationTimestamp"].endswith("Z")
    assert (made["kind"], made["apiVersion"]) == ("Deployment", "apps/v1")
    strategy = made["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "25%"}
    assert made["spec"]["revisionHistoryLimit"] == 10


async def test_what_there_is_is_not_made_again(bench: Bench) -> None:
    await bench.make(DEPLOYMENTS, workload())
    status, refusal = await bench.ask("POST", bench.path(DEPLOYMENTS), workload())
    assert status == 409
    assert refusal["kind"] == "Status"
    assert (refusal["status"], refusal["reason"]) == ("Failure", "AlreadyExists")
    assert refusal["details"] == {"name": "shop", "group": "apps", "kind": "deployments"}
    assert refusal["message"] == 'deployments.apps "shop" already exists'


async def test_a_name_is_found_for_what_has_but_a_beginning(bench: Bench) -> None:
    made = await bench.make(CONFIG_MAPS, {"metadata": {"generateName": "shop-"}})
    name = made["metadata"]["name"]
    assert name.startswith("shop-")
    assert len(name) == len("shop-") + 5


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
async def test_what_is_not_there_is_not_found(bench: Bench, method: str) -> None:
    content = MERGE if method == "PATCH" else "application/json"
    status, refusal = await bench.ask(method, bench.path(DEPLOYMENTS, "none"), {}, content)
    assert (status, refusal["reason"], refusal["code"]) == (404, "NotFound", 404)
    assert refusal["details"] == {"name": "none", "group": "apps", "kind": "deployments"}
    assert refusal["message"] == 'deployments.apps "none" not found'


async def test_a_kind_that_is_not_known_is_not_found(bench: Bench) -> None:
    status, refusal = await bench.ask("GET", bench.path("apps/v1/things"))
    assert (status, refusal["reason"], refusal["details"]) == (404, "NotFound", {})
    assert refusal["message"] == "the server could not find the requested resource"


async def test_a_group_that_is_not_known_has_no_page(bench: Bench) -> None:
    status, answer = await bench.ask("GET", bench.path("example.dev/v1/things"))
    assert (status, answer) == (404, {"text": "404 page not found\n"})


async def test_nothing_is_made_where_there_is_no_namespace(bench: Bench) -> None:
    path = "/api/v1/namespaces/none-such/configmaps"
    status, refusal = await bench.ask("POST", path, config_map("a"))
    assert (status, refusal["reason"]) == (404, "NotFound")
    assert refusal["details"]["kind"] == "namespaces"


async def test_one_counter_counts_the_changes_of_all_kinds(bench: Bench) -> None:
    first = await bench.make(CONFIG_MAPS, config_map("a"))
    second = await bench.make(DEPLOYMENTS, workload())
    third = await bench.make(CONFIG_MAPS, config_map("b"))
    assert version(first) < version(second) < version(third)


async def test_a_generation_is_of_what_is_wanted(bench: Bench) -> None:
    await bench.make(DEPLOYMENTS, workload())
    path = bench.path(DEPLOYMENTS, "shop")
    labelled = await bench.good("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, MERGE)
    assert generation(labelled) == 1
    wanted = await bench.good("PATCH", path, {"spec": {"replicas": 3}}, MERGE)
    assert generation(wanted) == 2
    assert version(wanted) > version(labelled)
    seen = {"status": {"conditions": [{"type": "Odd", "status": "True"}]}}
    told = await bench.good("PATCH", f"{path}/status", seen, MERGE)
    assert generation(told) == 2


@pytest.mark.parametrize(
    ("what", "more"), [(DEPLOYMENTS, 1), ("apps/v1/statefulsets", 0), (DAEMON_SETS, 0)]
)
async def test_annotations_are_what_is_wanted_of_a_deployment(
    bench: Bench, what: str, more: int
) -> None:
    body = workload(serviceName="shop") if what.endswith("statefulsets") else workload()
    if what == DAEMON_SETS:
        del body["spec"]["replicas"]
    await bench.make(what, body)
    notes = {"metadata": {"annotations": {"a": "b"}}}
    assert generation(await bench.good("PATCH", bench.path(what, "shop"), notes, MERGE)) == 1 + more


async def test_a_status_is_only_changed_as_such(bench: Bench) -> None:
    made = await bench.make(PODS, {**pod("a"), "status": {"phase": "Failed"}})
    assert made["status"]["phase"] == "Pending"
    path = bench.path(PODS, "a")
    assert (await bench.good("PATCH", path, READY, MERGE))["status"]["phase"] == "Pending"
    labels = {"metadata": {"labels": {"new": "yes"}}}
    whole = await bench.good("PATCH", f"{path}/status", {**labels, **READY}, MERGE)
    assert whole["status"]["phase"] == "Running"
    assert whole["spec"]["nodeName"] == "nowhere"


async def test_what_changes_nothing_is_no_change(bench: Bench) -> None:
    made = await bench.make(CONFIG_MAPS, config_map("a", x="1"))
    same = await bench.good("PATCH", bench.path(CONFIG_MAPS, "a"), {"data": {"x": "1"}}, MERGE)
    assert version(same) == version(made)


# Conflicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_who_has_seen_an_old_version_is_refused(bench: Bench, method: str) -> None:
    old = await bench.make(CONFIG_MAPS, config_map("a", x="1"))
    path = bench.path(CONFIG_MAPS, "a")
    await bench.good("PATCH", path, {"data": {"x": "2"}}, MERGE)
    content = MERGE if method == "PATCH" else "application/json"
    status, refusal = await bench.ask(method, path, {**old, "data": {"x": "3"}}, content)
    assert (status, refusal["reason"]) == (409, "Conflict")
    assert refusal["message"].startswith("Operation cannot be fulfilled on configmaps")
    assert "the object has been modified" in refusal["message"]
    assert (await bench.read(CONFIG_MAPS, "a"))["data"] == {"x": "2"}


async def test_who_has_seen_the_newest_version_is_not(bench: Bench) -> None:
    made = await bench.make(CONFIG_MAPS, config_map("a", x="1"))
    path = bench.path(CONFIG_MAPS, "a")
    new = await bench.good("PUT", path, {**made, "data": {"x": "2"}})
    assert version(new) > version(made)
    blind = await bench.good("PUT", path, config_map("a", x="3"))
    assert blind["data"] == {"x": "3"}
    assert blind["metadata"]["uid"] == made["metadata"]["uid"]


async def test_one_of_two_gets_the_lease(bench: Bench) -> None:
    lease = await bench.make(LEASES, {"metadata": {"name": "leader"}, "spec": {}})
    path = bench.path(LEASES, "leader")
    bids = [{**lease, "spec": {"holderIdentity": name}} for name in ("a", "b", "c")]
    answers = await asyncio.gather(*(bench.ask("PUT", path, bid) for bid in bids))
    assert sorted(status for status, _ in answers) == [200, 409, 409]


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
async def test_what_is_deleted_is_what_was_meant(bench: Bench, field: str) -> None:
    made = await bench.make(CONFIG_MAPS, config_map("a"))
    path = bench.path(CONFIG_MAPS, "a")
    wrong = {"preconditions": {field: "1"}}
    status, refusal = await bench.ask("DELETE", path, wrong)
    assert (status, refusal["reason"]) == (409, "Conflict")
    await bench.good("DELETE", path, {"preconditions": {field: made["metadata"][field]}})
    assert (await bench.ask("GET", path))[0] == 404


# Patches -------------------------------------------------------------------------------------


async def test_steps_are_taken_where_their_tests_hold(bench: Bench) -> None:
    made = await bench.make(DEPLOYMENTS, workload())
    path = bench.path(DEPLOYMENTS, "shop")
    steps = [
        {"op": "test", "path": "/metadata/generation", "value": 1},
        {"op": "test", "path": "/metadata/uid", "value": made["metadata"]["uid"]},
        {"op": "replace", "path": "/spec/replicas", "value": 2},
        {"op": "add", "path": "/metadata/annotations", "value": {"a.dev/b": "c"}},
        {"op": "replace", "path": "/metadata/annotations/a.dev~1b", "value": "d"},
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "shop:2"},
    ]
    new = await bench.good("PATCH", path, steps, STEPS)
    assert new["spec"]["replicas"] == 2
    assert new["metadata"]["annotations"]["a.dev/b"] == "d"
    assert new["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:2"


@pytest.mark.parametrize(
    "step",
    [
        {"op": "test", "path": "/metadata/generation", "value": 7},
        {"op": "test", "path": "/metadata/annotations/none", "value": "x"},
        {"op": "replace", "path": "/metadata/annotations/none", "value": "x"},
        {"op": "remove", "path": "/spec/none"},
    ],
    ids=["another value", "no value", "nothing to replace", "nothing to remove"],
)
async def test_no_step_is_taken_where_one_cannot_be(bench: Bench, step: Json) -> None:
    await bench.make(DEPLOYMENTS, workload())
    path = bench.path(DEPLOYMENTS, "shop")
    steps = [{"op": "replace", "path": "/spec/replicas", "value": 9}, step]
    status, refusal = await bench.ask("PATCH", path, steps, STEPS)
    assert (status, refusal["reason"]) == (422, "Invalid")
    assert (await bench.read(DEPLOYMENTS, "shop"))["spec"]["replicas"] == 1


async def test_a_test_for_null_holds_where_there_is_nothing(bench: Bench) -> None:
    await bench.make(CONFIG_MAPS, config_map("a", x="1"))
    steps = [
        {"op": "test", "path": "/metadata/annotations", "value": None},
        {"op": "add", "path": "/data/y", "value": "2"},
    ]
    new = await bench.good("PATCH", bench.path(CONFIG_MAPS, "a"), steps, STEPS)
    assert new["data"] == {"x": "1", "y": "2"}


async def test_a_merge_removes_what_is_null(bench: Bench) -> None:
    await bench.make(CONFIG_MAPS, config_map("a", x="1", y="2"))
    patch = {"data": {"x": None, "z": "3"}}
    new = await bench.good("PATCH", bench.path(CONFIG_MAPS, "a"), patch, MERGE)
    assert new["data"] == {"y": "2", "z": "3"}


async def test_a_strategic_merge_knows_containers_by_name(bench: Bench) -> None:
    await bench.make(DEPLOYMENTS, workload())
    containers = [{"name": "web", "image": "shop:2"}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    new = await bench.good("PATCH", bench.path(DEPLOYMENTS, "shop"), patch, STRATEGIC)
    [container] = new["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("shop:2", "Never")


async def test_other_ways_to_patch_are_refused(bench: Bench) -> None:
    await bench.make(CONFIG_MAPS, config_map("a"))
    status, refusal = await bench.ask("PATCH", bench.path(CONFIG_MAPS, "a"), {}, "text/plain")
    assert (status, refusal["reason"]) == (415, "UnsupportedMediaType")


async def test_what_is_no_json_is_refused(bench: Bench) -> None:
    status, refusal = await bench.ask("POST", bench.path(CONFIG_MAPS), b"{")
    assert (status, refusal["reason"]) == (400, "BadRequest")


async def apply(bench: Bench, manager: str, value: str, more: str = "") -> tuple[int, Json]:
    body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map("a", x=value)}
    path = bench.path(CONFIG_MAPS, "a")
    return await bench.ask("PATCH", f"{path}?fieldManager={manager}{more}", body, APPLY)


async def test_what_is_applied_belongs_to_its_manager(bench: Bench) -> None:
    assert (await apply(bench, "one", "1"))[0] == 201
    assert (await apply(bench, "one", "2"))[0] == 200
    status, refusal = await apply(bench, "two", "3")
    assert (status, refusal["reason"]) == (409, "Conflict")
    [cause] = refusal["details"]["causes"]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".data.x")
    assert 'conflict with "one"' in cause["message"]
    status, forced = await apply(bench, "two", "3", "&force=true")
    assert (status, forced["data"]) == (200, {"x": "3"})
    assert (await apply(bench, "one", "4"))[0] == 409
    assert (await apply(bench, "one", "3"))[0] == 200  # of one mind: both own it


async def test_what_is_not_applied_any_more_goes(bench: Bench) -> None:
    await apply(bench, "one", "1")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"y": "2"}}
    path = f"{bench.path(CONFIG_MAPS, 'a')}?fieldManager=one"
    assert (await bench.good("PATCH", path, body, APPLY))["data"] == {"y": "2"}


async def test_who_applies_says_who_it_is(bench: Bench) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map("a")}
    status, refusal = await bench.ask("PATCH", bench.path(CONFIG_MAPS, "a"), body, APPLY)
    assert status in {400, 422}
    assert "fieldManager" in refusal["message"]


# Lists and watches ---------------------------------------------------------------------------


async def test_a_list_can_be_had_in_pages(bench: Bench) -> None:
    for number in range(5):
        await bench.make(CONFIG_MAPS, {**config_map(f"page-{number}")})
    query, names, versions = "?labelSelector=name&limit=2", [], set()
    token = ""
    while True:
        page = await bench.good("GET", f"{bench.path(CONFIG_MAPS)}{query}{token}")
        names += [one["metadata"]["name"] for one in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        assert len(page["items"]) <= 2
        if not page["metadata"].get("continue"):
            break
        await bench.make(CONFIG_MAPS, config_map(f"later-{len(names)}"))
        token = f"&continue={page['metadata']['continue']}"
    assert names == [f"page-{number}" for number in range(5)]
    assert len(versions) == 1


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("labelSelector=name%3Da", {"a"}),
        ("labelSelector=name!%3Da,name", {"b", "c"}),
        ("labelSelector=name+in+(a,b)", {"a", "b"}),
        ("labelSelector=name+notin+(a,b),name", {"c"}),
        ("fieldSelector=metadata.name%3Db", {"b"}),
        ("labelSelector=none", set()),
    ],
)
async def test_a_list_is_of_what_is_selected(bench: Bench, query: str, names: set[str]) -> None:
    for name in ("a", "b", "c"):
        await bench.make(CONFIG_MAPS, config_map(name))
    found = await bench.items(CONFIG_MAPS, f"?{query}")
    assert {one["metadata"]["name"] for one in found} == names


async def test_not_every_field_selects(bench: Bench) -> None:
    status, refusal = await bench.ask("GET", f"{bench.path(CONFIG_MAPS)}?fieldSelector=data.x%3D1")
    assert (status, refusal["reason"]) == (400, "BadRequest")


async def test_a_watch_tells_all_in_order(bench: Bench) -> None:
    listed = await bench.good("GET", bench.path(CONFIG_MAPS))
    start = listed["metadata"]["resourceVersion"]
    path = bench.path(CONFIG_MAPS, "a")
    await bench.make(CONFIG_MAPS, config_map("a"))
    async with bench.watch(CONFIG_MAPS, f"resourceVersion={start}") as watch:
        assert await watch.told() == ("ADDED", "a")
        await bench.good("PATCH", path, {"data": {"x": "1"}}, MERGE)
        await bench.make(CONFIG_MAPS, config_map("b"))
        await bench.good("PATCH", path, {"data": {"x": "2"}}, MERGE)
        last = await bench.read(CONFIG_MAPS, "a")
        await bench.good("DELETE", path)
        events = [await watch.next() for _ in range(4)]
    told = [(one["type"], one["object"]["metadata"]["name"]) for one in events]
    assert told == [("MODIFIED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert [one["object"].get("data") for one in events if one["type"] == "MODIFIED"] == [
        {"x": "1"},
        {"x": "2"},
    ]
    versions = [version(one["object"]) for one in events]
    assert versions == sorted(set(versions))
    assert versions[-1] > version(last)  # that of its end, and not its own


async def test_a_watch_from_nowhere_begins_with_what_there_is(bench: Bench) -> None:
    await bench.make(CONFIG_MAPS, config_map("a"))
    async with bench.watch(CONFIG_MAPS, "labelSelector=name") as watch:
        assert await watch.told() == ("ADDED", "a")


async def test_a_watch_tells_what_its_selector_no_longer_means(bench: Bench) -> None:
    made = await bench.make(CONFIG_MAPS, config_map("a"))
    path = bench.path(CONFIG_MAPS, "a")
    query = f"labelSelector=name%3Da&resourceVersion={version(made)}"
    async with bench.watch(CONFIG_MAPS, query) as watch:
        await bench.good("PATCH", path, {"metadata": {"labels": {"name": "z"}}}, MERGE)
        assert await watch.told() == ("DELETED", "a")
        await bench.good("PATCH", path, {"metadata": {"labels": {"name": "a"}}}, MERGE)
        assert await watch.told() == ("ADDED", "a")


async def test_a_watch_says_how_far_it_has_come_and_ends(bench: Bench) -> None:
    made = await bench.make(CONFIG_MAPS, config_map("a"))
    other = await bench.make(DEPLOYMENTS, workload())
    query = "allowWatchBookmarks=true&timeoutSeconds=4&labelSelector=none"
    async with bench.watch(CONFIG_MAPS, f"{query}&resourceVersion={version(made)}") as watch:
        event = await watch.next()
        assert event["type"] == "BOOKMARK"
        assert version(event["object"]) >= version(made)
        assert event["object"]["kind"] == "ConfigMap"
        while event:
            event = await watch.next()
    assert version(other) > version(made)


async def test_a_watch_that_does_not_want_bookmarks_has_none(bench: Bench) -> None:
    made = await bench.make(CONFIG_MAPS, config_map("a"))
    query = f"timeoutSeconds=3&resourceVersion={version(made)}"
    async with bench.watch(CONFIG_MAPS, query) as watch:
        assert await watch.next() == {}


async def test_what_is_forgotten_is_not_watched_or_listed(bench: Bench) -> None:
    """A list is answered with 410; a watch with 200, and 410 as the only event."""
    made = await bench.make(CONFIG_MAPS, config_map("a"))
    await bench.make(CONFIG_MAPS, config_map("b"))
    page = await bench.good("GET", f"{bench.path(CONFIG_MAPS)}?limit=1")
    await bench.good("PATCH", bench.path(CONFIG_MAPS, "a"), {"data": {"x": "1"}}, MERGE)
    await bench.forget()
    token = page["metadata"]["continue"]
    status, refusal = await bench.ask("GET", f"{bench.path(CONFIG_MAPS)}?limit=1&continue={token}")
    assert (status, refusal["reason"]) == (410, "Expired")
    async with bench.watch(CONFIG_MAPS, f"resourceVersion={version(made)}") as watch:
        event = await watch.next()
        assert (watch.answer.status, event["type"]) == (200, "ERROR")
        refusal = event["object"]
        assert (refusal["kind"], refusal["code"]) == ("Status", 410)
        assert refusal["reason"] == "Expired"
        assert "too old resource version" in refusal["message"]
        assert await watch.next() == {}
    listed = await bench.good("GET", bench.path(CONFIG_MAPS))
    start = listed["metadata"]["resourceVersion"]
    async with bench.watch(CONFIG_MAPS, f"resourceVersion={start}") as watch:
        await bench.make(CONFIG_MAPS, config_map("c"))
        assert await watch.told() == ("ADDED", "c")


# Subresources --------------------------------------------------------------------------------


async def test_a_scale_is_a_part_of_its_object(bench: Bench) -> None:
    await bench.make(DEPLOYMENTS, workload())
    path = bench.path(DEPLOYMENTS, "shop") + "/scale"
    scale = await bench.good("GET", path)
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert (scale["spec"], scale["status"]["selector"]) == ({"replicas": 1}, "app=shop")
    scale = await bench.good("PATCH", path, {"spec": {"replicas": 3}}, MERGE)
    assert scale["spec"] == {"replicas": 3}
    whole = await bench.read(DEPLOYMENTS, "shop")
    assert (whole["spec"]["replicas"], generation(whole)) == (3, 2)


async def test_a_scale_that_was_seen_before_a_change_is_refused(bench: Bench) -> None:
    await bench.make(DEPLOYMENTS, workload())
    path = bench.path(DEPLOYMENTS, "shop")
    scale = await bench.good("GET", f"{path}/scale")
    await bench.good("PATCH", path, {"spec": {"replicas": 2}}, MERGE)
    status, refusal = await bench.ask("PUT", f"{path}/scale", {**scale, "spec": {"replicas": 5}})
    assert (status, refusal["reason"]) == (409, "Conflict")
    steps = [
        {"op": "test", "path": "/spec/replicas", "value": 1},
        {"op": "replace", "path": "/spec/replicas", "value": 5},
    ]
    assert (await bench.ask("PATCH", f"{path}/scale", steps, STEPS))[0] == 422
    assert (await bench.read(DEPLOYMENTS, "shop"))["spec"]["replicas"] == 2


async def test_a_pod_stays_for_its_grace(bench: Bench) -> None:
    made = await bench.make(PODS, pod("a"))
    path = bench.path(PODS, "a")
    async with bench.watch(PODS, f"resourceVersion={version(made)}") as watch:
        marked = await bench.good("DELETE", path, {"gracePeriodSeconds": 20})
        assert marked["metadata"]["deletionTimestamp"]
        assert marked["metadata"]["deletionGracePeriodSeconds"] == 20
        assert (await bench.read(PODS, "a"))["metadata"]["deletionTimestamp"]
        await bench.good("DELETE", path, {"gracePeriodSeconds": 0})
        told = await watch.told()
        while told[0] == "MODIFIED":
            told = await watch.told()
        assert told == ("DELETED", "a")
    assert (await bench.ask("GET", path))[0] == 404


async def evict(bench: Bench, name: str, options: Json | None = None) -> tuple[int, Json]:
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name},
        **({"deleteOptions": options} if options else {}),
    }
    return await bench.ask("POST", bench.path(PODS, name) + "/eviction", body)


async def test_a_pod_is_evicted_where_no_budget_forbids(bench: Bench) -> None:
    made = await bench.make(PODS, pod("a"))
    await bench.good("PATCH", bench.path(PODS, "a") + "/status", READY, MERGE)
    status, refusal = await evict(bench, "a", {"preconditions": {"uid": "another"}})
    assert (status, refusal["reason"]) == (409, "Conflict")
    status, answer = await evict(bench, "a", {"preconditions": {"uid": made["metadata"]["uid"]}})
    assert (status, answer["kind"], answer["status"]) == (201, "Status", "Success")
    assert "deletionTimestamp" in (await bench.read(PODS, "a"))["metadata"]
    assert (await evict(bench, "none"))[0] == 404


async def test_a_budget_forbids_an_eviction(bench: Bench) -> None:
    selector = {"matchLabels": {"app": "shop"}}
    body = {"metadata": {"name": "all"}, "spec": {"minAvailable": 1, "selector": selector}}
    await bench.make(PODS, pod("a"))
    await bench.good("PATCH", bench.path(PODS, "a") + "/status", READY, MERGE)
    await bench.make(BUDGETS, body)
    words = "The disruption budget all needs 1 healthy pods and has 1 currently"

    async def refused() -> bool:
        status, refusal = await evict(bench, "a")
        assert (status, refusal["reason"]) == (429, "TooManyRequests"), refusal
        [cause] = refusal["details"]["causes"]
        assert cause["reason"] == "DisruptionBudget"
        assert refusal["message"].startswith("Cannot evict pod as it would violate")
        return bool(cause["message"] == words)

    await bench.until(refused)
    assert "deletionTimestamp" not in (await bench.read(PODS, "a"))["metadata"]
    await bench.make(PODS, pod("b"))
    await bench.good("PATCH", bench.path(PODS, "b") + "/status", READY, MERGE)

    async def granted() -> bool:
        return (await evict(bench, "a"))[0] == 201

    await bench.until(granted)


# Who may what, and what else there is ----------------------------------------------------------


async def test_who_may_not_is_told_so(bench: Bench) -> None:
    status, refusal = await bench.ask("GET", bench.path(PODS), headers=bench.nobody)
    assert (status, refusal["reason"]) == (403, "Forbidden")
    assert refusal["details"] == {"kind": "pods"}
    assert refusal["message"].startswith("pods is forbidden: User ")
    assert 'cannot list resource "pods" in API group ""' in refusal["message"]
    assert f'in the namespace "{bench.namespace}"' in refusal["message"]


async def test_one_can_ask_what_one_may(bench: Bench) -> None:
    attributes = {"namespace": bench.namespace, "verb": "list", "resource": "pods"}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    status, answer = await bench.ask("POST", path, body, headers=bench.nobody)
    assert (status, answer["status"]["allowed"]) == (201, False)
    attributes["resource"] = "configmaps"
    assert (await bench.ask("POST", path, body))[1]["status"]["allowed"] is True


async def test_a_kind_is_known_once_it_is_defined(bench: Bench) -> None:
    group = f"{bench.namespace}.example.dev"
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
    await bench.good("POST", definitions, body)

    async def made() -> bool:
        return (await bench.ask("POST", bench.path(things), item))[0] == 201

    await bench.until(made)
    path = bench.path(things, "a")
    told = await bench.good("PATCH", f"{path}/status", {"status": {"x": 1}}, MERGE)
    assert (told["status"], generation(told)) == ({"x": 1}, 1)
    wanted = await bench.good("PATCH", path, {"spec": {"y": 2}, "status": {"x": 3}}, MERGE)
    assert (wanted["status"], generation(wanted)) == ({"x": 1}, 2)
    await bench.good("DELETE", f"{definitions}/things.{group}")

    async def gone() -> bool:
        return (await bench.ask("GET", path))[0] == 404

    await bench.until(gone)
