"""A connection that lasts, is lost, and is taken up again: whoever asks gets no stale answer."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from prunella.contact import Contact
from prunella.core.model import Instant
from prunella.errors import PermanentError, PrunellaError, TransientError
from prunella.testing.clock import SimClock

AWAY = TransientError("it is away")


class Slept(SimClock):
    """Goes on at once, and remembers how long each pause would have been."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    async def sleep_until(self, at: Instant, /) -> None:
        self.pauses.append(round(at - self.now(), 3))
        await asyncio.sleep(0)
        await super().sleep_until(at)


class Other:
    """The other side: each conversation goes as it is told."""

    def __init__(self) -> None:
        self.clock = Slept()
        self.said: asyncio.Queue[str | PrunellaError | None] = asyncio.Queue()
        self.contact = Contact(self.clock, "other", self._converse, longest_pause_s=1.0)

    def say(self, *words: str | PrunellaError | None) -> None:
        """``up``, ``lasts``; trouble or None is the end of one conversation."""
        for word in words:
            self.said.put_nowait(word)

    async def _converse(self) -> PrunellaError | None:
        while True:
            word = await self.said.get()
            if word == "up":
                self.contact.up()
            elif word == "lasts":
                self.clock.advance(60)
            else:
                assert not isinstance(word, str)
                return word

    async def rest(self) -> None:
        """Until it has heard all that was said."""
        async with asyncio.timeout(30):
            while not self.said.empty():  # noqa: ASYNC110 - of its own making
                await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_who_asks_waits_until_it_is_up() -> None:
    other = Other()
    asking = asyncio.create_task(other.contact.ready())
    await asyncio.sleep(0)
    assert not asking.done()
    other.say("up")
    await asking
    await other.contact.close()


async def test_trouble_is_told_to_whoever_asks_until_it_is_up_again() -> None:
    other = Other()
    other.say(AWAY)
    with pytest.raises(TransientError, match="away"):
        await other.contact.ready()
    other.say(PermanentError("not allowed"))
    await other.rest()
    with pytest.raises(PermanentError, match="not allowed"):
        await other.contact.ready()
    other.say("up")
    await other.rest()
    await other.contact.ready()
    await other.contact.close()


async def test_who_asks_after_a_loss_waits_for_the_next_try() -> None:
    other = Other()
    other.say("up")
    await other.contact.ready()
    other.say(AWAY)
    await other.rest()
    asking = asyncio.create_task(other.contact.ready())
    await asyncio.sleep(0)
    assert not asking.done()
    other.say("up")
    await asking
    await other.contact.close()


async def test_pauses_double_up_to_the_longest_and_begin_anew_after_what_has_lasted() -> None:
    other = Other()
    other.say(*[AWAY] * 7)
    with pytest.raises(TransientError):
        await other.contact.ready()
    await other.rest()
    assert other.clock.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    other.say("up", "lasts", AWAY)
    await other.rest()
    assert other.clock.pauses[-1] == 0.05
    await other.contact.close()


async def test_a_usual_end_is_nobodys_business_unless_it_comes_at_once() -> None:
    other = Other()
    other.say("up")
    await other.contact.ready()
    other.say("lasts", None)
    await other.rest()
    await other.contact.ready()
    assert other.clock.pauses == []
    other.say(None, None)
    await other.rest()
    with pytest.raises(TransientError, match="other ends what it tells"):
        await other.contact.ready()
    await other.contact.close()


async def test_an_end_that_comes_while_it_fails_is_not_lost() -> None:
    """A group of tasks that is failing already swallows a cancellation."""

    async def conversation() -> PrunellaError | None:
        contact.up()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return AWAY

    contact = Contact(SimClock(), "other", conversation, longest_pause_s=1.0)
    await contact.ready()
    async with asyncio.timeout(30):
        await contact.close()


async def test_a_defect_is_raised_to_whoever_asks() -> None:
    async def broken() -> PrunellaError | None:
        raise ZeroDivisionError

    contact = Contact(Slept(), "other", broken, longest_pause_s=1.0)
    with pytest.raises(ZeroDivisionError):
        await contact.ready()
    await contact.close()
