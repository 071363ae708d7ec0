"""A disk that is full, or fails: the store says so, changes nothing, and goes on afterwards."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prunella.core.ledger import Entry, EntryKind
from prunella.core.model import Epoch
from prunella.errors import TransientError
from prunella.ports import Store

_PAGE_BYTES = 4096
Full = Callable[[], AbstractContextManager[None]]


@dataclass
class Disk:
    """A folder, and a way to make writing into it fail for a while."""

    folder: Path
    full: Full


def full_by_filling(folder: Path) -> Full:
    @contextmanager
    def full() -> Iterator[None]:
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError:
                pass  # that is the aim
        try:
            yield
        finally:
            ballast.unlink()

    return full


def full_by_limit() -> Full:
    @contextmanager
    def full() -> Iterator[None]:
        """No file may be written beyond its first page: what a quota does."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (_PAGE_BYTES, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full


@pytest.fixture(params=["a small disk", "a quota"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "a quota" or os.geteuid() != 0:
        yield Disk(tmp_path, full_by_limit())
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False).returncode != 0:
        yield Disk(tmp_path, full_by_limit())  # root in a container that may not mount
        return
    yield Disk(tmp_path, full_by_filling(tmp_path))
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


async def begin_many(desk: Any, store: Store, epoch: Epoch) -> None:
    for number in range(400):
        await desk.begin(store, epoch, f"service-{number}")


async def note_many(store: Store, entry: Entry, epoch: Epoch) -> None:
    for _ in range(200):
        await store.note([entry] * 1000, epoch=epoch)


async def test_a_full_disk_refuses_an_intent_and_takes_it_once_there_is_space(
    disk: Disk, desk: Any
) -> None:
    store = desk.open(disk.folder / "store.db")
    epoch = await desk.claim(store)
    action = await desk.act(store, epoch)
    with disk.full():
        for _ in range(3):
            with pytest.raises(TransientError, match="cannot be used now"):
                await begin_many(desk, store, epoch)
        known = [record.id for record in (await store.history(1000)).items]
        lines = len(await store.entries(2000))
    assert known[-1] == action
    assert lines == len(known) + 2
    assert await desk.begin(store, epoch, "later") == lines + 1
    await store.close()
    again = desk.open(disk.folder / "store.db")
    assert [record.id for record in (await again.history(1000)).items][1:] == known
    await again.close()


async def test_notes_wait_for_a_full_disk(disk: Disk, desk: Any) -> None:
    store = desk.open(disk.folder / "store.db")
    epoch = await desk.claim(store)
    now = desk.clock.stamp()
    with disk.full():
        with pytest.raises(TransientError):
            await begin_many(desk, store, epoch)
        await store.note([Entry(EntryKind.DAEMON, now, None, "x" * 50_000)], epoch=epoch)
        with pytest.raises(TransientError):
            await desk.begin(store, epoch, "web")
    async with asyncio.timeout(30):
        while not await store.entries(1, kinds=frozenset({EntryKind.DAEMON})):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await store.close()


async def test_notes_that_find_no_disk_at_all_are_refused_in_the_end(disk: Disk, desk: Any) -> None:
    store = desk.open(disk.folder / "store.db")
    epoch = await desk.claim(store)
    entry = Entry(EntryKind.DAEMON, desk.clock.stamp(), None, "x" * 400)
    with disk.full():
        with pytest.raises(TransientError, match="cannot take more notes"):
            await note_many(store, entry, epoch)
        with pytest.raises(TransientError, match="last notes could not be written"):
            await store.close()
