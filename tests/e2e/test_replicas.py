"""Replicas behind ports of their own: healed one by one, added under load, taken away in calm."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path

import pytest

from prunella.demo import server
from prunella.testing.site import Site, until

pytestmark = pytest.mark.e2e

CLIENTS = 10
CONFIG = """
store: sqlite:///prunella.db
state_dir: ./state
api: {{listen: 127.0.0.1:{api}}}
defaults:
  interval: 100ms
  timeout: 1s
  grace: 2s
  verify: {{soak: 300ms, deadline: 20s}}
  guards: {{backoff: {{base: 50ms, cap: 400ms}}, budget: {{actions: 10}}}}
fleet: {{pace: 500ms}}
services:
  shop:
    platform: process
    process: {{command: {command}, replicas: {replicas}, on_exit: leave, stop_timeout: 3s}}
    probes:
      - {{kind: http, url: "http://127.0.0.1:{{port}}/"}}
      - kind: http
        url: "http://127.0.0.1:{{port}}/load"
        number: {{pattern: 'inflight (\\d+)', above: 8}}
    scale: {{min: 1, max: 3, ttl: 1s}}
"""


class Replicas:
    """The replicas of the site's service, as the kernel knows them."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def write(self, replicas: int) -> None:
        site = self._site
        words = [
            sys.executable,
            "-I",
            "-S",
            server.__file__,
            "{port}",
            "",
            "",
            str(site.births_file),
        ]
        text = CONFIG.format(api=site.api, command=json.dumps(words), replicas=replicas)
        (site.folder / "prunella.yaml").write_text(text)

    def ports(self) -> dict[int, int]:
        """Port by pid; the oldest process first."""
        found: dict[int, int] = {}
        for pid in sorted(self._site.pids()):
            with suppress(OSError, ValueError):  # gone, or not a server yet or any more
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found[pid] = int(words[words.index(server.__file__.encode()) + 1])
        return found

    def numbers(self) -> dict[str, int]:
        """Pid by the number of the replica."""
        found: dict[str, int] = {}
        for pid in self._site.pids():
            with suppress(OSError):
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                words = dict(word.split(b"=", 1) for word in environment if b"=" in word)
                found[words[b"PRUNELLA_REPLICA"].decode()] = pid
        return found


def ask(port: int, method: str, path: str) -> int:
    """The status of the answer; 0 when there is none."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()


@pytest.fixture
def load() -> Iterator[Callable[[Replicas], threading.Event]]:
    """Keep clients busy with all replicas in turn, until the event that is answered is set."""
    calm, clients = threading.Event(), list[threading.Thread]()

    def press(replicas: Replicas) -> threading.Event:
        turn = count()

        def work() -> None:
            while not calm.is_set():
                ports = list(replicas.ports().values())
                if not ports or not ask(ports[next(turn) % len(ports)], "GET", "/work"):
                    calm.wait(0.01)

        clients.extend(threading.Thread(target=work) for _ in range(CLIENTS))
        for client in clients:
            client.start()
        return calm

    yield press
    calm.set()
    for client in clients:
        client.join()


@pytest.fixture
def replicas(site: Site) -> Replicas:
    return Replicas(site)


def test_a_replica_that_hangs_is_restarted_and_no_other(site: Site, replicas: Replicas) -> None:
    replicas.write(2)
    site.start()
    before = replicas.numbers()
    ports = replicas.ports()
    os.kill(before["1"], signal.SIGSTOP)
    (action,) = until(site.healed)
    assert (action["symptom"], action["action"], action["instance"]) == ("hung", "restart", "1")
    after = replicas.numbers()
    assert after["0"] == before["0"]
    assert after["1"] != before["1"]
    assert set(replicas.ports().values()) == set(ports.values()), "each has its port still"
    assert len(site.history()) == 1


def test_what_fails_everywhere_is_replaced_one_after_the_other_in_one_action(
    site: Site, replicas: Replicas
) -> None:
    replicas.write(2)
    site.start()
    before = replicas.numbers()
    for port in replicas.ports().values():
        assert ask(port, "POST", "/fault/errors") == 200
    canaries = until(lambda: [n for n, pid in replicas.numbers().items() if pid != before[n]])
    assert len(canaries) == 1, "the other one is still there when the first one has gone"
    (action,) = until(site.healed)
    assert (action["symptom"], action["action"]) == ("erroring", "restart")
    after = replicas.numbers()
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert len(site.history()) == 1


def test_under_load_it_is_scaled_up_and_what_was_added_goes_though_prunella_was_killed(
    site: Site, replicas: Replicas, load: Callable[[Replicas], threading.Event]
) -> None:
    replicas.write(1)
    site.start()
    (first,) = replicas.ports()
    calm = load(replicas)
    (action,) = until(site.healed)
    assert (action["symptom"], action["action"]) == ("slow", "scale-up")
    assert first in replicas.ports()
    added = len(replicas.ports())
    assert added in (2, 3)
    site.end(signal.SIGKILL)
    assert len(replicas.ports()) == added
    site.start()
    assert len(replicas.ports()) == added, "it was neither ended as surplus nor started twice"
    calm.set()
    until(lambda: list(replicas.ports()) == [first])
    actions = until(lambda: site.healed(added))
    assert [action["action"] for action in actions] == ["scale-down"] * (added - 1) + ["scale-up"]
    until(lambda: site.ask("GET", "/api/v1/services/shop")["status"] == "healthy")
    assert site.end() == 0
    site.start()
    assert list(replicas.ports()) == [first]
