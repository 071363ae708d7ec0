"""What nginx has in front of services, and what it has counted: files and a log, no questions."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from prunella.core.model import ServiceId
from prunella.core.traffic import Flow, Server, Valve
from prunella.gateways._nginx_conf import Listed, Places, listed
from prunella.gateways._nginx_files import explained, read
from prunella.gateways._nginx_log import Tail, Tally
from prunella.gateways._nginx_valves import Held, Valves
from prunella.ports import Clock, Route

_PORT = 80  # nginx's own, where a server has none


@dataclass
class Line:
    """One service as we know it.

    Attributes:
        servers: as its file has them.
        names: of servers, by what the log calls them.
        hangs_up: its callers are told to close their connections while nginx reloads.
    """

    service: ServiceId
    upstream: str
    hangs_up: bool = True
    servers: tuple[Listed, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    stamp: tuple[int, int, int] | None = None

    def refresh(self, path: Path) -> None:
        """Read its servers again if their file is another one."""
        with explained(f"cannot read {path}"):
            try:
                found = path.stat()
            except FileNotFoundError:
                self.servers, self.names, self.stamp = (), {}, None
                return
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if stamp != self.stamp:
            self.servers = listed(read(path) or "")
            self.names = {at: one.name for one in self.servers for at in _known_as(one.host)}
            self.stamp = stamp

    @property
    def down(self) -> frozenset[str]:
        return frozenset(one.name for one in self.servers if one.down)


class Reading:
    """All services of one nginx. ``take`` and ``close`` touch the disk.

    Attributes:
        lines: the services; replaced as a whole.
    """

    def __init__(self, places: Places, clock: Clock, log_limit_bytes: int) -> None:
        self.lines: Mapping[ServiceId, Line] = {}
        self._places = places
        self._clock = clock
        self._log_limit_bytes = log_limit_bytes
        self._valves = Valves(places.valves)
        self._tail = Tail(places.log)
        self._tally = Tally()

    def tell(self, routes: Sequence[Route]) -> None:
        """Take up these services; what was counted stays with the upstream."""
        self.lines = {
            one.service: Line(one.service, one.spec.upstream, one.spec.close_connections)
            for one in routes
        }

    def take(self) -> Mapping[ServiceId, Flow]:
        """Raises: TransientError, PermanentError: something cannot be read, or makes no sense."""
        lines = self.lines
        for line in lines.values():
            line.refresh(self._places.servers(line.upstream))
        at, wall_s = self._clock.now(), self._clock.wall().timestamp()
        known = {line.upstream: line.names for line in lines.values()}
        self._tally.add(self._tail.read(), at, known)
        held = self._valves.read()
        flows: dict[ServiceId, Flow] = {}
        for service, line in lines.items():
            share = held.get(line.upstream, Held()).at(wall_s)
            servers = tuple(
                Server(
                    one.name,
                    *_address(one.host),
                    traffic=self._tally.servers[line.upstream, one.name].traffic(at),
                )
                for one in line.servers
            )
            whole = self._tally.services[line.upstream].traffic(at)
            flows[service] = Flow(Valve(share, line.down), whole, servers)
        return flows

    def rotate(self) -> bool:
        """Rename the log if it is too large: nginx has to open a new one then."""
        if self._tail.size_bytes() < self._log_limit_bytes:
            return False
        log = self._places.log
        with explained(f"cannot rename {log}"), suppress(FileNotFoundError):
            log.replace(log.with_name(f"{log.name}.1"))
            return True
        return False

    def close(self) -> None:
        self._tail.close()


def _address(host: str) -> tuple[str, int]:
    """The address and the port of ``host:port``; a socket in the file system has no port."""
    if host.startswith("unix:"):
        return host, 0
    address, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        return host.strip("[]"), _PORT
    return address.strip("[]"), int(port)


def _known_as(host: str) -> set[str]:
    """What nginx calls a server in its log: it resolves names when it reads its configuration."""
    address, port = _address(host)
    known = {host}
    if port:
        with suppress(OSError):  # nginx could not either, and says so when it is tested
            for family, _, _, _, at in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM):
                is_v6 = family is socket.AF_INET6
                known.add(f"[{at[0]}]:{port}" if is_v6 else f"{at[0]}:{port}")
    return known
