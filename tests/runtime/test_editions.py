"""What a platform and a source of releases call the same version."""

from prunella.core.model import Instance, InstanceId, InstanceState, Status
from prunella.runtime.editions import Editions


def seen(deployed: str, *running: str) -> Status:
    instances = tuple(
        Instance(InstanceId(f"shop.{n}"), InstanceState.RUNNING, revision=one)
        for n, one in enumerate(running)
    )
    return Status(instances, desired=2, revision=deployed)


def told(editions: Editions, status: Status, version: str) -> list[str]:
    found = editions.translate(status, version, restarts=False)
    assert found.revision == version
    return [one.revision for one in found.instances]


def test_instances_are_told_in_the_words_of_the_source() -> None:
    editions = Editions()
    assert told(editions, seen("p1", "p1", "p1"), "v1") == ["v1", "v1"]
    assert told(editions, seen("p2", "p1", "p2"), "v2") == ["v1", "v2"]


def test_what_runs_of_an_unknown_version_is_not_taken_for_the_deployed_one() -> None:
    assert told(Editions(), seen("p2", "p1", "p2"), "v2") == ["p1", "v2"]


def test_what_was_seen_right_after_a_deployment_is_put_right() -> None:
    editions = Editions()
    told(editions, seen("p1", "p1", "p1"), "v1")
    assert told(editions, seen("p1", "p1", "p1"), "v2") == ["v2", "v2"]
    assert told(editions, seen("p2", "p1", "p2"), "v2") == ["v1", "v2"]


def test_two_versions_that_run_the_same_are_each_there_in_turn() -> None:
    editions = Editions()
    for version in ("v1", "v2", "v1"):
        assert told(editions, seen("p1", "p1", "p1"), version) == [version, version]


def test_what_must_be_restarted_to_run_a_version_may_run_any() -> None:
    status = seen("image", "image", "image")
    found = Editions().translate(status, "v1", restarts=True)
    assert [one.revision for one in found.instances] == ["", ""]


def test_a_platform_that_knows_no_versions_has_none_put_into_its_mouth() -> None:
    found = Editions().translate(seen("", "", "")._replace(revision=None), "v1", restarts=False)
    assert [one.revision for one in found.instances] == ["", ""]
