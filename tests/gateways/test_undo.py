"""What failed first is what is told, whatever becomes of taking it back."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from prunella.errors import TransientError
from prunella.gateways import _nginx_files as nginx
from prunella.gateways._envoy_files import Files
from prunella.gateways._undo import undone_by


def full_disk() -> None:
    raise TransientError("the disk is full")


@pytest.mark.parametrize("first", [TransientError("no answer"), asyncio.CancelledError()])
def test_trouble_in_undoing_is_noted_and_hides_nothing(first: BaseException) -> None:
    with pytest.raises(type(first)) as caught, undone_by(full_disk):
        raise first
    assert caught.value is first
    assert caught.value.__notes__ == ["it could not be undone either: the disk is full"]


def test_nothing_is_undone_of_what_worked() -> None:
    with undone_by(full_disk):
        pass


def test_the_words_of_the_system_hide_nothing_either(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="first") as caught, undone_by(tmp_path.unlink):
        raise TransientError("first")
    assert str(tmp_path) in caught.value.__notes__[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    subprocess.run(mount, check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.parametrize("kind", ["envoy", "nginx"])
def test_a_disk_that_fills_up_meanwhile_is_noted_only(kind: str, small_disk: Path) -> None:
    path, old = small_disk / "set.json", "old" * 4000
    path.write_text(old)
    if kind == "envoy":
        files = Files(small_disk)
        undo = partial(files.put_back, files.write({path.name: "new"}))
    else:
        undo = partial(nginx.put_back, nginx.contents([path]))
        nginx.write(path, b"new")
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(1024))
    with pytest.raises(TransientError, match="first") as caught, undone_by(undo):
        raise TransientError("first")
    assert "No space left" in caught.value.__notes__[0]
    assert {one.name for one in small_disk.iterdir()} == {"set.json", "filler"}
    (small_disk / "filler").unlink()
    undo()
    assert path.read_text() == old
