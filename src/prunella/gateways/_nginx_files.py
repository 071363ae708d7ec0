"""The files that nginx includes from us: whole, put back byte for byte, and signed.

A signed file that no longer has the sum that it names was changed by somebody else.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prunella.errors import PermanentError, TransientError
from prunella.gateways._undo import all_done, undone_by

_HEAD = "# Written by Prunella ({}): a change by hand is seen, and left as it is.\n"
_FOR_GOOD = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR})
_MODE = 0o644


@contextmanager
def explained(what: str) -> Generator[None]:
    """Say trouble with files in the words of this project."""
    try:
        yield
    except OSError as error:
        kind = PermanentError if error.errno in _FOR_GOOD else TransientError
        raise kind(f"{what}: {error.strerror or error}") from error


def signed(text: str) -> str:
    return _HEAD.format(hashlib.sha256(text.encode()).hexdigest()[:16]) + text


def is_signed(content: str) -> bool:
    """Whether it is as it was when ``signed`` made it, by whatever version of us."""
    _, _, text = content.partition("\n")
    return content == signed(text)


def read(path: Path) -> str | None:
    """None: there is no such file."""
    with explained(f"cannot read {path}"):
        try:
            return path.read_text(errors="replace")
        except FileNotFoundError:
            return None


def write(path: Path, content: bytes) -> None:
    """Put a file in its place whole, and on the disk."""
    with explained(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        with undone_by(partial(temporary.unlink, missing_ok=True)):
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(_MODE)
            temporary.replace(path)


def contents(paths: Iterable[Path]) -> Mapping[Path, bytes | None]:
    """What is there now, to be put back; None for what is not there."""
    found: dict[Path, bytes | None] = {}
    for path in paths:
        with explained(f"cannot read {path}"):
            found[path] = path.read_bytes() if path.exists() else None
    return found


def put_back(before: Mapping[Path, bytes | None]) -> None:
    """Make files what they were, as far as that can be done; those that are so are not written.

    Raises: TransientError: it names all that could not be.
    """
    all_done(partial(_put_back, path, content) for path, content in before.items())


def _put_back(path: Path, content: bytes | None) -> None:
    if content is None:
        with explained(f"cannot remove {path}"):
            path.unlink(missing_ok=True)
        return
    with explained(f"cannot read {path}"):
        is_so = path.exists() and path.read_bytes() == content
    if not is_so:
        write(path, content)
