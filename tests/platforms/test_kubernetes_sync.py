"""A rollback where Argo CD or Flux looks after a workload: their sync is paused, and resumed."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.platforms.kube_bed import Bed, fake_bed, real_bed, rollback, until
from tests.platforms.kube_keepers import Kept

from prunella.core.model import Action, ActionKind, Epoch
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.platforms._kube_keepers import APPLICATION, HELM_RELEASE, KUSTOMIZATION, SOURCES
from prunella.platforms._kube_pause import PAUSED_SYNC
from prunella.platforms.kubernetes import KubernetesPlatform

E1 = Epoch(1)
HOUR_S = 3600.0
KEEPERS = {
    "argo": (APPLICATION, APPLICATION),
    "kustomization": (KUSTOMIZATION, SOURCES["GitRepository"]),
    "chart": (HELM_RELEASE, SOURCES["HelmChart"]),
    "oci": (HELM_RELEASE, SOURCES["OCIRepository"]),
}
ON_THE_FAKE = pytest.mark.parametrize("bed", ["fake"], indirect=True)
pytestmark = pytest.mark.timeout(200)


@pytest.fixture(params=["fake", "real"])
async def bed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        is_fake = request.param == "fake"
        yield await (fake_bed(tmp_path, stack) if is_fake else real_bed(request, stack))


@pytest.fixture(params=KEEPERS)
async def kept(request: pytest.FixtureRequest, bed: Bed) -> Kept:
    one = Kept(bed, *KEEPERS[request.param])
    await one.set_up()
    return one


@pytest.fixture
async def argo(bed: Bed) -> Kept:
    one = Kept(bed, *KEEPERS["argo"])
    await one.set_up()
    return one


def pausing(bed: Bed, folder: Path, **more: Any) -> KubernetesPlatform:
    return bed.platform(folder, pause_sync=True, sync_namespace=bed.namespace, **more)


async def bad_release(bed: Bed, platform: KubernetesPlatform) -> Action:
    """A version that cannot start; the way back from it."""
    good = await until(platform, lambda now: len(now.instances) == 2)
    await bed.deploy("bad:1")
    bad = await until(platform, lambda now: now.revision != good.revision)
    return rollback(good.revision, bad.revision)


async def rolled_back(bed: Bed, platform: KubernetesPlatform) -> Action:
    action = await bad_release(bed, platform)
    await platform.execute(action, epoch=E1)
    return action


async def a_minute_later(
    bed: Bed, platform: KubernetesPlatform, done: Callable[[], Awaitable[bool]]
) -> None:
    """Look, until that is so."""
    bed.clock.ahead_s += 61
    end = time.monotonic() + 30
    while not await done():
        assert time.monotonic() < end
        await platform.observe()
        await asyncio.sleep(0.02)


async def is_free(kept: Kept) -> bool:
    return await kept.note() is None


async def test_a_sync_is_paused_for_a_rollback_and_resumed_when_something_else_is_wanted(
    bed: Bed, kept: Kept, tmp_path: Path
) -> None:
    before = await kept.spec()
    platform = pausing(bed, tmp_path)
    action = await rolled_back(bed, platform)
    assert (await platform.observe()).revision == action.revision
    assert await kept.is_paused()
    note = await kept.note()
    assert note is not None
    assert note["service"] == "shop"
    assert note["revision"] == action.before
    assert f"rolled back from {action.before} to {action.revision}" in note["reason"]
    bed.clock.ahead_s += 61
    await platform.observe()
    await platform.examine()
    assert await kept.is_paused(), "it wants the same still"
    await kept.push("r2")
    await a_minute_later(bed, platform, lambda: is_free(kept))
    assert await kept.spec() == before


async def test_what_was_paused_is_resumed_by_the_next_prunella(
    bed: Bed, kept: Kept, tmp_path: Path
) -> None:
    before = await kept.spec()
    platform = pausing(bed, tmp_path)
    await rolled_back(bed, platform)
    await platform.close()
    await kept.push("r2")
    await pausing(bed, tmp_path).observe()
    assert await kept.note() is None
    assert await kept.spec() == before


async def test_a_lease_that_is_over_is_the_end_of_a_pause(
    bed: Bed, kept: Kept, tmp_path: Path
) -> None:
    before = await kept.spec()
    platform = pausing(bed, tmp_path)
    await rolled_back(bed, platform)
    bed.clock.ahead_s += 23 * HOUR_S
    await a_minute_later(bed, platform, kept.is_paused)
    bed.clock.ahead_s += HOUR_S
    with capture_logs() as logs:
        await a_minute_later(bed, platform, lambda: is_free(kept))
    assert any("the lease of a paused sync is over" in one["event"] for one in logs)
    assert await kept.spec() == before


async def test_what_a_person_has_set_meanwhile_stays(bed: Bed, kept: Kept, tmp_path: Path) -> None:
    platform = pausing(bed, tmp_path)
    await rolled_back(bed, platform)
    await kept.change(kept.resume)
    theirs = await kept.spec()
    await a_minute_later(bed, platform, lambda: is_free(kept))
    assert await kept.spec() == theirs


async def test_a_pause_without_our_annotation_is_a_persons(
    bed: Bed, kept: Kept, tmp_path: Path
) -> None:
    await kept.change(kept.pause)
    theirs = await kept.spec()
    platform = pausing(bed, tmp_path)
    await rolled_back(bed, platform)
    assert await kept.note() is None, "there was nothing to pause"
    await kept.push("r2")
    bed.clock.ahead_s += 61
    await platform.close()
    await pausing(bed, tmp_path).observe()
    assert await kept.spec() == theirs


async def test_a_rollback_that_cannot_be_done_leaves_it_as_it_was(
    bed: Bed, kept: Kept, tmp_path: Path
) -> None:
    before = await kept.spec()
    platform = pausing(bed, tmp_path)
    action = await bad_release(bed, platform)
    with pytest.raises(PermanentError, match="has not kept"):
        await platform.execute(rollback("shop:0#00000000", action.before), epoch=E1)
    assert await kept.note() is None
    assert await kept.spec() == before


async def test_where_somebody_has_deployed_meanwhile_it_is_resumed_at_once(
    bed: Bed, argo: Kept, tmp_path: Path
) -> None:
    before = await argo.spec()
    platform = pausing(bed, tmp_path)
    action = await bad_release(bed, platform)
    with pytest.raises(ConflictError):
        await platform.execute(rollback(action.revision, "shop:9#00000000"), epoch=E1)
    assert await argo.note() is None
    assert await argo.spec() == before


@ON_THE_FAKE
async def test_who_pauses_on_an_old_view_does_not_undo_what_a_person_has_set(
    bed: Bed, kept: Kept, tmp_path: Path
) -> None:
    assert bed.fake is not None
    platform = pausing(bed, tmp_path)
    action = await bad_release(bed, platform)
    bed.fake.stale()
    await kept.change(kept.resume | {"metadata": {"labels": {"touched": "yes"}}})
    with pytest.raises(TransientError, match="changes faster than it can be paused"):
        await platform.execute(action, epoch=E1)
    bed.fake.fresh()
    assert await kept.note() is None
    assert not await kept.is_paused()
    await platform.execute(action, epoch=E1)
    assert await kept.is_paused()


@ON_THE_FAKE
async def test_a_pause_whose_answer_is_lost_is_taken_back(
    bed: Bed, kept: Kept, tmp_path: Path
) -> None:
    assert bed.fake is not None
    before = await kept.spec()
    platform = pausing(bed, tmp_path)
    action = await bad_release(bed, platform)
    bed.fake.lose(1)
    with pytest.raises(TransientError):
        await platform.execute(action, epoch=E1)
    assert await kept.note() is None
    assert await kept.spec() == before


@ON_THE_FAKE
async def test_a_rollback_with_a_pause_takes_five_requests_and_calm_none(
    bed: Bed, kept: Kept, tmp_path: Path
) -> None:
    assert bed.fake is not None
    platform = pausing(bed, tmp_path)
    action = await bad_release(bed, platform)
    requests = bed.fake.requests
    requests.clear()
    await platform.execute(action, epoch=E1)
    assert len(requests) <= 5
    requests.clear()
    for _ in range(5):
        await platform.observe()
    assert requests == []


async def test_another_rollback_leaves_the_pause_of_the_first_one(
    bed: Bed, argo: Kept, tmp_path: Path
) -> None:
    platform = pausing(bed, tmp_path)
    first = (await until(platform, lambda now: len(now.instances) == 2)).revision
    await bed.deploy("shop:2")
    await bed.current(2, "shop:2")
    action = await rolled_back(bed, platform)
    note = await argo.note()
    with pytest.raises(PermanentError, match="has not kept"):
        await platform.execute(rollback("shop:0#00000000", action.revision), epoch=E1)
    assert await argo.note() == note
    await platform.execute(rollback(first, action.revision), epoch=E1)
    assert await argo.note() == note
    assert await argo.is_paused()


async def test_where_something_else_is_wanted_by_now_that_has_its_turn(
    bed: Bed, argo: Kept, tmp_path: Path
) -> None:
    before = await argo.spec()
    platform = pausing(bed, tmp_path)
    action = await rolled_back(bed, platform)
    await argo.push("r2")
    with pytest.raises(ConflictError, match="is to deploy something else by now"):
        await platform.execute(rollback("shop:0#00000000", action.revision), epoch=E1)
    async with asyncio.timeout(30):
        while await argo.note() is not None:
            await platform.observe()
    assert await argo.spec() == before


async def test_another_spec_of_the_keeper_is_something_else(
    bed: Bed, kept: Kept, tmp_path: Path
) -> None:
    platform = pausing(bed, tmp_path)
    await rolled_back(bed, platform)
    await kept.change({"spec": kept.otherwise})
    await a_minute_later(bed, platform, lambda: is_free(kept))
    assert not await kept.is_paused()


@ON_THE_FAKE
async def test_an_annotation_that_cannot_be_read_is_left_to_a_person(
    bed: Bed, argo: Kept, tmp_path: Path
) -> None:
    platform = pausing(bed, tmp_path)
    await rolled_back(bed, platform)
    await argo.change({"metadata": {"annotations": {PAUSED_SYNC: "{}"}}})
    await argo.push("r2")
    bed.clock.ahead_s += 61
    with capture_logs() as logs:
        await platform.close()
        await pausing(bed, tmp_path).observe()
    assert any("resume it by hand" in one.get("error", "") for one in logs)
    assert await argo.is_paused()


async def test_what_was_paused_and_not_rolled_back_is_resumed_by_the_next_prunella(
    bed: Bed, argo: Kept, tmp_path: Path
) -> None:
    before = await argo.spec()
    platform = pausing(bed, tmp_path)
    action = await rolled_back(bed, platform)
    await platform.close()
    await bed.deploy("bad:1")  # as if it had ended right after the pause
    later = pausing(bed, tmp_path)
    await until(later, lambda now: now.revision == action.before)
    await a_minute_later(bed, later, lambda: is_free(argo))
    assert await argo.spec() == before


@ON_THE_FAKE
async def test_without_the_right_to_it_there_is_no_rollback_and_check_says_why(
    bed: Bed, argo: Kept, tmp_path: Path
) -> None:
    assert bed.fake is not None
    bed.fake.deny("patch", "applications")
    platform = pausing(bed, tmp_path)
    await platform.observe()
    assert ActionKind.ROLLBACK not in platform.capabilities
    said = " ".join(one.message for one in await platform.examine())
    assert "no rollback: Argo CD looks after it, and its sync cannot be paused" in said
    assert "we may not patch applications" in said
    bed.fake.allow("patch", "applications")
    await a_minute_later(bed, platform, lambda: _can_roll_back(platform))
    assert await argo.note() is None


async def _can_roll_back(platform: KubernetesPlatform) -> bool:
    return ActionKind.ROLLBACK in platform.capabilities


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ({"argocd.argoproj.io/instance": "gone"}, "its sync cannot be paused"),
        ({"kustomize.toolkit.fluxcd.io/name": "gone"}, "its sync cannot be paused"),
        ({"app.kubernetes.io/managed-by": "Helm"}, "Helm looks after it and would undo"),
    ],
    ids=["argo", "flux", "helm"],
)
async def test_what_cannot_be_paused_is_not_rolled_back(
    bed: Bed, tmp_path: Path, marks: dict[str, str], reason: str
) -> None:
    await bed.apply()
    await bed.change({"metadata": {"labels": marks}})
    platform = pausing(bed, tmp_path)
    action = await bad_release(bed, platform)
    assert ActionKind.ROLLBACK not in platform.capabilities
    assert any(reason in one.message for one in await platform.examine())
    with pytest.raises(PermanentError, match="cannot rollback"):
        await platform.execute(action, epoch=E1)


async def test_what_another_controller_would_undo_is_not_paused(
    bed: Bed, argo: Kept, tmp_path: Path
) -> None:
    above = {
        "apiVersion": "example.com/v1",  # of a kind that is known it would be collected
        "kind": "ApplicationSet",
        "name": "shops",
        "uid": "0b8e3e0a-5a31-4a0c-8f2b-0a1f6c1f3f10",
        "controller": True,
    }
    await argo.change({"metadata": {"ownerReferences": [above]}})
    platform = pausing(bed, tmp_path)
    await platform.observe()
    assert ActionKind.ROLLBACK not in platform.capabilities
    assert any("ApplicationSet shops" in one.message for one in await platform.examine())


async def test_without_being_asked_to_nothing_is_paused(
    bed: Bed, argo: Kept, tmp_path: Path
) -> None:
    platform = bed.platform(tmp_path, sync_namespace=bed.namespace)
    action = await bad_release(bed, platform)
    assert ActionKind.ROLLBACK not in platform.capabilities
    with pytest.raises(PermanentError, match="cannot rollback"):
        await platform.execute(action, epoch=E1)
    assert not await argo.is_paused()
