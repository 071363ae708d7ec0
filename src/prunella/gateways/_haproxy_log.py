"""How long requests took, from the lines that HAProxy logs: to a socket that we read.

HAProxy waits for nobody here: what cannot be delivered at once is dropped, by it or by the kernel,
when we are gone, busy or being started. So the times are those of a part of the requests, which is
enough for percentiles, and nothing is counted from them.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from prunella.core.model import Instant
from prunella.core.traffic import Flow, Traffic
from prunella.gateways._times import Times
from prunella.ports import Clock

_log = structlog.get_logger("prunella.haproxy")
_BACKEND = "BACKEND"  # all servers of one, as the statistics call them
_LINE_BYTES = 1024  # of a line; what is sought stands near its begin
_AT_ONCE = 512  # lines: as many as the kernel keeps
_PAUSE_S = 0.03  # between two looks: a wake-up for each line costs more than the line
_MODE = 0o622  # HAProxy may be anybody, and may write only
# Of one that came to no server, in that format or in that of `option tcplog`.
_UNTIMED = re.compile(rb" [^ /]+/[^ /]+ (-?\d+/){2,4}\+?-?\d+ -?\d+ ")
_SAMPLE = 80  # bytes of a line that is shown
_MANY = 20  # lines: HAProxy tells of itself there as well, now and then
# ` backend/server TR/Tw/Tc/Tr/Ta status `, as in the format of `option httplog`, in milliseconds
_TIMED = re.compile(rb" ([^ /]+)/([^ /]+) -?\d+/(\d+)/(\d+)/(\d+)/\+?\d+ \d+ ")


class TimesLog:
    """The socket at `path`, and what was read from it of the servers that there are.

    Anybody may write to it, so nothing is kept of names that HAProxy's statistics do not have.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._socket: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._backends: Mapping[str, Collection[str]] = {}
        self._times: dict[tuple[bytes, bytes], tuple[Times, ...]] = {}
        self._known: dict[tuple[str, str], Times] = {}
        self._trouble = ""
        self._read_count = self._unread_count = 0
        self._was_told = False
        self._unread = b""  # the last such line

    def open(self, backends: Mapping[str, Collection[str]]) -> None:
        """Read lines from now on, of these backends and their servers by name.

        Trouble is logged once, and it is tried again at the next call.
        """
        if backends != self._backends:
            self._backends = backends
            self._learn(backends)
        if self._socket is None:
            self._begin()

    def _learn(self, backends: Mapping[str, Collection[str]]) -> None:
        old, self._known, self._times = self._known, {}, {}
        for backend, servers in backends.items():
            whole = self._known[backend, _BACKEND] = old.get((backend, _BACKEND)) or Times()
            for server in servers:
                one = self._known[backend, server] = old.get((backend, server)) or Times()
                self._times[backend.encode(), server.encode()] = (whole, one)

    def _begin(self) -> None:
        try:
            self._socket = _bound(self.path)
        except OSError as error:
            if (trouble := f"{self.path}: {error.strerror or error}") != self._trouble:
                _log.warning("no-times-from-haproxy", trouble=trouble)
            self._trouble = trouble
        else:
            self._trouble = ""
            self._listen()

    def close(self) -> None:
        ours, self._socket = self._socket, None
        if self._pause is not None:
            self._pause.cancel()
        if ours is not None:
            asyncio.get_running_loop().remove_reader(ours)
            ours.close()
            self.path.unlink(missing_ok=True)

    def elsewhere(self) -> str:
        """Who gets the lines instead of us; empty: nobody does."""
        if self._socket is not None or not self.path.is_socket() or not _is_read(self.path):
            return ""
        return (
            f"another process reads {self.path}: if that is not Prunella, end it, since there are "
            "no percentiles until then"
        )

    def unread(self) -> str:
        """Why most of what comes cannot be read; empty: it can, or little has come."""
        if self._unread_count < max(_MANY, self._read_count):
            return ""
        return (
            f"{self._unread_count} of {self._read_count + self._unread_count} lines at {self.path} "
            f"could not be read, such as {self._unread.decode(errors='replace')!r}: there are no "
            "percentiles without `option httplog`"
        )

    def timed(self, flow: Flow, backend: str, server: str = "") -> Flow:
        """A reading with the percentiles of the backend, or of one server of it."""
        at = flow.traffic.at
        servers = tuple(
            one
            if one.traffic is None
            else one._replace(traffic=self._told(one.traffic, backend, one.name, at))
            for one in flow.servers
        )
        whole = self._told(flow.traffic, backend, server or _BACKEND, at)
        return Flow(flow.valve, whole, servers)

    def _told(self, traffic: Traffic, backend: str, server: str, at: Instant) -> Traffic:
        if (times := self._known.get((backend, server))) is None:
            return traffic
        found = times.summary(at)
        return traffic._replace(p50_s=found.p50_s, p95_s=found.p95_s, p99_s=found.p99_s)

    def _listen(self) -> None:
        self._pause = None
        assert self._socket is not None
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        """What has come, and then a pause: the kernel keeps what comes meanwhile."""
        ours, at, loop = self._socket, self._clock.now(), asyncio.get_running_loop()
        assert ours is not None
        loop.remove_reader(ours)
        self._pause = loop.call_later(_PAUSE_S, self._listen)
        with suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                self._take(ours.recv(_LINE_BYTES), at)

    def _take(self, line: bytes, at: Instant) -> None:
        found = _TIMED.search(line)
        if found is None:
            if not _UNTIMED.search(line):
                self._complain(line)
            return
        self._read_count += 1
        backend, server, *waits_ms = found.groups()
        took_s = sum(map(int, waits_ms)) / 1000
        for times in self._times.get((backend, server), ()):
            times.add(at, took_s, 1)

    def _complain(self, line: bytes) -> None:
        """Count it, and say so once: anybody may send as many as they want."""
        self._unread, self._unread_count = line[:_SAMPLE], self._unread_count + 1
        if not self._was_told and (trouble := self.unread()):
            self._was_told = True
            _log.warning("no-times-from-haproxy", trouble=trouble)


def trouble_at(path: Path) -> str:
    """Why lines could not be read there; empty: they could, or are read already."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} for the log's socket"
    if path.exists() and not path.is_socket():
        return f"{path} is no socket, and HAProxy is to log to one there"
    return ""


def _bound(path: Path) -> socket.socket:
    """Raises OSError: somebody else reads there, or it cannot be made."""
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        ours.setblocking(False)  # noqa: FBT003 - its only argument
        if path.is_socket() and not _is_read(path):
            path.unlink()  # its reader has died
        ours.bind(str(path))
        path.chmod(_MODE)
    except OSError:
        ours.close()
        raise
    return ours


def _is_read(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        return other.connect_ex(str(path)) != errno.ECONNREFUSED
