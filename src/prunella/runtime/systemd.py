"""Telling systemd how we are: READY, RELOADING, STOPPING, and WATCHDOG while the loop turns."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Self

import structlog

from prunella.core.model import Instant
from prunella.ports import Clock

_log = structlog.get_logger("prunella.systemd")


class ServiceManager:
    """Who has started us and wants to hear how we are; in most cases nobody.

    Args:
        address: of its socket; empty: nobody asks.
        silence_s: after so long without a beat it takes us for dead; 0: it does not.
    """

    def __init__(self, address: str = "", silence_s: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._silence_s = silence_s

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Self:
        """As `environ` says; it is taken out, for what we start must not speak for us."""
        address = environ.pop("NOTIFY_SOCKET", "")
        silence_s = int(environ.pop("WATCHDOG_USEC", "0")) / 1e6
        whose = environ.pop("WATCHDOG_PID", str(os.getpid()))
        return cls(address, silence_s if whose == str(os.getpid()) else 0.0)

    def tell(self, state: str) -> None:
        """Say one state. What cannot be said is logged: nothing of ours depends on it."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)  # noqa: FBT003 - the loop waits for no service manager
                out.connect(self._address)
                out.send(state.encode())
        except OSError as error:
            _log.warning("not-told", state=state, error=error.strerror)

    async def beat(self, clock: Clock) -> None:
        """Say at half the time that is allowed that we live; ends at once if nobody asks."""
        while self._address and self._silence_s:
            self.tell("WATCHDOG=1")
            await clock.sleep_until(Instant(clock.now() + self._silence_s / 2))
