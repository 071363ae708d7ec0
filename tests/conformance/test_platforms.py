"""Every platform, built in, third-party or fake, obeys the same rules against the real thing.

A target is found by the platform's kind: a platform without one is a failure, not a skip.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.conformance.targets import SERVICE, Bench, target_of

from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    FactKind,
    Instance,
    InstanceId,
    InstanceState,
    Scope,
    Status,
)
from prunella.errors import ConflictError, PermanentError, PrunellaError
from prunella.plugins import platforms
from prunella.ports import SupportsCompletion

ALSO_REAL = {"kubernetes-real": "kubernetes"}  # once more, on something that not all machines have
KINDS = sorted({*platforms(), *ALSO_REAL, "fake"})


def able(kind: ActionKind) -> list[str]:
    """The platforms that can do it to some service at least: their targets are such ones."""
    kinds = {name: ALSO_REAL.get(name, name) for name in KINDS}
    return [name for name, one in kinds.items() if one == "fake" or kind in platforms()[one].can]


@pytest.fixture(params=able(ActionKind.SCALE_UP))
async def scalable(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield await target_of(request.param)(tmp_path, stack, request)


@pytest.fixture(params=able(ActionKind.ROLLBACK))
async def versioned(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield await target_of(request.param)(tmp_path, stack, request)


@pytest.fixture(params=KINDS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield await target_of(request.param)(tmp_path, stack, request)


async def look(bench: Bench) -> Instance:
    (instance,) = (await bench.platform.observe()).instances
    return instance


async def look_until(bench: Bench, state: InstanceState) -> Instance:
    async with asyncio.timeout(30):
        while (  # noqa: ASYNC110 - a platform may tell of an end by being asked only
            instance := await look(bench)
        ).state is not state:
            await asyncio.sleep(0.002)
    return instance


def restart_of(instance: Instance) -> Action:
    return Action(ActionKind.RESTART, SERVICE, instance.id, instance.identity)


async def settled(bench: Bench, count: int) -> Status:
    """What is there once `count` instances run and no others are left."""
    shown = count if bench.shows_each else min(count, 1)
    async with asyncio.timeout(30):
        while True:
            status = await bench.platform.observe()
            states = [instance.state for instance in status.instances]
            if states == [InstanceState.RUNNING] * shown and status.desired == count:
                return status
            await asyncio.sleep(0.02)


async def counted(bench: Bench, count: int) -> None:
    """Really so many: one that has just been forked is not known by its environment yet."""
    assert bench.count is not None, "what can be scaled can be counted"
    async with asyncio.timeout(30):
        while await bench.count() != count:  # noqa: ASYNC110 - it cannot be told
            await asyncio.sleep(0.02)


def scaled(kind: ActionKind, before: int, replicas: int) -> Action:
    return Action(kind, SERVICE, replicas=replicas, before=str(before))


async def other_version(bench: Bench) -> tuple[str, Action]:
    """Have another version deployed; the version before, and the rollback to it."""
    old = (await settled(bench, 1)).revision
    assert bench.deploy is not None, "what can be rolled back can be deployed"
    await bench.deploy()
    status = await settled(bench, 1)
    assert old is not None
    assert status.revision not in (None, old)
    back = Action(ActionKind.ROLLBACK, SERVICE, revision=old, before=status.revision or "")
    if bench.platform.capabilities[ActionKind.ROLLBACK] is Scope.INSTANCE:
        (instance,) = status.instances
        back = replace(back, instance=instance.id, identity=instance.identity)
    return old, back


async def test_a_started_service_is_running_under_an_identity(bench: Bench) -> None:
    status = await bench.platform.observe()
    assert [i.state for i in status.instances] == [InstanceState.RUNNING]
    assert status.instances[0].identity
    assert status.desired == 1


async def test_observing_twice_tells_the_same_of_an_untouched_service(bench: Bench) -> None:
    assert await bench.platform.observe() == await bench.platform.observe()


async def test_a_target_that_is_killed_is_seen_as_exited(bench: Bench) -> None:
    before = await look(bench)
    await bench.kill(before)
    after = await look_until(bench, InstanceState.EXITED)
    assert (after.id, after.identity) == (before.id, before.identity)


async def test_an_end_that_nobody_asked_for_is_told_once_as_a_fact(bench: Bench) -> None:
    await bench.kill(await look(bench))
    after = await look_until(bench, InstanceState.EXITED)
    told = [fact.instance for fact in bench.facts if fact.kind is FactKind.EXITED]
    assert told == ([after.id] if bench.tells_facts else [])


async def test_a_restart_is_another_run_and_no_fault(bench: Bench) -> None:
    before = await look(bench)
    await bench.platform.execute(restart_of(before), epoch=Epoch(1))
    after = await look(bench)
    assert after.state is InstanceState.RUNNING
    assert after.identity != before.identity
    assert [fact for fact in bench.facts if fact.kind is FactKind.EXITED] == []


async def test_a_restart_brings_a_dead_service_back(bench: Bench) -> None:
    await bench.kill(await look(bench))
    dead = await look_until(bench, InstanceState.EXITED)
    await bench.platform.execute(restart_of(dead), epoch=Epoch(1))
    alive = await look(bench)
    assert alive.state is InstanceState.RUNNING
    assert alive.identity != dead.identity


async def test_the_same_restart_twice_makes_one_new_run_only(bench: Bench) -> None:
    action = restart_of(await look(bench))
    await bench.platform.execute(action, epoch=Epoch(1))
    once = await look(bench)
    await bench.platform.execute(action, epoch=Epoch(1))
    assert await look(bench) == once


async def test_a_restart_with_a_stale_identity_leaves_the_new_run_alone(bench: Bench) -> None:
    first = await look(bench)
    await bench.platform.execute(restart_of(first), epoch=Epoch(1))
    await bench.platform.execute(restart_of(await look(bench)), epoch=Epoch(1))
    third = await look(bench)
    await bench.platform.execute(restart_of(first), epoch=Epoch(1))
    assert await look(bench) == third


async def test_a_restart_of_the_whole_service_reaches_its_instance(bench: Bench) -> None:
    before = await look(bench)
    await bench.platform.execute(replace(restart_of(before), instance=None), epoch=Epoch(1))
    assert (await look(bench)).identity != before.identity


async def test_scaling_up_adds_instances_and_leaves_the_present_ones_alone(scalable: Bench) -> None:
    before = await look(scalable)
    await scalable.platform.execute(scaled(ActionKind.SCALE_UP, 1, 2), epoch=Epoch(1))
    status = await settled(scalable, 2)
    assert before.identity in [instance.identity for instance in status.instances]
    assert len({instance.id for instance in status.instances}) == len(status.instances)
    await counted(scalable, 2)


async def test_scaling_to_a_number_that_is_there_does_nothing(scalable: Bench) -> None:
    action = scaled(ActionKind.SCALE_UP, 1, 2)
    await scalable.platform.execute(action, epoch=Epoch(1))
    once = await settled(scalable, 2)
    await scalable.platform.execute(action, epoch=Epoch(1))
    twice = await settled(scalable, 2)
    assert [i.identity for i in twice.instances] == [i.identity for i in once.instances]
    await counted(scalable, 2)


async def test_what_was_added_can_be_taken_away_again(scalable: Bench) -> None:
    first = await look(scalable)
    await scalable.platform.execute(scaled(ActionKind.SCALE_UP, 1, 3), epoch=Epoch(1))
    await settled(scalable, 3)
    await scalable.platform.execute(scaled(ActionKind.SCALE_DOWN, 3, 2), epoch=Epoch(1))
    await settled(scalable, 2)
    await scalable.platform.execute(scaled(ActionKind.SCALE_DOWN, 2, 1), epoch=Epoch(1))
    (left,) = (await settled(scalable, 1)).instances
    assert left.identity == first.identity
    await counted(scalable, 1)
    assert [fact for fact in scalable.facts if fact.kind is FactKind.EXITED] == []


async def test_a_number_that_somebody_else_has_set_wins(scalable: Bench) -> None:
    assert scalable.rescale is not None
    await scalable.rescale(3)
    await settled(scalable, 3)
    with pytest.raises(ConflictError):
        await scalable.platform.execute(scaled(ActionKind.SCALE_UP, 1, 2), epoch=Epoch(1))
    await settled(scalable, 3)


async def test_a_rollback_brings_the_version_back_that_is_asked_for(versioned: Bench) -> None:
    old, back = await other_version(versioned)
    await versioned.platform.execute(back, epoch=Epoch(1))
    status = await settled(versioned, 1)
    assert status.revision == old
    assert status.instances[0].identity != back.identity
    assert [fact for fact in versioned.facts if fact.kind is FactKind.EXITED] == []


async def test_the_same_rollback_twice_makes_one_new_run_only(versioned: Bench) -> None:
    old, back = await other_version(versioned)
    await versioned.platform.execute(back, epoch=Epoch(1))
    once = await settled(versioned, 1)
    await versioned.platform.execute(back, epoch=Epoch(1))
    twice = await settled(versioned, 1)
    assert (twice.revision, twice.instances[0].identity) == (old, once.instances[0].identity)


async def test_a_verified_rollback_is_completed_as_often_as_one_likes(versioned: Bench) -> None:
    _, back = await other_version(versioned)
    await versioned.platform.execute(back, epoch=Epoch(1))
    before = await settled(versioned, 1)
    if isinstance(versioned.platform, SupportsCompletion):
        await versioned.platform.complete(back, epoch=Epoch(1))
        await versioned.platform.complete(back, epoch=Epoch(1))
    after = await settled(versioned, 1)
    assert (after.revision, after.instances[0].identity) == (
        before.revision,
        before.instances[0].identity,
    )


async def test_a_version_that_somebody_else_has_deployed_wins(versioned: Bench) -> None:
    _, back = await other_version(versioned)
    theirs = await settled(versioned, 1)
    stale = replace(back, before="some-version-before")
    with pytest.raises(ConflictError):
        await versioned.platform.execute(stale, epoch=Epoch(1))
    after = await settled(versioned, 1)
    assert (after.revision, after.instances[0].identity) == (
        theirs.revision,
        theirs.instances[0].identity,
    )


async def test_what_a_platform_did_not_declare_is_refused_and_changes_nothing(
    bench: Bench,
) -> None:
    before = await look(bench)
    refused = [kind for kind in ActionKind if kind not in bench.platform.capabilities]
    assert refused
    for kind in refused:
        with pytest.raises(PermanentError, match=kind):
            await bench.platform.execute(Action(kind, SERVICE), epoch=Epoch(1))
    assert await look(bench) == before


async def test_an_instance_that_does_not_exist_is_refused(bench: Bench) -> None:
    before = await look(bench)
    stray = replace(restart_of(before), instance=InstanceId("no-such-one"))
    with pytest.raises(PermanentError, match="no-such-one"):
        await bench.platform.execute(stray, epoch=Epoch(1))
    assert await look(bench) == before


async def test_a_target_that_cannot_be_read_is_an_error_and_not_an_answer(bench: Bench) -> None:
    blind = bench.blind()
    with pytest.raises(PrunellaError):
        await blind.observe()
    await blind.close()


async def test_letting_go_does_not_touch_the_service(bench: Bench) -> None:
    before = await look(bench)
    await bench.platform.close()
    assert await bench.lives(before)


@pytest.mark.parametrize("kind", sorted(platforms()))
def test_a_plugin_names_itself_in_lower_case_and_as_its_class_does(kind: str) -> None:
    plugin = platforms()[kind]
    assert plugin.kind == kind == kind.lower()


@pytest.mark.parametrize("kind", sorted(platforms()))
def test_a_spec_is_frozen_and_refuses_unknown_keys(kind: str) -> None:
    spec = platforms()[kind].spec
    assert spec.model_config.get("frozen") is True
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        spec.model_validate({"no_such_key": 1})


@pytest.mark.parametrize("kind", sorted(platforms()))
def test_every_field_of_a_spec_is_described(kind: str) -> None:
    fields = platforms()[kind].spec.model_fields
    assert [name for name, described in fields.items() if not described.description] == []
