"""The folder that Envoy watches: every file is replaced as a whole, by a rename."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prunella.errors import PermanentError, TransientError
from prunella.gateways._undo import all_done, undone_by

_FOR_GOOD = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR})


class Files:
    """Texts by their name in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> str:
        """Raises: FileNotFoundError: there is none; else as `write`."""
        with _explained(self.folder / name):
            return (self.folder / name).read_text()

    def stamp(self, name: str) -> tuple[int, int, int]:
        """Another one for each replacement of the file. Raises: as `read`."""
        with _explained(self.folder / name):
            found = (self.folder / name).stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def differs(self, name: str, text: str) -> bool:
        """Whether another version of this text would change anything but its version."""
        try:
            return _without_version(self.read(name)) != _without_version(text)
        except FileNotFoundError:
            return True

    def write(self, texts: Mapping[str, str]) -> dict[str, str | None]:
        """Put them in place, all or none; what was there before.

        Raises:
            TransientError, PermanentError: they cannot be written.
        """
        before: dict[str, str | None] = {}
        drafts: list[tuple[Path, Path]] = []

        def discard() -> None:
            for draft, _ in drafts:
                draft.unlink(missing_ok=True)

        with undone_by(discard):
            for name, text in texts.items():
                try:
                    before[name] = self.read(name)
                except FileNotFoundError:
                    before[name] = None
                drafts.append(self._draft(name, text))
        for draft, path in drafts:
            draft.replace(path)
        return before

    def put_back(self, before: Mapping[str, str | None]) -> None:
        """Make files what they were, as far as that can be done.

        Raises: TransientError: it names all that could not be.
        """
        all_done(partial(self._put_back, name, text) for name, text in before.items())

    def _put_back(self, name: str, text: str | None) -> None:
        path = self.folder / name
        with _explained(path):
            if text is None:
                path.unlink(missing_ok=True)
            else:
                draft, path = self._draft(name, text)
                draft.replace(path)

    def trouble(self) -> str:
        """Why nothing can be written there; empty if it can."""
        place = self.folder
        while not place.exists():
            place = place.parent
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            return f"no file can be written in {self.folder}"
        return ""

    def _draft(self, name: str, text: str) -> tuple[Path, Path]:
        """The text on the disk, beside where it is to be."""
        path = self.folder / name
        draft = path.with_name(f".{name}.new")
        with _explained(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with undone_by(partial(draft.unlink, missing_ok=True)), draft.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        return draft, path


@contextmanager
def _explained(path: Path) -> Generator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        kind = PermanentError if error.errno in _FOR_GOOD else TransientError
        raise kind(f"cannot write {path}: {error.strerror}") from error


def _without_version(text: str) -> str:
    return text.partition('"resources"')[2] or text
