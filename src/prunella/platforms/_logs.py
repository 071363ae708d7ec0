"""Log files of bounded size that others write to: copied away and cut, never renamed.

A child holds its log open for as long as it lives and outlives Prunella, so its file must stay.
What it writes between the end of the copy and the cut, some microseconds, is lost.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def log_size_bytes(path: Path) -> int:
    """How large the log is; 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def rotate(path: Path, keep: int) -> None:
    """Copy the log to `path`.1, shifting the older ones up to `keep`, and cut it to nothing.

    A log that cannot be copied (a full disk) is cut all the same, and says so itself: that it
    stays bounded is the promise.

    Raises:
        OSError: the log itself cannot be opened or cut.
    """
    log = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        lost = ""
        if keep > 0:
            try:
                _copy(log, path, keep)
            except OSError as error:
                lost = f"prunella: a part of this log was not kept: {error.strerror}\n"
        os.ftruncate(log, 0)
        os.write(log, lost.encode())
    finally:
        os.close(log)


def _copy(source: int, path: Path, keep: int) -> None:
    draft = _kept(path, 0)
    try:
        with draft.open("wb") as copy:
            # Until nothing is left to copy: the child writes on meanwhile.
            offset = 0
            while sent := os.sendfile(copy.fileno(), source, offset, 1 << 24):
                offset += sent
        shutil.copymode(path, draft)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    for number in range(keep, 0, -1):
        older = _kept(path, number - 1)
        if older.exists():
            older.replace(_kept(path, number))


def _kept(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
