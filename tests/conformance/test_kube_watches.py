"""The fake API server lists and tells what happens as a real one does."""

from __future__ import annotations

import pytest
from tests.conformance.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    MERGE,
    Api,
    config_map,
    version,
    workload,
)


async def test_a_list_can_be_had_in_pages(api: Api) -> None:
    for number in range(5):
        await api.make(CONFIG_MAPS, {**config_map(f"page-{number}")})
    query, names, versions = "?labelSelector=name&limit=2", [], set()
    token = ""
    while True:
        page = await api.good("GET", f"{api.path(CONFIG_MAPS)}{query}{token}")
        names += [one["metadata"]["name"] for one in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        assert len(page["items"]) <= 2
        if not page["metadata"].get("continue"):
            break
        await api.make(CONFIG_MAPS, config_map(f"later-{len(names)}"))
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
async def test_a_list_is_of_what_is_selected(api: Api, query: str, names: set[str]) -> None:
    for name in ("a", "b", "c"):
        await api.make(CONFIG_MAPS, config_map(name))
    found = await api.items(CONFIG_MAPS, f"?{query}")
    assert {one["metadata"]["name"] for one in found} == names


async def test_not_every_field_selects(api: Api) -> None:
    status, refusal = await api.ask("GET", f"{api.path(CONFIG_MAPS)}?fieldSelector=data.x%3D1")
    assert (status, refusal["reason"]) == (400, "BadRequest")


async def test_a_watch_tells_all_in_order(api: Api) -> None:
    listed = await api.good("GET", api.path(CONFIG_MAPS))
    start = listed["metadata"]["resourceVersion"]
    path = api.path(CONFIG_MAPS, "a")
    await api.make(CONFIG_MAPS, config_map("a"))
    async with api.watch(CONFIG_MAPS, f"resourceVersion={start}") as watch:
        assert await watch.told() == ("ADDED", "a")
        await api.good("PATCH", path, {"data": {"x": "1"}}, MERGE)
        await api.make(CONFIG_MAPS, config_map("b"))
        await api.good("PATCH", path, {"data": {"x": "2"}}, MERGE)
        last = await api.read(CONFIG_MAPS, "a")
        await api.good("DELETE", path)
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


async def test_a_watch_from_nowhere_begins_with_what_there_is(api: Api) -> None:
    await api.make(CONFIG_MAPS, config_map("a"))
    async with api.watch(CONFIG_MAPS, "labelSelector=name") as watch:
        assert await watch.told() == ("ADDED", "a")


async def test_a_watch_tells_what_its_selector_no_longer_means(api: Api) -> None:
    made = await api.make(CONFIG_MAPS, config_map("a"))
    path = api.path(CONFIG_MAPS, "a")
    query = f"labelSelector=name%3Da&resourceVersion={version(made)}"
    async with api.watch(CONFIG_MAPS, query) as watch:
        await api.good("PATCH", path, {"metadata": {"labels": {"name": "z"}}}, MERGE)
        assert await watch.told() == ("DELETED", "a")
        await api.good("PATCH", path, {"metadata": {"labels": {"name": "a"}}}, MERGE)
        assert await watch.told() == ("ADDED", "a")


async def test_a_watch_says_how_far_it_has_come_and_ends(api: Api) -> None:
    made = await api.make(CONFIG_MAPS, config_map("a"))
    other = await api.make(DEPLOYMENTS, workload())
    query = "allowWatchBookmarks=true&timeoutSeconds=4&labelSelector=none"
    async with api.watch(CONFIG_MAPS, f"{query}&resourceVersion={version(made)}") as watch:
        event = await watch.next()
        assert event["type"] == "BOOKMARK"
        assert version(event["object"]) >= version(made)
        assert event["object"]["kind"] == "ConfigMap"
        while event:
            event = await watch.next()
    assert version(other) > version(made)


async def test_a_watch_that_does_not_want_bookmarks_has_none(api: Api) -> None:
    made = await api.make(CONFIG_MAPS, config_map("a"))
    query = f"timeoutSeconds=3&resourceVersion={version(made)}"
    async with api.watch(CONFIG_MAPS, query) as watch:
        assert await watch.next() == {}


async def test_what_is_forgotten_is_not_watched_or_listed(api: Api) -> None:
    """A list is answered with 410; a watch with 200, and 410 as the only event."""
    made = await api.make(CONFIG_MAPS, config_map("a"))
    await api.make(CONFIG_MAPS, config_map("b"))
    page = await api.good("GET", f"{api.path(CONFIG_MAPS)}?limit=1")
    await api.good("PATCH", api.path(CONFIG_MAPS, "a"), {"data": {"x": "1"}}, MERGE)
    await api.forget()
    token = page["metadata"]["continue"]
    status, refusal = await api.ask("GET", f"{api.path(CONFIG_MAPS)}?limit=1&continue={token}")
    assert (status, refusal["reason"]) == (410, "Expired")
    async with api.watch(CONFIG_MAPS, f"resourceVersion={version(made)}") as watch:
        event = await watch.next()
        assert (watch.answer.status, event["type"]) == (200, "ERROR")
        refusal = event["object"]
        assert (refusal["kind"], refusal["code"]) == ("Status", 410)
        assert refusal["reason"] == "Expired"
        assert "too old resource version" in refusal["message"]
        assert await watch.next() == {}
    listed = await api.good("GET", api.path(CONFIG_MAPS))
    start = listed["metadata"]["resourceVersion"]
    async with api.watch(CONFIG_MAPS, f"resourceVersion={start}") as watch:
        await api.make(CONFIG_MAPS, config_map("c"))
        assert await watch.told() == ("ADDED", "c")
