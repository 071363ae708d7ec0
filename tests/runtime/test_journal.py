"""The journal: bounded, in order, nothing twice, and patient with a store that cannot write."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from prunella.core.ledger import Entry, EntryKind
from prunella.core.model import Epoch
from prunella.errors import TransientError
from prunella.runtime.journal import Journal
from prunella.testing.stepped import SteppedClock

KEPT = 20_000


class Paper:
    """Where a journal writes: full, slow, or simply good."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.full = False
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def note(self, entries: Sequence[Entry], /, *, epoch: Epoch) -> None:
        await self.may_write.wait()
        if self.full:
            raise TransientError("disk full")
        self.lines += [str(entry.body["number"]) for entry in entries]


@pytest.fixture
def paper() -> Paper:
    return Paper()


@pytest.fixture
def journal(paper: Any, clock: SteppedClock) -> Journal:
    return Journal(paper, clock, lambda: Epoch(1))


def write(journal: Journal, clock: SteppedClock, numbers: range) -> None:
    for number in numbers:
        journal.note(Entry(EntryKind.HEALTH, clock.stamp(), body={"number": str(number)}))


def words(numbers: range) -> list[str]:
    return [str(number) for number in numbers]


async def test_what_is_noted_is_written_a_moment_later_in_its_order(
    journal: Journal, paper: Paper, clock: SteppedClock, begin: Any
) -> None:
    begin(journal.run())
    write(journal, clock, range(2500))
    assert paper.lines == []
    await clock.elapse(0.2)
    assert paper.lines == words(range(2500))


async def test_what_a_full_disk_refused_is_kept_and_written_when_there_is_space(
    journal: Journal, paper: Paper, clock: SteppedClock, begin: Any
) -> None:
    begin(journal.run())
    paper.full = True
    write(journal, clock, range(10))
    await clock.elapse(1)
    assert paper.lines == []
    write(journal, clock, range(10, 20))
    paper.full = False
    await clock.elapse(1)
    assert paper.lines == words(range(20))


async def test_beyond_its_bound_the_oldest_are_dropped_and_counted(
    journal: Journal, paper: Paper, clock: SteppedClock
) -> None:
    write(journal, clock, range(KEPT + 50))
    assert journal.dropped_count == 50
    await journal.flush()
    assert paper.lines == words(range(50, KEPT + 50))


async def test_two_who_ask_for_a_flush_at_once_write_nothing_twice_and_lose_nothing(
    journal: Journal, paper: Paper, clock: SteppedClock, begin: Any
) -> None:
    paper.may_write.clear()
    write(journal, clock, range(5))
    flushes = [begin(journal.flush()) for _ in range(3)]
    await clock.settle()
    write(journal, clock, range(5, 8))
    paper.may_write.set()
    await asyncio.gather(*flushes)
    assert paper.lines == words(range(8))


async def test_what_is_dropped_while_it_is_being_written_is_not_taken_for_the_next(
    journal: Journal, paper: Paper, clock: SteppedClock, begin: Any
) -> None:
    paper.may_write.clear()
    write(journal, clock, range(KEPT))
    flush = begin(journal.flush())
    await clock.settle()
    write(journal, clock, range(KEPT, KEPT + 30))
    paper.may_write.set()
    await flush
    assert paper.lines == words(range(KEPT + 30))
