"""A network of a test's own, for what a sysctl of the network decides; gone with the test.

A namespace belongs to a thread: what the test's own thread opens and starts is in it, what other
threads do is not.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def own_network(settings: Mapping[str, str]) -> Iterator[None]:
    """Only loopback, and `settings` below ``/proc/sys/net``. Skips without root."""
    if os.geteuid() != 0:
        pytest.skip("a network of one's own needs root")
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        _require(_LIBC.unshare(_CLONE_NEWNET), "unshare")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            for name, value in settings.items():
                Path("/proc/sys/net", name).write_text(value)
            yield
        finally:
            _require(_LIBC.setns(before.fileno(), _CLONE_NEWNET), "setns")


def _require(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
