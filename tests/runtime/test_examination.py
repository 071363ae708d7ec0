"""Asking platforms and sources of releases whether they can do their work."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from prunella.core.model import ActionKind, ServiceId
from prunella.errors import PermanentError, PrunellaError, TransientError
from prunella.plugins import PlatformContext, ReleaseContext
from prunella.ports import Remark
from prunella.runtime.examination import Examiner, Finding, examine
from prunella.testing.platform import FakePlatform
from prunella.testing.remarking import (
    MutePlatform,
    RemarkingPlatform,
    RemarkingRelease,
    RemarkingReleaseSpec,
    RemarkingSpec,
)
from prunella.testing.stepped import SteppedClock

Begin = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
WEB = ServiceId("web")


@pytest.fixture
def context(clock: SteppedClock, tmp_path: Path) -> PlatformContext:
    return PlatformContext(WEB, clock, tmp_path, lambda _: None)


async def test_platform_and_releases_are_both_heard_and_faults_come_first(
    context: PlatformContext,
) -> None:
    platform = RemarkingPlatform(RemarkingSpec(warnings=("old",), faults=("gone",)), context)
    release = RemarkingRelease(
        RemarkingReleaseSpec(warnings=("unsoaked",), faults=("dirty",)),
        ReleaseContext(WEB, context.clock, context.state_dir),
    )
    assert await examine(platform, release) == (
        Finding(Remark("gone", fault=True), of_release=False),
        Finding(Remark("dirty", fault=True), of_release=True),
        Finding(Remark("old"), of_release=False),
        Finding(Remark("unsoaked"), of_release=True),
    )


async def test_that_a_platform_cannot_roll_back_is_no_matter_where_a_source_can(
    context: PlatformContext,
) -> None:
    class Lacking(RemarkingPlatform):
        async def examine(self) -> Sequence[Remark]:
            return (Remark("no rollback", about=ActionKind.ROLLBACK), Remark("old"))

    platform = Lacking(RemarkingSpec(), context)
    release = RemarkingRelease(
        RemarkingReleaseSpec(), ReleaseContext(WEB, context.clock, context.state_dir)
    )
    assert [one.remark.message for one in await examine(platform, None)] == ["no rollback", "old"]
    assert [one.remark.message for one in await examine(platform, release)] == ["old"]


async def test_who_cannot_be_examined_has_nothing_to_say(clock: SteppedClock) -> None:
    assert await examine(FakePlatform(WEB, clock), None) == ()


async def test_who_does_not_answer_is_not_waited_for(context: PlatformContext) -> None:
    platform = MutePlatform(RemarkingSpec(), context)
    ((remark, of_release),) = await examine(platform, None, within_s=0.01)
    assert not remark.fault
    assert not of_release
    assert "did not answer within 0.01 s" in remark.message


class Broken(RemarkingPlatform):
    def __init__(self, trouble: PrunellaError, context: PlatformContext) -> None:
        super().__init__(RemarkingSpec(), context)
        self._trouble = trouble

    async def examine(self) -> Sequence[Remark]:
        raise self._trouble


@pytest.mark.parametrize("trouble", [TransientError("not now"), PermanentError("never")])
async def test_trouble_with_the_question_is_a_warning(
    context: PlatformContext, trouble: PrunellaError
) -> None:
    (finding,) = await examine(Broken(trouble, context), None)
    words = f"platform remarking cannot be examined: {trouble}"
    assert finding == Finding(Remark(words), of_release=False)


async def test_nothing_is_examined_before_it_is_asked_for_and_then_once(
    clock: SteppedClock, begin: Begin
) -> None:
    seen: list[int] = []

    async def look() -> None:
        seen.append(len(seen))

    examiner = Examiner(clock, lambda: [look] * 50)
    begin(examiner.run())
    await clock.elapse(1)
    assert seen == []
    examiner.hasten()
    await clock.elapse(1)
    assert len(seen) == 50
    await clock.elapse(1)
    assert len(seen) == 50
    examiner.hasten()
    await clock.elapse(1)
    assert len(seen) == 100


async def test_one_that_hangs_keeps_no_other_from_its_examination(
    clock: SteppedClock, begin: Begin
) -> None:
    seen: list[int] = []

    async def look() -> None:
        seen.append(len(seen))

    async def hang() -> None:
        await asyncio.Event().wait()

    examiner = Examiner(clock, lambda: [hang, *[look] * 50])
    begin(examiner.run())
    examiner.hasten()
    await clock.elapse(1)
    assert len(seen) == 50
