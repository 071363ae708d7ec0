"""Logs stay bounded while their writers hold them open."""

import asyncio
import errno
import os
from pathlib import Path

from tests.platforms.conftest import Bed, Only, Until

from prunella.core.model import Action, ActionKind, Epoch, Instant, ServiceId
from prunella.platforms._logs import log_size_bytes, rotate
from prunella.runtime.clock import SystemClock

RESTART = Action(ActionKind.RESTART, ServiceId("web"))
CHATTY = (
    "import itertools, time",
    "for number in itertools.count():",
    "    print(number, 'x' * 200, flush=True)",
    "    time.sleep(0.001)",
)


class HastyClock(SystemClock):
    """Real time, but what is to be done every few seconds is done a hundred times as often."""

    async def sleep_until(self, at: Instant, /) -> None:
        await asyncio.sleep((at - self.now()) / 100)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_log_is_put_aside_while_its_writer_goes_on(
    bed: Bed, only: Only, until: Until
) -> None:
    platform = bed.build(*CHATTY, clock=HastyClock(), log_size="10KiB", log_keep=2)
    await platform.ensure()
    run = await only(platform)
    log = bed.folder / "log" / "0.log"
    await until((log.parent / "0.log.2").exists)
    size = log_size_bytes(log)
    await until(lambda: log_size_bytes(log) != size)
    assert names(log.parent) == ["0.log", "0.log.1", "0.log.2"]
    assert await only(platform) == run
    first, last = ((log.parent / f"0.log.{n}").read_text().split() for n in (2, 1))
    assert int(first[0]) < int(last[-2])


async def test_a_log_that_is_too_large_is_put_aside_before_a_start(bed: Bed, until: Until) -> None:
    platform = bed.build("print('y' * 2000, flush=True)", log_size="1KiB")
    await platform.ensure()
    await asyncio.wait_for(bed.told.wait(), 5)
    await platform.execute(RESTART, epoch=Epoch(1))
    assert (bed.folder / "log" / "0.log.1").read_text() == "y" * 2000 + "\n"


async def test_the_output_of_a_new_run_is_added_to_that_of_the_last_one(
    bed: Bed, until: Until
) -> None:
    platform = bed.build("print('run', flush=True)", "import signal; signal.pause()")
    await platform.ensure()
    await until(lambda: bed.log() == "run\n")
    await platform.execute(RESTART, epoch=Epoch(1))
    await until(lambda: bed.log() == "run\nrun\n")


def test_the_oldest_is_dropped_and_the_order_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    for text in ("one", "two", "three", "four"):
        log.write_text(text)
        rotate(log, keep=2)
    log.write_text("now")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "0.log": "now",
        "0.log.1": "four",
        "0.log.2": "three",
    }


def test_keeping_none_only_cuts(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text("gone")
    rotate(log, keep=0)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0.log": ""}


def test_a_copy_is_as_private_as_the_log(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text("secret")
    log.chmod(0o600)
    rotate(log, keep=1)
    assert (tmp_path / "0.log.1").stat().st_mode & 0o777 == 0o600


def test_a_writer_that_appends_leaves_no_hole(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"before")
        rotate(log, keep=1)
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "0.log.1").read_bytes() == b"before"


def test_a_log_that_cannot_be_copied_is_cut_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text("z" * 1000)
    (tmp_path / "0.log.0").mkdir()  # where the copy is drafted
    rotate(log, keep=1)
    assert log.read_text() == (
        f"prunella: a part of this log was not kept: {os.strerror(errno.EISDIR)}\n"
    )
