"""From a host name to addresses, with a short memory. For probes that connect."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path

from prunella.core.model import Instant
from prunella.ports import Clock
from prunella.probes._wire import Address, Trouble

TTL_S = 30.0


class Names:
    """The addresses of one host and port. An IP address is its own and needs no resolver."""

    def __init__(
        self, host: str, port: int, clock: Clock, *, socket_path: Path | None = None
    ) -> None:
        self._host = host
        self._port = port
        self._clock = clock
        self._until: Instant | None = None  # None: for ever
        self._lookup: asyncio.Future[list[Address] | Trouble] | None = None
        if socket_path is None:
            self._known = _literal(host, port)
        else:
            self._known = [Address(socket.AF_UNIX, str(socket_path))]
        if not self._known:
            self._until = Instant(clock.now())

    def known(self) -> list[Address]:
        """Addresses that are good now; empty when they must be looked up first."""
        if self._until is not None and self._clock.now() >= self._until:
            return []
        return self._known

    def prefer(self, address: Address) -> None:
        """Try `address` first from now on: it answered."""
        if self._known and self._known[0] is not address and address in self._known:
            self._known.remove(address)
            self._known.insert(0, address)

    async def look_up(self, timeout_s: float) -> list[Address] | Trouble:
        """Ask the resolver; its trouble is ours and no evidence against the target.

        A resolver that hangs holds one thread per name, however often we come back.
        """
        if self._lookup is None:
            self._lookup = asyncio.ensure_future(self._resolve())
        lookup = self._lookup
        done, _ = await asyncio.wait([lookup], timeout=timeout_s)
        if not done:
            return Trouble(None, f"no answer from the resolver on {self._host}")
        self._lookup = None
        found = lookup.result()
        if isinstance(found, list):
            self._known = found
            self._until = Instant(self._clock.now() + TTL_S)
        return found

    def close(self) -> None:
        if self._lookup is not None:
            self._lookup.cancel()

    async def _resolve(self) -> list[Address] | Trouble:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            return Trouble(None, f"cannot resolve {self._host}: {error.strerror}")
        except UnicodeError:
            return Trouble(None, f"cannot resolve {self._host}: not a host name")
        return list(dict.fromkeys(Address(family, sockaddr) for family, _, _, _, sockaddr in found))


def _literal(host: str, port: int) -> list[Address]:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return []
    if isinstance(ip, ipaddress.IPv4Address):
        return [Address(socket.AF_INET, (host, port))]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [Address(found[0][0], found[0][4])]
