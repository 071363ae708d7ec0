"""kill -9 at every kind of write, and journals cut at any byte: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prunella.core.ledger import EntryKind
from prunella.core.model import ActionId, Epoch, ServiceId

CHILD = Path(__file__).with_name("crash_child.py")
SOURCES = Path(__file__).parents[2] / "src"
CALLS = ("pwrite64", "fdatasync")
KILLS_PER_CALL = int(os.environ.get("PRUNELLA_TEST_KILLS", "4"))


@dataclass
class Run:
    """What became of a daemon: its exit code, what it said, what it called."""

    code: int
    said: list[str]
    called: str


class Victims:
    """Daemons that write, each under a tracer of its own."""

    def __init__(self, server: asyncio.subprocess.Process, folder: Path) -> None:
        self._server = server
        self._trace = folder / "trace"

    async def run(self, mode: str, path: Path, *options: str) -> Run:
        async with asyncio.timeout(30):
            self._tell(f"{mode} {path}")
            pid = (await self._line()).removeprefix("pid ")
            tracer = await asyncio.create_subprocess_exec(
                *("strace", "-f", "-p", pid, "-o", str(self._trace), *options),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            assert tracer.stderr
            attached = await tracer.stderr.readline()
            assert b"attached" in attached, attached
            self._tell("go")
            said = [await self._line()]
            while not said[-1].startswith("exit "):
                said.append(await self._line())
            await tracer.communicate()
        return Run(int(said.pop().split()[1]), said, self._trace.read_text())

    async def killed_at(self, call: str, count: int, path: Path) -> list[str]:
        inject = f"inject={call}:signal=SIGKILL:when={count}"
        run = await self.run("live", path, "-e", f"trace={call}", "-e", inject)
        assert run.code == -9, run
        return run.said

    def _tell(self, line: str) -> None:
        assert self._server.stdin
        self._server.stdin.write(f"{line}\n".encode())

    async def _line(self) -> str:
        assert self._server.stdout
        line = await self._server.stdout.readline()
        assert line, "the victims' server has ended"
        return line.decode().strip()


@pytest.fixture
async def victims(tmp_path: Path) -> AsyncIterator[Victims]:
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHILD),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        start_new_session=True,
    )
    yield Victims(server, tmp_path)
    if server.returncode is None:
        os.killpg(server.pid, signal.SIGKILL)  # with a daemon that a failed test has left
    await server.communicate()


def most_of_one_thread(call: str, called: str) -> int:
    """The tracer counts calls per thread: those of the one that writes most."""
    return max(Counter(re.findall(rf"^(\d+) +{call}\(", called, re.MULTILINE)).values())


def spread(count: int) -> list[int]:
    """Some of 1 … `count`: the first, the last, and evenly between them."""
    steps = min(KILLS_PER_CALL, count)
    return sorted({1 + round(step * (count - 1) / max(1, steps - 1)) for step in range(steps)})


async def require_all_that_was_said(desk: Any, path: Path, said: list[str]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store = desk.open(path)
    epoch = await desk.claim(store)
    words = [line.split() for line in said]
    view = await store.view(ServiceId("web"), desk.clock.stamp())
    owed = {debt.action for debt in view.debts}
    versions = {version.revision for version in view.versions}
    history = {record.id: record for record in (await store.history(100)).items}
    for word, number in words:
        if word == "claimed":
            assert epoch > int(number)
        if word == "begun":
            assert ActionId(int(number)) in history
        if word == "ended":
            assert history[ActionId(int(number))].success is True
        if word == "settled":
            assert ActionId(int(number)) not in owed
        if word == "marked":
            assert number in versions
    assert {record.id for record in history.values() if record.success is None} <= owed
    assert owed <= set(history)
    assert sum(record.success is None for record in history.values()) <= 1
    lines = await store.entries(100)
    assert [line.seq for line in lines] == list(range(len(lines), 0, -1))
    ended = sum(word == "ended" for word, _ in words)
    assert sum(line.kind is EntryKind.HEALTH for line in lines) >= ended
    assert await desk.begin(store, epoch, "db")


async def test_a_kill_at_any_write_or_sync_loses_nothing_acknowledged(
    desk: Any, tmp_path: Path, victims: Victims
) -> None:
    template = tmp_path / "template.db"
    await desk.open(template).close()
    rehearsal = tmp_path / "rehearsal.db"
    shutil.copy(template, rehearsal)
    whole = await victims.run("live", rehearsal, "-e", f"trace={','.join(CALLS)}")
    assert (whole.code, whole.said[-1]) == (0, "closed 0")
    reached: set[int] = set()
    for call in CALLS:
        for when in spread(most_of_one_thread(call, whole.called)):
            path = tmp_path / f"{call}-{when}.db"
            shutil.copy(template, path)
            said = await victims.killed_at(call, when, path)
            await require_all_that_was_said(desk, path, said)
            reached.add(len(said))
    assert min(reached) < 3
    assert max(reached) >= len(whole.said) - 1


async def test_a_kill_while_the_tables_are_made_leaves_a_store_that_opens(
    desk: Any, tmp_path: Path, victims: Victims
) -> None:
    for when in (1, 3, 9):
        path = tmp_path / f"{when}.db"
        assert await victims.killed_at("pwrite64", when, path) == []
        store = desk.open(path)
        assert await desk.act(store, await desk.claim(store))


async def test_each_write_is_synced_before_it_is_acknowledged(
    desk: Any, path: Path, victims: Victims
) -> None:
    await desk.open(path).close()
    run = await victims.run("live", path, "-e", "trace=fdatasync,write")
    # In the order of calls: S for a sync, A for an acknowledgement on standard output.
    calls = re.findall(
        r"^\d+ +(fdatasync|write\(1, \"(?:claimed|begun|ended|settled|marked|released))",
        run.called,
        re.MULTILINE,
    )
    order = "".join("S" if call == "fdatasync" else "A" for call in calls)
    assert order.count("A") == len(run.said) - 2
    assert "AA" not in order
    assert order.startswith("S")


@pytest.mark.parametrize("room", [0, 100_000], ids=["nothing behind", "room behind"])
async def test_a_journal_cut_at_any_byte_leaves_a_beginning_of_what_happened(
    desk: Any, path: Path, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]], room: int
) -> None:
    store = desk.open(path)
    epoch = await desk.claim(store)
    made = [await desk.act(store, epoch) for _ in range(5)]
    files = contents(tmp_path)
    journal = files["store.db-wal"].rstrip(b"\0")
    kept_counts: list[int] = []
    for cut in [*range(0, len(journal), len(journal) // 25 + 1), len(journal)]:
        copy = tmp_path / f"cut-{cut}" / "store.db"
        copy.parent.mkdir()
        copy.write_bytes(files["store.db"])
        copy.with_name("store.db-wal").write_bytes(journal[:cut] + bytes(room))
        again = desk.open(copy)
        kept = [record.id for record in (await again.history(10)).items][::-1]
        assert kept == made[: len(kept)]
        kept_counts.append(len(kept))
        assert await desk.begin(again, await desk.claim(again), "db")
        await again.close()
    assert kept_counts == sorted(kept_counts)
    assert kept_counts[0] == 0
    assert kept_counts[-1] >= 4


async def test_a_sync_that_fails_ends_the_trust_in_the_store(
    desk: Any, path: Path, victims: Victims
) -> None:
    await desk.open(path).close()
    inject = "inject=fdatasync:error=EIO:when=4+"
    run = await victims.run("fail", path, "-e", "trace=fdatasync", "-e", inject)
    assert run.code == 0
    assert [line.partition(":")[0] for line in run.said[-2:]] == ["StoreError", "StoreError"]
    assert "the disk did not confirm a write" in run.said[-1]
    store = desk.open(path)
    assert await desk.claim(store) > Epoch(0)
    assert len((await store.history(10)).items) >= len(run.said) - 2
