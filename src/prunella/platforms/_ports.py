"""Free ports of this machine: one for each replica, and the same one for as long as it is free.

A port is free while no socket of this machine is bound to it and no replica of this Prunella has
been given it: one that is being restarted has its port, though nobody listens there.
"""

from __future__ import annotations

import re
import socket
from itertools import chain
from typing import Annotated
from zlib import crc32

from pydantic import BeforeValidator, WithJsonSchema

from prunella.errors import TransientError

_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})")
_HIGHEST = 65535
_given: set[int] = set()  # of all services: two that start at the same time must not get the same


def parse_range(value: object) -> range:
    """The ports of ``9000-9010``. Raises ValueError: those are none."""
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= _HIGHEST:
        raise ValueError("expected the first and the last of some ports, such as 9000-9010")
    return range(int(found[1]), int(found[2]) + 1)


def _checked(value: object) -> object:
    parse_range(value)
    return value


PortRange = Annotated[
    str,
    BeforeValidator(_checked),
    WithJsonSchema({"type": "string", "pattern": f"^{_RANGE.pattern}$"}),
]


class Ports:
    """The ports that the replicas of one service may have."""

    def __init__(self, allowed: range) -> None:
        self._range = allowed

    def take(self, present: int, seed: str) -> int:
        """`present` (0: none yet) if it is free, else another one; it is the caller's from now on.

        Args:
            seed: where to begin to look, so that those who look at once do not look alike.

        Raises:
            TransientError: there is no free one.
        """
        if present in self._range and _is_free(present):
            _given.add(present)
            return present
        start = crc32(seed.encode()) % len(self._range)
        for port in chain(self._range[start:], self._range[:start]):
            if port not in _given and _is_free(port):
                _given.discard(present)
                _given.add(port)
                return port
        first, last = self._range[0], self._range[-1]
        raise TransientError(f"no free port from {first} to {last}")


def keep(port: int) -> None:
    """Count a port as given: a process that was found has it."""
    if port:
        _given.add(port)


def give_back(port: int) -> None:
    _given.discard(port)


def _is_free(port: int) -> bool:
    """Whether a server could listen there now, on any address, as most of them do it.

    Raises:
        TransientError: this machine is short of descriptors.
    """
    dual = socket.has_dualstack_ipv6()
    try:
        with socket.socket(socket.AF_INET6 if dual else socket.AF_INET) as sock:
            # What is left of connections that have ended does not keep a server away either.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if dual:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            return _can_bind(sock, port)
    except OSError as error:
        raise TransientError(f"cannot look for a free port: {error.strerror}") from error


def _can_bind(sock: socket.socket, port: int) -> bool:
    try:
        sock.bind(("", port))
    except OSError:
        return False
    return True
