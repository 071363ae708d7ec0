"""The daemon as a unit of systemd with ``Type=notify``: what it says over its life."""

import os
import signal
import socket
from pathlib import Path

import pytest

from prunella.testing.site import PATIENCE_S, Site

pytestmark = pytest.mark.e2e


def test_it_is_ready_when_it_watches_and_says_when_it_reloads_and_ends(
    site: Site, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(PATIENCE_S)

        def next_but_beats() -> str:
            while (said := listening.recv(4096).decode()) == "WATCHDOG=1":
                pass
            return said

        site.launch(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"})
        assert next_but_beats() == "READY=1"
        assert listening.recv(4096) == b"WATCHDOG=1"
        (service,) = site.pids()
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{service}/environ").read_bytes()
        os.kill(site.pid, signal.SIGHUP)
        assert [next_but_beats(), next_but_beats()] == ["RELOADING=1", "READY=1"]
        os.kill(site.pid, signal.SIGTERM)
        assert next_but_beats() == "STOPPING=1"
    assert site.wait() == 0
