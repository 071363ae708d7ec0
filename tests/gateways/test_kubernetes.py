"""Circuits in the objects of a cluster: the fake one, and a real one where there is one."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.gateways.kube_world import DEFINITIONS, GATE, NOTE, World, eventually
from tests.real.definitions import define, name_of, real
from tests.real.images import Release
from tests.real.kubernetes import Kubernetes, deployment

from prunella.core.model import Epoch, ServiceId
from prunella.core.traffic import OPEN_WIDE, Flow, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.gateways.kubernetes import KubernetesGateway
from prunella.kube.kinds import (
    DEPLOYMENT,
    HTTP_ROUTE,
    POD,
    SERVICE,
    VIRTUAL_SERVICE,
    Json,
)
from prunella.ports import Route
from prunella.runtime.clock import SystemClock
from prunella.testing.kube import FakeCluster

WEB = ServiceId("web")
OPEN = Valve(0)
A_SHUT = Valve(shut=frozenset({"a"}))
# The definition of the Gateway API lets no nonsense in.
IS_STRICT = name_of(HTTP_ROUTE) in real()
LAX = pytest.mark.parametrize("world", ["fake"] if IS_STRICT else ["fake", "real"], indirect=True)
APART = {"group": "", "kind": "Service", "name": "prunella-nothing", "port": 80}


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "fake":
        async with FakeCluster() as fake:
            api = Kubernetes(fake.kubeconfig(tmp_path))
            await asyncio.to_thread(define, api, DEFINITIONS)
            yield World(api, "default", lambda name: f"{name}:1", fake)
        return
    own = request.getfixturevalue("own_kubernetes")
    await asyncio.to_thread(define, own, DEFINITIONS)
    namespace = await asyncio.to_thread(own.namespace)
    one = World(
        own, namespace, lambda name: own.make_image(f"web:{name}", Release(version=name)), own=own
    )
    yield one
    await asyncio.to_thread(own.forget, namespace)


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeCluster() as one:
        yield World(Kubernetes(one.kubeconfig(tmp_path)), "default", lambda name: f"{name}:1", one)


async def gateway_at(
    world: World, tmp_path: Path, *, fallback: str = "", within: str = "10s", **object_: str
) -> KubernetesGateway:
    gateway = world.gateway(tmp_path, timeout=within)
    await gateway.route([Route(WEB, world.route(**object_), fallback=fallback)])
    return gateway


async def flow(gateway: KubernetesGateway) -> Flow:
    return (await gateway.observe())[WEB]


async def turn(
    gateway: KubernetesGateway, valve: Valve, before: Valve, lease_s: float = 60.0
) -> None:
    await gateway.turn(WEB, valve, before=before, lease_s=lease_s, epoch=Epoch(1))


def note(item: Json) -> Any:
    text = item["metadata"].get("annotations", {}).get(NOTE)
    return None if text is None else json.loads(text)


async def past(ours: Any) -> None:
    """Until what is noted is past its lease."""
    end = datetime.fromisoformat(ours["until"])

    async def over() -> bool:
        return SystemClock().wall() > end

    await eventually(over)


def http_route(**more: Any) -> Json:
    refs = [
        {"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 3},
        {"group": "", "kind": "Service", "name": "web-next", "port": 80, "weight": 1},
    ]
    rules = [
        {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": refs},
        {"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]},
        {"backendRefs": [{"name": "web", "port": 80}]},
    ]
    return {"metadata": {"name": "web"}, "spec": {"rules": rules} | more}


def virtual_service() -> Json:
    delay = {"percentage": {"value": 5}, "fixedDelay": "1s"}
    http = [
        {"route": [{"destination": {"host": "web"}}], "fault": {"delay": delay}},
        {"route": [{"destination": {"host": "other"}}]},
        {"route": [{"destination": {"host": "web", "subset": "next"}}]},
    ]
    return {"metadata": {"name": "web"}, "spec": {"hosts": ["web"], "http": http}}


# What is set, and how it is taken back -----------------------------------------------------------


async def test_a_service_gets_no_request_and_is_restored_exactly(
    world: World, tmp_path: Path
) -> None:
    await world.make_service()
    await world.make_pod("a", gated=False)
    await world.able("a")
    gateway = await gateway_at(world, tmp_path, service="web")
    before = await world.get(SERVICE, "web")
    assert await flow(gateway)
    await turn(gateway, OPEN, OPEN_WIDE)
    assert await world.endpoints() == {}
    held = await world.get(SERVICE, "web")
    assert note(held)["before"] == before["spec"]["selector"]
    assert note(held)["owner"] == "web"
    assert (await flow(gateway)).valve == OPEN
    await turn(gateway, OPEN_WIDE, OPEN)
    assert [*await world.endpoints()] == ["a"]
    after = await world.get(SERVICE, "web")
    assert after["spec"] == before["spec"]
    assert note(after) is None
    await gateway.close()


@pytest.mark.parametrize("fallback", ["", "spare:8080"])
async def test_the_weights_of_a_route_are_moved_and_restored_exactly(
    world: World, tmp_path: Path, fallback: str
) -> None:
    await world.create(HTTP_ROUTE, http_route())
    gateway = await gateway_at(world, tmp_path, http_route="web", fallback=fallback)
    before = await world.get(HTTP_ROUTE, "web")
    apart = {**APART, "name": "spare", "port": 8080} if fallback else APART
    present = OPEN_WIDE
    for share, weights in ((10, ([3, 1, 36], [1, 9])), (0, ([0, 0, 1], [0, 1])), (50, None)):
        await turn(gateway, Valve(share), present)
        present = Valve(share)
        assert (await flow(gateway)).valve == present
        rules = (await world.get(HTTP_ROUTE, "web"))["spec"]["rules"]
        if weights is not None:
            found = [[ref["weight"] for ref in rules[n]["backendRefs"]] for n in (0, 2)]
            assert tuple(found) == weights
        kept = {name: v for name, v in rules[0]["backendRefs"][-1].items() if name != "weight"}
        assert kept == apart
        assert rules[1] == before["spec"]["rules"][1]
    await turn(gateway, OPEN_WIDE, present)
    after = await world.get(HTTP_ROUTE, "web")
    assert after["spec"] == before["spec"]
    assert note(after) is None
    await gateway.close()


async def test_istio_answers_a_part_itself_and_other_faults_stay(
    world: World, tmp_path: Path
) -> None:
    await world.create(VIRTUAL_SERVICE, virtual_service())
    gateway = await gateway_at(world, tmp_path, virtual_service="web", destination="web")
    before = await world.get(VIRTUAL_SERVICE, "web")
    present = OPEN_WIDE
    for share in (50, 0, 10):
        await turn(gateway, Valve(share), present)
        present = Valve(share)
        assert (await flow(gateway)).valve == present
        http = (await world.get(VIRTUAL_SERVICE, "web"))["spec"]["http"]
        abort = {"httpStatus": 503, "percentage": {"value": 100 - share}}
        assert http[0]["fault"] == {**before["spec"]["http"][0]["fault"], "abort": abort}
        assert http[1] == before["spec"]["http"][1]
        assert http[2]["fault"] == {"abort": abort}
    await turn(gateway, OPEN_WIDE, present)
    after = await world.get(VIRTUAL_SERVICE, "web")
    assert after["spec"] == before["spec"]
    assert note(after) is None
    await gateway.close()


# Single pods -------------------------------------------------------------------------------------


async def test_a_new_pod_with_the_gate_is_let_in_and_shut_without_its_end(
    world: World, tmp_path: Path
) -> None:
    await world.make_service()
    for name in ("a", "b"):
        await world.make_pod(name, gated=True)
    gateway = await gateway_at(world, tmp_path, service="web")
    await gateway.observe()

    async def both() -> bool:
        return {*await world.endpoints()} == {"a", "b"}

    await eventually(both)
    await turn(gateway, A_SHUT, OPEN_WIDE)
    assert [*await world.endpoints()] == ["b"]
    assert note(await world.get(POD, "a"))["owner"] == "web"
    found = await flow(gateway)
    assert found.valve == A_SHUT
    assert [server.name for server in found.servers if server.up] == ["a", "b"]
    await turn(gateway, OPEN_WIDE, A_SHUT)
    assert {*await world.endpoints()} == {"a", "b"}
    assert note(await world.get(POD, "a")) is None
    await gateway.close()


async def test_a_label_that_only_the_service_asks_for_takes_a_pod_out(
    world: World, tmp_path: Path
) -> None:
    await world.make_service()
    body = deployment("shop", world.image("a"))
    body["spec"]["selector"]["matchLabels"] = {"part": "shop"}
    body["spec"]["template"]["metadata"]["labels"] = {"app": "web", "part": "shop"}
    await world.create(DEPLOYMENT, body)

    async def both() -> bool:
        return len(await world.endpoints()) == 2

    await eventually(both)
    gateway = await gateway_at(world, tmp_path, service="web")
    await gateway.observe()
    victim, other = sorted(await world.endpoints())
    before = await world.get(POD, victim)
    shut = Valve(shut=frozenset({victim}))
    await turn(gateway, shut, OPEN_WIDE)
    assert [*await world.endpoints()] == [other]
    held = await world.get(POD, victim)
    assert note(held)["before"] == {"app": "web"}
    assert held["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]
    found = await flow(gateway)
    assert found.valve == shut
    assert {server.name for server in found.servers} == {victim, other}  # and no third one
    await turn(gateway, OPEN_WIDE, shut)
    after = await world.get(POD, victim)
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert note(after) is None
    assert {*await world.endpoints()} == {victim, other}
    await gateway.close()


async def test_where_nothing_can_shut_a_pod_it_says_what_to_add(
    world: World, tmp_path: Path
) -> None:
    await world.make_service(selector={"app": "shop"})
    await world.create(DEPLOYMENT, deployment("shop", world.image("a")))

    async def both() -> bool:
        return len(await world.endpoints()) == 2

    await eventually(both)
    gateway = await gateway_at(world, tmp_path, service="web")
    await gateway.observe()
    victim = min(await world.endpoints())
    before = await world.get(POD, victim)
    service = await world.get(SERVICE, "web")
    with pytest.raises(PermanentError, match=GATE):
        await turn(gateway, Valve(0, frozenset({victim})), OPEN_WIDE)
    assert (await world.get(POD, victim))["metadata"]["labels"] == before["metadata"]["labels"]
    assert (await world.get(SERVICE, "web"))["spec"] == service["spec"]
    assert len(await world.endpoints()) == 2
    remarks = await gateway.examine()
    assert any(GATE in one.message and not one.fault for one in remarks)
    assert not any(one.fault for one in remarks)
    await gateway.close()


# Others ------------------------------------------------------------------------------------------


async def test_weights_that_somebody_else_has_set_meanwhile_are_theirs(
    world: World, tmp_path: Path
) -> None:
    before = (await world.create(HTTP_ROUTE, http_route()))["spec"]
    gateway = await gateway_at(world, tmp_path, http_route="web")
    await gateway.observe()
    await turn(gateway, Valve(50), OPEN_WIDE)
    spec = (await world.get(HTTP_ROUTE, "web"))["spec"]
    theirs = copy.deepcopy(spec)
    theirs["rules"][0]["backendRefs"][0]["port"] = 81
    await world.merge(HTTP_ROUTE, "web", {"spec": theirs})
    with pytest.raises(ConflictError):
        await turn(gateway, OPEN_WIDE, Valve(50))
    assert (await world.get(HTTP_ROUTE, "web"))["spec"] == theirs
    assert any("by hand" in one.message for one in await gateway.examine())
    await world.merge(HTTP_ROUTE, "web", {"spec": before})

    async def closed() -> bool:
        return (await flow(gateway)).valve == OPEN_WIDE

    await eventually(closed)  # and what we noted is no hindrance
    await turn(gateway, OPEN, OPEN_WIDE)
    await turn(gateway, OPEN_WIDE, OPEN)
    assert (await world.get(HTTP_ROUTE, "web"))["spec"] == before
    await gateway.close()


async def test_a_selector_that_somebody_has_extended_meanwhile_stays_so(
    world: World, tmp_path: Path
) -> None:
    await world.make_service()
    gateway = await gateway_at(world, tmp_path, service="web")
    await gateway.observe()
    await turn(gateway, OPEN, OPEN_WIDE)
    await world.merge(SERVICE, "web", {"spec": {"selector": {"tier": "front"}}})
    await turn(gateway, OPEN_WIDE, OPEN)
    found = (await world.get(SERVICE, "web"))["spec"]["selector"]
    assert found == {"app": "web", "part": "shop", "tier": "front"}
    await gateway.close()


async def test_an_object_made_anew_is_not_ours(world: World, tmp_path: Path) -> None:
    await world.create(HTTP_ROUTE, http_route())
    gateway = await gateway_at(world, tmp_path, http_route="web")
    await gateway.observe()
    await turn(gateway, OPEN, OPEN_WIDE)
    await world.call("DELETE", HTTP_ROUTE, "web")

    async def gone() -> bool:
        return WEB not in await gateway.observe()

    await eventually(gone)
    with pytest.raises(PermanentError):
        await turn(gateway, OPEN_WIDE, OPEN)
    made = await world.create(HTTP_ROUTE, http_route())

    async def back() -> bool:
        return WEB in await gateway.observe()

    await eventually(back)
    assert (await flow(gateway)).valve == OPEN_WIDE
    await turn(gateway, OPEN_WIDE, OPEN)  # so already
    assert (await world.get(HTTP_ROUTE, "web"))["spec"] == made["spec"]
    await gateway.close()


async def test_what_has_expired_is_closed_by_the_next_start(world: World, tmp_path: Path) -> None:
    await world.make_service()
    for name in ("a", "b"):
        await world.make_pod(name, gated=True)
    gateway = await gateway_at(world, tmp_path, service="web")
    await gateway.observe()

    async def both() -> bool:
        return {*await world.endpoints()} == {"a", "b"}

    await eventually(both)
    before = await world.get(SERVICE, "web")
    await turn(gateway, Valve(0, frozenset({"a"})), OPEN_WIDE, lease_s=0.0)
    await gateway.close()
    again = await gateway_at(world, tmp_path, service="web")

    async def closed() -> bool:
        return (await flow(again)).valve == OPEN_WIDE

    await eventually(closed)
    assert (await world.get(SERVICE, "web"))["spec"] == before["spec"]
    await eventually(both)
    await again.close()


async def test_what_has_not_expired_stays_open_and_its_lease_begins_anew(
    world: World, tmp_path: Path
) -> None:
    made = await world.create(HTTP_ROUTE, http_route())
    gateway = await gateway_at(world, tmp_path, http_route="web")
    await turn(gateway, OPEN, OPEN_WIDE, lease_s=60)
    first = note(await world.get(HTTP_ROUTE, "web"))
    await gateway.close()
    again = await gateway_at(world, tmp_path, http_route="web")
    assert (await flow(again)).valve == OPEN
    await turn(again, OPEN, OPEN, lease_s=120)
    second = note(await world.get(HTTP_ROUTE, "web"))
    assert second["until"] > first["until"]
    assert {**second, "until": ""} == {**first, "until": ""}
    await turn(again, OPEN_WIDE, OPEN)
    assert (await world.get(HTTP_ROUTE, "web"))["spec"] == made["spec"]
    await again.close()


async def test_what_is_renewed_while_it_expires_stays_open(world: World, tmp_path: Path) -> None:
    await world.make_service()
    for name in ("a", "b"):
        await world.make_pod(name, gated=True)
    gateway = await gateway_at(world, tmp_path, service="web")
    await gateway.observe()
    await world.able("a", "b")
    closed = Valve(0, frozenset({"a"}))
    await turn(gateway, closed, OPEN_WIDE, lease_s=2.0)
    await past(note(await world.get(SERVICE, "web")))
    await past(note(await world.get(POD, "a")))
    assert (await flow(gateway)).valve == closed  # and it begins to end it
    await turn(gateway, closed, closed, lease_s=60)
    await turn(gateway, closed, closed, lease_s=120)  # whose turn is after the end's
    assert note(await world.get(SERVICE, "web")) is not None
    assert (await flow(gateway)).valve == closed
    await gateway.close()


async def test_what_another_one_has_renewed_unseen_stays_open(fake: World, tmp_path: Path) -> None:
    assert fake.fake is not None
    await fake.make_service()
    await fake.make_pod("a", gated=True)
    gateway = await gateway_at(fake, tmp_path, service="web")
    await gateway.observe()
    await fake.able("a")
    closed = Valve(0, frozenset({"a"}))
    await turn(gateway, closed, OPEN_WIDE, lease_s=2.0)
    fake.fake.skip(2)
    for kind, name in ((SERVICE, "web"), (POD, "a")):
        ours = note(await fake.get(kind, name))
        renewed = json.dumps({**ours, "until": "2999-01-01T00:00:00+00:00"})
        await fake.merge(kind, name, {"metadata": {"annotations": {NOTE: renewed}}})
    await past(ours)
    fake.fake.requests.clear()
    await gateway.observe()

    async def asked() -> bool:
        return ("GET", POD.path("default", "a")) in fake_requests

    fake_requests = fake.fake.requests
    await eventually(asked)
    await turn(gateway, closed, closed)  # whose turn is after the end's
    assert (await flow(gateway)).valve == closed
    await gateway.close()


async def test_it_waits_for_what_implements_a_route(world: World, tmp_path: Path) -> None:
    await world.create(HTTP_ROUTE, http_route())

    async def observe(generation: int) -> None:
        condition = {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": generation,
        }
        parent = {"parentRef": {"name": "door"}, "controllerName": "prunella.dev/door"}
        status = {"parents": [{**parent, "conditions": [condition]}]}
        await world.merge(HTTP_ROUTE, "web", {"status": status}, sub="status")

    generation = (await world.get(HTTP_ROUTE, "web"))["metadata"]["generation"]
    await observe(generation)
    gateway = await gateway_at(world, tmp_path, http_route="web", within="1s")
    with pytest.raises(TransientError, match="not followed"):
        await turn(gateway, OPEN, OPEN_WIDE)
    await gateway.close()
    gateway = await gateway_at(world, tmp_path, http_route="web")
    turning = asyncio.create_task(turn(gateway, Valve(50), OPEN))

    async def set_() -> bool:
        return bool((await world.get(HTTP_ROUTE, "web"))["metadata"]["generation"] > generation + 1)

    await eventually(set_)
    assert not turning.done()
    await observe(generation + 2)
    await turning
    await gateway.close()


# Nonsense and trouble ----------------------------------------------------------------------------


@LAX
@pytest.mark.parametrize(
    "body",
    [
        {"spec": {"rules": 3}},
        {"spec": {"rules": [{"backendRefs": [{"name": "web", "weight": "heavy"}]}]}},
        {"spec": "nothing"},
        {"spec": {"rules": []}},
    ],
)
async def test_nonsense_in_one_object_is_no_trouble_for_others(
    world: World, tmp_path: Path, body: Json
) -> None:
    await world.create(HTTP_ROUTE, {"metadata": {"name": "odd"}, **body})
    await world.create(HTTP_ROUTE, {**http_route(), "status": {"parents": "none"}})
    gateway = world.gateway(tmp_path)
    routes = {WEB: "web", ServiceId("odd"): "odd"}
    await gateway.route([Route(name, world.route(http_route=at)) for name, at in routes.items()])
    assert {*await gateway.observe()} == {WEB}
    await turn(gateway, OPEN, OPEN_WIDE)
    with pytest.raises(TransientError):
        await gateway.turn(ServiceId("odd"), OPEN, before=OPEN_WIDE, lease_s=60, epoch=Epoch(1))
    assert [one.fault for one in await gateway.examine() if one.message.startswith("odd")] == [True]
    await gateway.close()


async def test_a_note_of_nonsense_is_no_note(world: World, tmp_path: Path) -> None:
    await world.make_service()
    gateway = await gateway_at(world, tmp_path, service="web")
    await turn(gateway, OPEN, OPEN_WIDE)
    for text in ("{", "[]", '{"until": 3}', "null", '{"owner": "web", "until": "x"}'):
        await world.merge(SERVICE, "web", {"metadata": {"annotations": {NOTE: text}}})
        assert (await flow(gateway)).valve == OPEN
    await turn(gateway, OPEN_WIDE, OPEN)
    found = await world.get(SERVICE, "web")
    assert found["spec"]["selector"] == {"app": "web", "part": "shop"}
    assert note(found) is None
    await gateway.close()


async def test_an_answer_that_is_lost_is_found_to_have_been_done(
    fake: World, tmp_path: Path
) -> None:
    assert fake.fake is not None
    await fake.make_service()
    gateway = await gateway_at(fake, tmp_path, service="web")
    await gateway.observe()
    fake.fake.lose(1)
    with pytest.raises(TransientError):
        await turn(gateway, OPEN, OPEN_WIDE)
    await turn(gateway, OPEN, OPEN_WIDE)
    assert note(await fake.get(SERVICE, "web"))["before"] == {"app": "web", "part": "shop"}
    await turn(gateway, OPEN_WIDE, OPEN)
    assert (await fake.get(SERVICE, "web"))["spec"]["selector"] == {"app": "web", "part": "shop"}
    await gateway.close()


async def test_a_server_that_is_busy_or_has_forgotten_is_asked_again(
    fake: World, tmp_path: Path
) -> None:
    assert fake.fake is not None
    await fake.make_service()
    gateway = await gateway_at(fake, tmp_path, service="web")
    await gateway.observe()
    fake.fake.throttle(1)
    await turn(gateway, OPEN, OPEN_WIDE)
    fake.fake.expire()
    await turn(gateway, OPEN_WIDE, OPEN)
    assert (await flow(gateway)).valve == OPEN_WIDE
    await gateway.close()


async def test_what_is_read_is_old_and_nothing_is_overwritten(fake: World, tmp_path: Path) -> None:
    assert fake.fake is not None
    await fake.make_service()
    gateway = await gateway_at(fake, tmp_path, service="web")
    await gateway.observe()
    fake.fake.stale()
    await fake.merge(SERVICE, "web", {"spec": {"selector": {"tier": "front"}}})
    with pytest.raises(ConflictError):
        await turn(gateway, OPEN, OPEN_WIDE)
    fake.fake.fresh()
    found = await fake.get(SERVICE, "web")
    assert found["spec"]["selector"] == {"app": "web", "part": "shop", "tier": "front"}
    await gateway.close()


async def test_an_action_takes_few_requests(fake: World, tmp_path: Path) -> None:
    assert fake.fake is not None
    await fake.make_service()
    gateway = await gateway_at(fake, tmp_path, service="web")
    await gateway.observe()
    fake.fake.requests.clear()
    await turn(gateway, OPEN, OPEN_WIDE)
    assert len(fake.fake.requests) <= 5
    await gateway.close()


# Examination -------------------------------------------------------------------------------------


async def remarks_on(gateway: KubernetesGateway) -> list[tuple[bool, str]]:
    return [(one.fault, one.message) for one in await gateway.examine()]


def says(found: list[tuple[bool, str]], words: str, *, fault: bool) -> bool:
    return any(is_fault == fault and words in message for is_fault, message in found)


async def test_a_kind_or_an_object_that_there_is_not(fake: World, tmp_path: Path) -> None:
    gateway = await gateway_at(fake, tmp_path, http_route="web")
    assert says(await remarks_on(gateway), "CustomResourceDefinition", fault=True)
    with pytest.raises(PermanentError):
        await gateway.observe()
    await gateway.close()
    gateway = await gateway_at(fake, tmp_path, service="web")
    assert says(await remarks_on(gateway), "there is no Service default/web", fault=True)
    assert await gateway.observe() == {}
    await gateway.close()


@pytest.mark.parametrize(
    ("spec", "fault", "words"),
    [
        ({"selector": None}, True, "no selector"),
        ({"type": "ExternalName", "externalName": "example.org"}, True, "ExternalName"),
        ({"clusterIP": "None"}, False, "headless"),
        ({"publishNotReadyAddresses": True}, False, "not ready"),
        ({}, False, "selects no pod"),
    ],
)
async def test_services_that_can_have_no_circuit_or_a_poor_one(
    world: World,
    tmp_path: Path,
    spec: Json,
    fault: bool,  # noqa: FBT001 - a parameter of the test
    words: str,
) -> None:
    await world.make_service(**spec)
    gateway = await gateway_at(world, tmp_path, service="web")
    assert says(await remarks_on(gateway), words, fault=fault)
    await gateway.close()


async def test_a_rule_without_room_for_another_backend(world: World, tmp_path: Path) -> None:
    refs = [{"name": f"web-{n}", "port": 80} for n in range(16)]
    await world.create(HTTP_ROUTE, http_route(rules=[{"backendRefs": refs}]))
    gateway = await gateway_at(world, tmp_path, http_route="web")
    assert says(await remarks_on(gateway), "has 16 backends", fault=True)
    before = (await world.get(HTTP_ROUTE, "web"))["spec"]
    with pytest.raises(PermanentError, match="has 16 backends"):
        await turn(gateway, OPEN, OPEN_WIDE)
    assert (await world.get(HTTP_ROUTE, "web"))["spec"] == before
    await gateway.close()


async def test_who_else_keeps_an_object_and_who_else_has_it_as_a_route(
    world: World, tmp_path: Path
) -> None:
    body = http_route()
    body["metadata"]["labels"] = {"argocd.argoproj.io/instance": "shop"}
    await world.create(HTTP_ROUTE, body)
    gateway = world.gateway(tmp_path)
    both = [Route(ServiceId(name), world.route(http_route="web")) for name in ("x", "y")]
    await gateway.route(both)
    found = await remarks_on(gateway)
    assert says(found, "kept by Argo CD", fault=False)
    assert says(found, "the route of 2 services", fault=True)
    await gateway.close()


async def test_what_we_may_not_do_is_said_before_it_is_needed(fake: World, tmp_path: Path) -> None:
    assert fake.fake is not None
    await fake.make_service()
    fake.fake.deny("patch", "services")
    gateway = await gateway_at(fake, tmp_path, service="web")
    assert says(await remarks_on(gateway), "patch services", fault=True)
    await gateway.observe()
    with pytest.raises(PermanentError, match="not allowed"):
        await turn(gateway, OPEN, OPEN_WIDE)
    await gateway.close()


async def test_no_cluster_and_a_wrong_context(fake: World, tmp_path: Path) -> None:
    gateway = fake.gateway(tmp_path, context="elsewhere")
    await gateway.route([Route(WEB, fake.route(service="web"))])
    assert says(await remarks_on(gateway), "elsewhere", fault=True)
    with pytest.raises(PermanentError, match="elsewhere"):
        await gateway.observe()
    await gateway.close()


def test_a_route_names_exactly_one_object(tmp_path: Path) -> None:
    world = World(Kubernetes.__new__(Kubernetes), "default", str)
    for wrong in ({}, {"service": "a", "http_route": "b"}, {"service": "a", "destination": "b"}):
        with pytest.raises(ValueError, match=r"exactly one|goes with"):
            world.route(**wrong)


async def test_a_fallback_where_there_can_be_none(fake: World, tmp_path: Path) -> None:
    for object_, fallback in (({"service": "web"}, "spare:80"), ({"http_route": "web"}, "spare")):
        with pytest.raises(PermanentError, match="fallback"):
            await gateway_at(fake, tmp_path, fallback=fallback, **object_)
