"""What is known over a restart of Prunella: one small file per replica, one for their number.

A file is replaced in one step, so that it is whole after `kill -9`, and not synced: after a loss
of power everything it says is of another boot anyway.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from prunella.errors import TransientError
from prunella.platforms._proc import Identity

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """The newest run of one replica, and whether we ended it ourselves.

    ``run`` counts the runs of the replica: a process that carries a higher number in its
    environment was started later than this was written. ``port`` is 0 where it has none.
    """

    identity: Identity
    run: int
    stopped: bool
    port: int = 0


class Wish(NamedTuple):
    """How many replicas there should be, after a scaling.

    ``configured`` is how many the configuration asked for then: once it asks for another number,
    a person has wished for that one since.
    """

    wanted: int
    configured: int


class Records:
    """The records of one service, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def instance_id(self) -> str:
        """The random name of this folder, made once: what its children are known by.

        Raises:
            TransientError: the folder cannot be read or written.
        """
        path = self._folder / "instance-id"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not path.exists() or not path.read_text():
                _replace(path, uuid4().hex)
            return path.read_text()
        except OSError as error:
            raise TransientError(f"cannot use {path}: {error.strerror}") from error

    def numbers(self) -> tuple[int, ...]:
        """The replicas that have a record, in order."""
        return tuple(
            sorted(int(path.stem) for path in self._folder.glob("*.json") if path.stem.isdigit())
        )

    def read(self, number: int) -> Record | None:
        """What was written last; None where nothing was, or nothing that can be read.

        Raises:
            TransientError: the file is there and cannot be opened.
        """
        # Where it is cut off by a loss of power, children are found by their marker instead.
        return _read(self._path(number), _decode)

    def write(self, number: int, record: Record) -> str:
        """Replace the record; returns why that failed, empty when it did not.

        A failure is a word and not an error: the run is there, and is found by its marker.
        """
        body = {
            "state": "stopped" if record.stopped else "running",
            "identity": str(record.identity),
            "run": record.run,
            "port": record.port,
        }
        try:
            _replace(self._path(number), json.dumps(body))
        except OSError as error:
            return f"not recorded: {error.strerror}"
        return ""

    def forget(self, number: int) -> None:
        """Drop the record of a replica that is no longer wanted.

        Raises:
            TransientError: the file cannot be removed.
        """
        try:
            self._path(number).unlink(missing_ok=True)
        except OSError as error:
            raise TransientError(f"cannot remove {self._path(number)}: {error.strerror}") from error

    def wish(self) -> Wish | None:
        """The number that was wanted last; None where the service has never been scaled.

        Raises:
            TransientError: the file is there and cannot be opened.
        """
        return _read(self._wish, lambda body: Wish(int(body["wanted"]), int(body["configured"])))

    def want(self, wish: Wish) -> None:
        """Remember how many there should be, before anything is done about it.

        Raises:
            TransientError: it cannot be written, and stays as it was.
        """
        try:
            _replace(self._wish, json.dumps(wish._asdict()))
        except OSError as error:
            raise TransientError(f"cannot write {self._wish}: {error.strerror}") from error

    @property
    def _wish(self) -> Path:
        return self._folder / "replicas.json"

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.json"


def _read(path: Path, decode: Callable[[dict[str, Any]], T]) -> T | None:
    try:
        return decode(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TransientError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        return None


def _decode(body: dict[str, Any]) -> Record:
    return Record(
        identity=Identity.parse(body["identity"]),
        run=int(body["run"]),
        stopped=body["state"] == "stopped",
        port=int(body.get("port", 0)),
    )


def _replace(path: Path, text: str) -> None:
    # One write and one rename: this stands between the start of a child and the next event.
    draft = f"{path}.new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
    os.rename(draft, path)  # noqa: PTH104 - half the time of Path.replace
