"""A stream in front of a client that does not read, and one that has nothing to say."""

from __future__ import annotations

from prunella.api import events, hub
from prunella.core.model import Instant, ServiceId, Stamp
from prunella.runtime.notices import Notice, Topic
from prunella.testing.orchestrator import START


def notice(number: int) -> Notice:
    stamp = Stamp(START, Instant(0.0), "boot")
    return Notice(Topic.SERVICE_FAILED, stamp, ServiceId("web"), {"number": number})


async def test_a_stream_that_does_not_keep_up_says_how_much_it_lost() -> None:
    stream = hub.Stream(None)
    for number in range(hub.QUEUE_COUNT + 3):
        stream.offer(notice(number))
    lines = events.lines(stream)
    assert await anext(lines) == ": listening\n\n"
    assert '"number": 0' in await anext(lines)
    assert await anext(lines) == 'event: dropped\ndata: {"count": 3}\n\n'
    await lines.aclose()


async def test_a_silent_stream_beats() -> None:
    lines = events.lines(hub.Stream(None), beat_s=0.01)
    await anext(lines)
    assert [await anext(lines) for _ in range(3)] == [": beat\n\n"] * 3
    await lines.aclose()


async def test_a_stream_that_is_full_can_still_be_ended() -> None:
    stream = hub.Stream(None)
    for number in range(hub.QUEUE_COUNT):
        stream.offer(notice(number))
    stream.end()
    assert [line async for line in events.lines(stream)] == [": listening\n\n"]
