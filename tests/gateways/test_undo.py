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


@pytest.mark.parametrize("kind", ["envoy", "nginx"])
def test_what_can_be_put_back_is_and_all_else_is_named(kind: str, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    for name in names:
        (tmp_path / name).write_text("old")
    if kind == "envoy":
        files = Files(tmp_path)
        undo = partial(files.put_back, files.write(dict.fromkeys(names, "new")))
    else:
        paths = [tmp_path / name for name in names]
        undo = partial(nginx.put_back, nginx.contents(paths))
        for path in paths:
            nginx.write(path, b"new")
    for name in ("a", "c"):  # no file can take its place
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
    with pytest.raises(TransientError) as caught, undone_by(undo):
        raise TransientError("first")
    assert [(tmp_path / name).read_text() for name in ("b", "d")] == ["old", "old"]
    (noted,) = caught.value.__notes__
    assert str(tmp_path / "a") in noted
    assert str(tmp_path / "c") in noted
