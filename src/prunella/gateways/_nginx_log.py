"""What real requests met, from the log that nginx writes: totals since this object began."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prunella.core.model import Instant
from prunella.core.traffic import Traffic
from prunella.errors import TransientError
from prunella.gateways._nginx_files import explained
from prunella.gateways._times import Times

READ_BYTES = 4 * 2**20  # in one reading
_BEHIND_BYTES = 4 * READ_BYTES  # further behind than this, what is in between is not counted
_SWITCHED = 101  # a connection that stays: how long it did says nothing
_UNANSWERED = (0, 499)  # 499: the caller has gone before
Names = Mapping[str, Mapping[str, str]]


@dataclass(slots=True)
class Counts:
    """Of one service, or of one server."""

    requests: int = 0
    failed: int = 0
    unconnected: int = 0
    turned_away: int = 0
    times: Times = field(default_factory=Times)

    def traffic(self, at: Instant) -> Traffic:
        return Traffic(
            at,
            self.requests,
            self.failed,
            self.unconnected,
            self.turned_away,
            self.times.in_flight(at),
            *self.times.summary(at),
        )


@dataclass(slots=True)
class Tally:
    """Counts by the name that a log line has for the service, and by the server's name."""

    services: defaultdict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    servers: defaultdict[tuple[str, str], Counts] = field(
        default_factory=lambda: defaultdict(Counts)
    )

    def add(self, lines: Mapping[str, int], at: Instant, known: Names) -> None:
        """Count lines, each so many times; of services that are not `known` none.

        Args:
            known: by service, the names of its servers by what the log calls them.

        Raises:
            TransientError: not one of them makes sense. Single ones that do not are left out.
        """
        odd = 0
        for line, count in lines.items():
            try:
                self._line(line, count, at, known)
            except ValueError:
                odd += count
        if odd and odd == sum(lines.values()):
            raise TransientError(
                f"none of {odd} new lines of the log is in the format prunella: who writes it?"
            )

    def _line(self, line: str, count: int, at: Instant, known: Names) -> None:
        service, turned, status, *asked = line.split("|")
        host, said, took, connected = asked
        names = known.get(service)
        if names is None:
            return
        whole = self.services[service]
        if turned:
            whole.turned_away += count
            return
        code = int(status)
        # all is read before anything is counted
        if ", " in host or " : " in host:
            met = [_Attempt(*one) for one in zip(*map(_split, asked), strict=True)]
        else:
            met = [_Attempt(host, said, took, connected)]
        whole.requests += count
        whole.failed += count * _is_failure(code)
        timed = code != _SWITCHED
        took_s = [one.took_s for one in met if one.took_s is not None]
        if took_s and timed:
            whole.times.add(at, took_s[0] if len(took_s) == 1 else sum(took_s), count)
        for one in met:
            if one.host in ("-", "", service):
                continue  # answered by nginx itself, or no server was left to ask
            whole.unconnected += count * one.unconnected
            server = self.servers[service, names.get(one.host, one.host)]
            server.requests += count
            server.failed += count * one.failed
            server.unconnected += count * one.unconnected
            if one.took_s is not None and timed:
                server.times.add(at, one.took_s, count)


class _Attempt:
    """One server that was asked; a request can be sent to several in turn."""

    __slots__ = ("failed", "host", "took_s", "unconnected")

    def __init__(self, host: str, status: str, took: str, connected: str) -> None:
        self.host = host
        self.failed = status == "-" or _is_failure(int(status))
        self.took_s = None if took == "-" else float(took)
        self.unconnected = connected == "-"


def _split(words: str) -> list[str]:
    return words.replace(" : ", ", ").split(", ")


def _is_failure(status: int) -> bool:
    return status >= 500 or status in _UNANSWERED


class Tail:
    """Reads what is added to a file, from now on, through renaming and truncation.

    A renamed file is read for one more reading, since nginx writes to it until it opens a new one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[_Open] = []
        self._began = False

    def read(self) -> Mapping[str, int]:
        """New lines, and how often each is there: most lines of a busy log are the same."""
        left, lines = READ_BYTES, Counter[str]()
        with explained(f"cannot read {self._path}"):
            self._look()
            for file in self._files:
                chunk = file.read(left)
                left -= len(chunk)
                lines.update(chunk.decode(errors="replace").splitlines())
            while len(self._files) > 1 and self._files[0].ended():
                self._files.pop(0).close()
        return lines

    def size_bytes(self) -> int:
        return os.fstat(self._files[-1].fd).st_size if self._files else 0

    def close(self) -> None:
        while self._files:
            self._files.pop().close()

    def _look(self) -> None:
        began, self._began = self._began, True
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return
        if self._files and self._files[-1].is_same(found):
            return
        file = _Open(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC))
        if not began:
            file.offset = os.fstat(file.fd).st_size
        self._files.append(file)


class _Open:
    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.offset = 0
        self._quiet = False  # nothing new was found at the last reading

    def is_same(self, other: os.stat_result) -> bool:
        ours = os.fstat(self.fd)
        return (ours.st_dev, ours.st_ino) == (other.st_dev, other.st_ino)

    def read(self, limit_bytes: int) -> bytes:
        size = os.fstat(self.fd).st_size
        if size < self.offset:
            self.offset = 0
        torn = size - self.offset > _BEHIND_BYTES
        if torn:
            self.offset = size - READ_BYTES
        chunk = os.pread(self.fd, limit_bytes, self.offset)
        self._quiet = not chunk
        end = chunk.rfind(b"\n") + 1
        if not end and len(chunk) < READ_BYTES:
            return b""  # a line that is still being written
        self.offset += end or len(chunk)
        begin = chunk.find(b"\n") + 1 if torn else 0
        return chunk[begin:end]

    def ended(self) -> bool:
        return self._quiet

    def close(self) -> None:
        os.close(self.fd)
