"""A daemon with a gateway in front of its service, and callers who never stop asking."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

import psutil
import pytest

from prunella.demo import server
from prunella.testing.site import Site, free_port, until

pytestmark = pytest.mark.e2e
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
gateways:
  local: {{kind: envoy, folder: ./envoy, start: true, listen: "127.0.0.1:{entry}", interval: 500ms}}
services:
  shop:
    platform: process
    process: {{command: {command}, replicas: 3, on_exit: leave}}
    probes: [{{kind: http, url: "http://127.0.0.1:{{port}}/"}}]
    gateway: {{name: local}}
    circuit: {{open_for: 1s, step: 500ms, body: back soon}}
    ladder: {{erroring: [circuit-break]}}
"""


class Callers:
    """Some who ask through the gateway, one request after the other, until they are stopped."""

    def __init__(self, port: int) -> None:
        self.answers: list[int] = []
        self._port = port
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def end(self) -> list[int]:
        self._done.set()
        for thread in self._threads:
            thread.join()
        return self.answers

    def hear(self, count: int) -> list[int]:
        """What the next ones are answered."""
        begin = len(self.answers)
        until(lambda: len(self.answers) >= begin + count)
        return self.answers[begin:]

    def _ask_on(self) -> None:
        while not self._done.wait(0.002):
            self.answers.append(ask(self._port))


def ask(port: int, method: str = "GET", path: str = "/") -> int:
    """The status; 0 for no answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        response.read()
    except (OSError, HTTPException):
        return 0
    else:
        return response.status
    finally:
        connection.close()


class Shop:
    """The site's service, behind an Envoy that is ended with the test."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.entry = free_port()
        words = [sys.executable, "-I", "-S", server.__file__, "{port}", "", "", str(site.folder)]
        text = CONFIG.format(api=site.api, command=json.dumps(words), entry=self.entry)
        (site.folder / "prunella.yaml").write_text(text)

    def processes(self, word: str) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                line = process.cmdline()
                if any(str(self.site.folder) in part for part in line) and word in line[0]:
                    found.append(process)
        return found

    def ports(self) -> list[int]:
        return [int(p.cmdline()[4]) for p in self.processes("python") if len(p.cmdline()) > 6]

    def end(self) -> None:
        for process in (*self.processes("envoy"), *self.processes("python")):
            with suppress(psutil.Error):
                process.kill()
                process.wait(10)

    def actions(self) -> set[tuple[str, str]]:
        """All that was ever done, and how it ended."""
        return {(str(a), str(b)) for a, b in self.site.rows("SELECT kind, outcome FROM actions")}


@pytest.fixture
def shop(site: Site) -> Iterator[Shop]:
    made = Shop(site)
    yield made
    site.close()
    made.end()


@pytest.fixture
def callers(shop: Shop) -> Iterator[Callers]:
    shop.site.start()
    until(lambda: ask(shop.entry) == 200)
    made = Callers(shop.entry)
    yield made
    made.end()


def test_a_sick_replica_gets_no_requests_until_it_is_well(shop: Shop, callers: Callers) -> None:
    port = shop.ports()[0]
    ask(port, "POST", "/fault/errors")
    until(lambda: ("circuit-break", "contained") in shop.actions())
    assert set(callers.hear(200)) == {200}
    ask(port, "POST", "/fault/none")
    until(lambda: ("circuit-close", "recovered") in shop.actions())
    until(lambda: shop.site.ask("GET", "/api/v1/debts")["items"] == [])
    assert set(callers.hear(200)) == {200}


def test_kill_9_of_prunella_costs_no_request(shop: Shop, callers: Callers) -> None:
    site = shop.site
    (envoy,) = shop.processes("envoy")
    site.end(signal.SIGKILL)
    assert set(callers.hear(300)) == {200}
    site.start()
    assert set(callers.hear(300)) == {200}
    assert [one.pid for one in shop.processes("envoy")] == [envoy.pid]
    assert shop.actions() == set()


def test_an_open_circuit_is_taken_over_and_closed_by_the_next_prunella(
    shop: Shop, callers: Callers
) -> None:
    for port in shop.ports():
        ask(port, "POST", "/fault/errors")
    until(lambda: set(callers.hear(50)) == {503})
    shop.site.end(signal.SIGKILL)
    assert set(callers.hear(50)) == {503}
    for port in shop.ports():
        ask(port, "POST", "/fault/none")
    shop.site.launch()
    until(lambda: set(callers.hear(50)) == {200})
    until(lambda: shop.site.ask("GET", "/api/v1/debts")["items"] == [])
    assert {action for action, _ in shop.actions()} == {"circuit-break", "circuit-close"}
