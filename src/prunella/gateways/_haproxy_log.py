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
from collections.abc import Collection
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
_AT_ONCE = 256  # lines, before others have their turn
_MODE = 0o622  # HAProxy may be anybody, and may write only
# ` backend/server TR/Tw/Tc/Tr/Ta status `, as in the format of `option httplog`, in milliseconds
_TIMED = re.compile(rb" ([^ /]+)/([^ /]+) -?\d+/(\d+)/(\d+)/(\d+)/\+?\d+ \d+ ")


class TimesLog:
    """The socket at `path`, and what was read from it of the wanted backends."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._socket: socket.socket | None = None
        self._times: dict[tuple[str, str], Times] = {}
        self._wanted: dict[bytes, str] = {}
        self._trouble = ""

    def open(self, wanted: Collection[str]) -> None:
        """Read the lines of these backends from now on; trouble is logged and tried again."""
        self._wanted = {name.encode(): name for name in wanted}
        self._times = {key: one for key, one in self._times.items() if key[0] in wanted}
        if self._socket is not None:
            return
        try:
            self._socket = _bound(self.path)
        except OSError as error:
            if (trouble := f"{self.path}: {error.strerror or error}") != self._trouble:
                _log.warning("no-times-from-haproxy", trouble=trouble)
            self._trouble = trouble
            return
        self._trouble = ""
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        ours, self._socket = self._socket, None
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
        if (times := self._times.get((backend, server))) is None:
            return traffic
        found = times.summary(at)
        return traffic._replace(p50_s=found.p50_s, p95_s=found.p95_s, p99_s=found.p99_s)

    def _read(self) -> None:
        ours, at = self._socket, self._clock.now()
        assert ours is not None
        with suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                self._take(ours.recv(_LINE_BYTES), at)

    def _take(self, line: bytes, at: Instant) -> None:
        found = _TIMED.search(line)
        if found is None:
            return  # a connection, a request that came to no server, or another's line
        backend = self._wanted.get(found[1])
        if backend is None:
            return
        took_s = (int(found[3]) + int(found[4]) + int(found[5])) / 1000
        for server in (_BACKEND, found[2].decode(errors="replace")):
            times = self._times.get((backend, server))
            if times is None:
                times = self._times[backend, server] = Times()
            times.add(at, took_s, 1)


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
