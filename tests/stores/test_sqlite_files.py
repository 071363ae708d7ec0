# ruff: noqa: ASYNC240 - files are what is tested here; nobody waits for the loop
"""Which files are taken for a store, which are refused, and that a refusal changes nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from prunella.core.ledger import Entry, EntryKind
from prunella.core.model import Epoch, Hold
from prunella.errors import PermanentError, StoreError
from prunella.stores._sqlite.files import size_bytes

Contents = Callable[[Path], dict[str, bytes]]


def ordinary_file(path: Path) -> None:
    path.write_text("healing: on\n" * 500, encoding="utf-8")


def foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.commit()


def foreign_marked_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 77")


def folder(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("readonly", [False, True], ids=["to write", "to read"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (ordinary_file, "is not a database, and is left as it is: move it aside"),
        (foreign_database, "is the database of another program"),
        (foreign_marked_database, "is the database of another program"),
        (folder, "is a folder"),
        (fifo, "is not an ordinary file"),
    ],
)
async def test_what_is_not_a_store_is_refused_and_left_as_it_is(
    desk: Any,
    path: Path,
    contents: Contents,
    make: Callable[[Path], None],
    says: str,
    *,
    readonly: bool,
) -> None:
    make(path)
    before = contents(path.parent)
    with pytest.raises(StoreError, match=says) as refusal:
        desk.open(path, readonly=readonly)
    assert str(path) in str(refusal.value)
    assert contents(path.parent) == before


async def test_a_missing_folder_is_named(desk: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"folder .*/no does not exist: create it"):
        desk.open(tmp_path / "no" / "store.db")


async def test_a_folder_that_takes_no_files_is_named(desk: Any) -> None:
    with pytest.raises(StoreError, match=r"check that /proc and the file belong to"):
        desk.open("/proc/store.db")


async def test_a_path_through_a_file_is_refused(desk: Any, path: Path) -> None:
    path.touch()
    with pytest.raises(StoreError, match="cannot be reached"):
        desk.open(path / "store.db")


@pytest.mark.parametrize("name", ["", ":memory:"])
async def test_an_address_without_a_file_is_refused(desk: Any, name: str) -> None:
    with pytest.raises(StoreError, match="names no file"):
        desk.open(name)


async def test_an_empty_file_becomes_a_store(desk: Any, path: Path) -> None:
    path.touch()
    store = desk.open(path)
    assert await desk.act(store, await desk.claim(store))


@pytest.mark.parametrize("name", ["a b.db", "50%25.db", "what?mode=ro.db", "tag#1.db", "é.db"])
async def test_a_path_is_taken_literally(desk: Any, tmp_path: Path, name: str) -> None:
    store = desk.open(tmp_path / name)
    await desk.act(store, await desk.claim(store))
    await store.close()
    assert [file.name for file in tmp_path.iterdir()] == [name]
    reader = desk.open(tmp_path / name, readonly=True)
    assert len((await reader.history(5)).items) == 1


async def test_a_newer_schema_is_refused_with_both_numbers(
    desk: Any, path: Path, contents: Contents
) -> None:
    await desk.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0007'")
        connection.commit()
    before = contents(path.parent)
    with pytest.raises(
        StoreError, match=r"newer Prunella \(schema 7, this one knows 2\): upgrade Prunella"
    ):
        desk.open(path)
    assert contents(path.parent) == before


async def test_a_store_without_its_schema_is_damaged(desk: Any, path: Path) -> None:
    await desk.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE alembic_version")
    with pytest.raises(StoreError, match="damaged"):
        desk.open(path)


async def test_damaged_pages_are_found_on_opening(
    desk: Any, path: Path, contents: Contents
) -> None:
    store = desk.open(path)
    epoch = await desk.claim(store)
    for _ in range(30):
        await desk.act(store, epoch)
    await store.close()
    with path.open("r+b") as file:
        for page in range(4, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xa5" * 512)
    before = contents(path.parent)
    with pytest.raises(StoreError, match=r"is damaged .* move the file aside together with"):
        desk.open(path)
    assert contents(path.parent) == before


async def test_a_cut_file_is_found_on_opening(desk: Any, path: Path) -> None:
    store = desk.open(path)
    await desk.act(store, await desk.claim(store))
    await store.close()
    os.truncate(path, path.stat().st_size // 4096 // 2 * 4096)
    with pytest.raises(StoreError, match="is damaged"):
        desk.open(path)


async def test_damage_under_a_running_daemon_ends_the_trust_in_the_store(
    desk: Any, path: Path
) -> None:
    store = desk.open(path)
    epoch = await desk.claim(store)
    await desk.act(store, epoch)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xa5" * 512)
    with pytest.raises(StoreError, match="is damaged"):
        await store.history(10)
    for _ in range(2):
        with pytest.raises(StoreError, match="is damaged"):
            await desk.begin(store, epoch)


@pytest.mark.parametrize("change", ["deleted", "replaced"])
async def test_a_file_that_goes_away_under_a_daemon_takes_no_more_writes(
    desk: Any, path: Path, change: str
) -> None:
    store = desk.open(path)
    epoch = await desk.claim(store)
    path.rename(path.with_name("elsewhere.db"))
    if change == "replaced":
        path.touch()
    for _ in range(2):
        with pytest.raises(StoreError, match="moved or deleted while in use"):
            await desk.begin(store, epoch)


async def test_a_claim_leaves_nothing_of_its_rehearsal(desk: Any, path: Path) -> None:
    store = desk.open(path)
    epoch = await desk.claim(store)
    assert await store.entries(10) == []
    assert list(await store.load()) == []
    assert (await store.history(10)).items == ()
    assert await desk.begin(store, epoch) == 1


async def test_a_journal_does_not_grow_with_each_write_of_its_holder(desk: Any, path: Path) -> None:
    journal = path.with_name(f"{path.name}-wal")
    store = desk.open(path)
    assert journal.stat().st_size < 1_000_000  # nobody's yet
    epoch = await desk.claim(store)
    length = journal.stat().st_size
    actions = [await desk.act(store, epoch) for _ in range(100)]
    assert journal.stat().st_size == length
    await store.close()
    assert not journal.exists()
    again = desk.open(path)
    assert [record.id for record in (await again.history(200)).items][::-1] == actions


# Reading beside a daemon


async def test_a_reader_sees_each_acknowledged_write_of_another(desk: Any, path: Path) -> None:
    store = desk.open(path)
    epoch = await desk.claim(store)
    reader = desk.open(path, readonly=True)
    for _ in range(5):
        action = await desk.begin(store, epoch)
        assert (await reader.history(1)).items[0].id == action
        assert await reader.action(action) is None
        await desk.finish(store, epoch, action)
        assert await reader.action(action)


async def test_a_reader_refuses_to_write(desk: Any, path: Path) -> None:
    await desk.open(path).close()
    reader = desk.open(path, readonly=True)
    now = desk.clock.stamp()
    with pytest.raises(PermanentError, match="for reading only"):
        await desk.claim(reader)
    with pytest.raises(PermanentError, match="for reading only"):
        await reader.place_hold(Hold(None, "ann", "deploy", now), epoch=Epoch(1))
    with pytest.raises(PermanentError, match="for reading only"):
        await reader.note([Entry(EntryKind.DAEMON, now)], epoch=Epoch(1))
    with pytest.raises(PermanentError, match="for reading only"):
        await reader.compact(now, epoch=Epoch(1))


async def test_a_reader_makes_no_file(desk: Any, path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist: start the daemon once"):
        desk.open(path, readonly=True)
    assert not path.exists()
    path.touch()
    with pytest.raises(StoreError, match="is empty"):
        desk.open(path, readonly=True)
    assert path.stat().st_size == 0


async def test_reading_leaves_a_closed_store_as_it_was(
    desk: Any, path: Path, contents: Contents
) -> None:
    store = desk.open(path)
    await desk.act(store, await desk.claim(store))
    await store.close()
    before = contents(path.parent)
    assert list(before) == ["store.db"]
    reader = desk.open(path, readonly=True)
    assert len((await reader.history(9)).items) == 1
    assert len(await reader.load()) == 1
    assert path.read_bytes() == before["store.db"]


def test_a_journal_that_went_away_a_moment_ago_has_no_size(path: Path) -> None:
    """A reader that was the last to close a store takes it away, at any moment."""
    assert size_bytes(path) == 0
    path.write_bytes(b"12345")
    assert size_bytes(path) == 5
