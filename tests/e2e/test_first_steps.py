"""The daemon on real processes, as a user runs it, and what happens when it is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e
PATIENCE_S = 40.0
CONFIG = """
store: sqlite:///prunella.db
state_dir: ./state
api: {{listen: 127.0.0.1:{api}}}
defaults:
  interval: 300ms
  timeout: 1s
  grace: 10s
  verify: {{soak: 1s, deadline: 20s}}
services:
  shop:
    platform: process
    process:
      command: ["{python}", -m, prunella.demo.server, "{port}"]
      on_exit: {on_exit}
      stop_timeout: 3s
    probes: [{{kind: http, url: "http://127.0.0.1:{port}/"}}]
{more}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    pytest.fail(f"not within {PATIENCE_S} s: {condition}")


class Site:
    """A folder with a config, the daemon that runs it, and what can be asked of it."""

    def __init__(self, folder: Path, *, on_exit: str = "stop", more: str = "") -> None:
        self.folder, self.on_exit = folder, on_exit
        self.api, self.port = free_port(), free_port()
        self.daemon: subprocess.Popen[bytes] | None = None
        self.write(more)

    def write(self, more: str = "") -> None:
        text = CONFIG.format(
            api=self.api, port=self.port, python=sys.executable, on_exit=self.on_exit, more=more
        )
        (self.folder / "prunella.yaml").write_text(text)

    def start(self, *more: str) -> None:
        command = [sys.executable, "-m", "prunella", "run", "prunella.yaml", *more]
        with (self.folder / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        until(lambda: (self.health() or {}).get("totalServices"))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.daemon is not None
        self.daemon.send_signal(number)
        return self.daemon.wait(PATIENCE_S)

    def get(self, path: str) -> Any:
        connection = HTTPConnection("127.0.0.1", self.api, timeout=5)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        except OSError:
            return None
        finally:
            connection.close()

    def health(self) -> Any:
        return self.get("/api/v1/health")

    def history(self) -> list[Any]:
        return list(self.get("/api/v1/healing-actions")["items"])

    def serves(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def pids(self) -> list[int]:
        """Who runs the service, read from the kernel and not from Prunella."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"prunella.demo.server" in words and str(self.port).encode() in words:
                    found.append(int(entry.name))
        return found

    def healthy(self) -> bool:
        health = self.health()
        return health is not None and 0 < health["healthy"] == health["totalServices"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    if made.daemon is not None and made.daemon.poll() is None:
        made.daemon.kill()
        made.daemon.wait()
    for pid in made.pids():
        os.kill(pid, signal.SIGKILL)


def test_a_killed_service_serves_again_and_history_says_why(site: Site) -> None:
    site.start()
    until(site.healthy)
    (victim,) = site.pids()
    os.kill(victim, signal.SIGKILL)
    action = until(lambda: [a for a in site.history() if a["success"]])[0]
    assert action["serviceId"] == "shop"
    assert action["action"] == "restart"
    assert "SIGKILL" in action["reason"]
    assert action["recoveryTime"] > 0
    assert site.serves()
    (heir,) = site.pids()
    assert heir != victim


def test_a_frozen_service_is_found_and_replaced(site: Site) -> None:
    site.start()
    until(site.healthy)
    (victim,) = site.pids()
    os.kill(victim, signal.SIGSTOP)
    action = until(lambda: [a for a in site.history() if a["success"]])[0]
    assert action["symptom"] == "hung"
    assert victim not in site.pids()


def test_terminated_it_stops_its_children_and_ends_with_0(site: Site) -> None:
    site.start()
    until(site.healthy)
    assert site.end() == 0
    assert site.pids() == []


def test_told_to_leave_them_it_leaves_and_adopts_them_again(site: Site) -> None:
    site.on_exit = "leave"
    site.write()
    site.start()
    until(site.healthy)
    before = site.pids()
    assert site.end(signal.SIGINT) == 0
    assert site.pids() == before
    site.start()
    until(site.healthy)
    assert site.pids() == before
    assert site.history() == []


def test_killed_in_the_middle_of_a_heal_it_starts_nothing_twice(site: Site) -> None:
    site.start()
    until(site.healthy)
    (victim,) = site.pids()
    os.kill(victim, signal.SIGKILL)
    until(site.history)
    site.end(signal.SIGKILL)
    site.start()
    until(lambda: site.history()[0]["outcome"] is not None and site.healthy())
    assert len(site.pids()) == 1
    assert site.serves()
    assert all(action["outcome"] for action in site.history())


def test_a_second_daemon_on_the_store_is_refused_and_told_by_whom(site: Site) -> None:
    site.start()
    until(site.healthy)
    assert site.daemon is not None
    second = subprocess.run(
        [sys.executable, "-m", "prunella", "run", "prunella.yaml"],
        cwd=site.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert second.returncode == 1
    assert f"pid {site.daemon.pid}" in second.stderr
    assert len(site.pids()) == 1


def test_a_port_in_use_is_a_clear_refusal_that_leaves_nothing_running(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.api)):
        refused = subprocess.run(
            [sys.executable, "-m", "prunella", "run", "prunella.yaml"],
            cwd=site.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert refused.returncode == 1
    assert str(site.api) in refused.stderr
    assert "Traceback" not in refused.stderr
    assert site.pids() == []


def test_a_bad_file_is_refused_on_reload_and_the_old_one_stays(site: Site) -> None:
    site.start()
    until(site.healthy)
    before = site.pids()
    (site.folder / "prunella.yaml").write_text("services: {shop: {platform: nothing}}")
    assert site.daemon is not None
    site.daemon.send_signal(signal.SIGHUP)
    until(lambda: b"reload-refused" in (site.folder / "daemon.log").read_bytes())
    assert site.pids() == before
    assert site.healthy()


def test_a_good_file_is_taken_over_on_reload(site: Site) -> None:
    site.start()
    until(site.healthy)
    before = site.pids()
    sleeper = "  extra: {platform: process, process: {command: [sleep, '600']}}"
    site.write(sleeper)
    assert site.daemon is not None
    site.daemon.send_signal(signal.SIGHUP)
    until(lambda: site.health()["totalServices"] == 2 and site.healthy())
    assert site.pids() == before
    site.write()
    site.daemon.send_signal(signal.SIGHUP)
    until(lambda: site.health()["totalServices"] == 1)


def test_a_healer_that_was_frozen_itself_condemns_nobody(site: Site) -> None:
    site.start()
    until(site.healthy)
    assert site.daemon is not None
    for _ in range(2):
        site.daemon.send_signal(signal.SIGSTOP)
        time.sleep(3)  # the outage itself, not a wait for one
        site.daemon.send_signal(signal.SIGCONT)
        until(site.healthy)
    assert site.history() == []


def test_what_cannot_be_started_ends_in_quarantine_and_others_are_healed(tmp_path: Path) -> None:
    site = Site(tmp_path, more="  ghost: {platform: process, process: {command: [/no/such/thing]}}")
    try:
        site.start()
        until(lambda: site.get("/api/v1/services/ghost").get("phase") == "quarantined")
        (victim,) = site.pids()
        os.kill(victim, signal.SIGKILL)
        until(lambda: [a for a in site.history() if a["serviceId"] == "shop" and a["success"]])
        assert site.end() == 0
    finally:
        if site.daemon is not None and site.daemon.poll() is None:
            site.daemon.kill()
            site.daemon.wait()


def test_observing_it_does_nothing_and_says_what_it_would_have_done(site: Site) -> None:
    site.start("--observe")
    until(site.healthy)
    (victim,) = site.pids()
    os.kill(victim, signal.SIGKILL)
    action = until(site.history)[0]
    assert action["outcome"] == "observed"
    assert site.pids() == []


def test_a_corrupt_store_is_refused_and_not_touched(site: Site) -> None:
    store = site.folder / "prunella.db"
    store.write_bytes(b"this is no database, but somebody's only copy" * 100)
    before = store.read_bytes()
    refused = subprocess.run(
        [sys.executable, "-m", "prunella", "run", "prunella.yaml"],
        cwd=site.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert refused.returncode == 1
    assert "prunella.db" in refused.stderr
    assert store.read_bytes() == before
    assert site.pids() == []
