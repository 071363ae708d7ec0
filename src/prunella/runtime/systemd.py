"""Telling systemd how we are: READY, RELOADING, STOPPING, and WATCHDOG while the loop turns."""

from __future__ import annotations

import os
import socket

from prunella.core.model import Instant
from prunella.ports import Clock


def notify(state: str) -> bool:
    """Send one state to the service manager; False when nobody asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.connect(address)
        out.send(state.encode())
    return True


async def watchdog(clock: Clock) -> None:
    """Beat at half the time that systemd allows; ends at once when it does not ask for it."""
    allowed_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    if not allowed_s or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1")
        await clock.sleep_until(Instant(clock.now() + allowed_s / 2))
