"""A folder with a config, the real daemon that runs it, and what can be asked of both.

What is true of the service is read from the kernel and from its port, never from Prunella.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self, TypeVar

from prunella.runtime.clock import SystemClock

T = TypeVar("T")

PATIENCE_S = 40.0
_POLL_S = 0.01
_PORTS = range(10_000, 32_000)  # below those that the kernel gives to outgoing connections
_CONFIG = """
store: {store}
state_dir: ./state
api: {api}
defaults:
  interval: 100ms
  timeout: 1s
  grace: 2s
  verify: {{soak: 300ms, deadline: 20s}}
  guards: {{backoff: {{base: 50ms, cap: 400ms}}, budget: {{actions: {budget}}}}}
fleet: {{pace: 500ms}}
services:
{services}
"""


def free_port(count: int = 1) -> int:
    """A port of 127.0.0.1 that nobody has and that no connection is given by chance.

    The first of `count` such ports beside each other.
    """
    while True:
        first = _PORTS[secrets.randbelow(len(_PORTS))]
        with suppress(OSError), ExitStack() as taken:
            for port in range(first, first + count):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def until(condition: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """Ask until the answer is true, and return it.

    Raises:
        AssertionError: it was not within `patience_s`.
    """
    clock, pause = SystemClock(), threading.Event()
    end = clock.now() + patience_s
    while clock.now() < end:
        if found := condition():
            return found
        pause.wait(_POLL_S)
    raise AssertionError(f"not within {patience_s:g} s: {condition}")


class Launcher:
    """Starts commands through a server that forks; one order at a time, from any thread."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._server = subprocess.Popen(  # noqa: S603 - the test's own command
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )

    def launch(self, argv: Sequence[str], folder: Path, env: Mapping[str, str]) -> int:
        """The pid of the command; its exit code comes into the folder's file ``exit.PID``."""
        order = {"argv": argv, "cwd": str(folder), "env": dict(env), "log": "daemon.log"}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with self._lock:
            self._server.stdin.write(json.dumps(order) + "\n")
            self._server.stdin.flush()
            return int(self._server.stdout.readline())

    def close(self) -> None:
        self._server.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Site:
    """One service, ``shop``, and whatever else is written beside it.

    Attributes:
        pid: of the newest daemon; 0 before the first.
        port: where the service serves.
        births: one line per start of the service, with its pid.
    """

    def __init__(self, folder: Path, launcher: Launcher, target: Path, python: str) -> None:
        self.folder = folder
        self.api, self.port = free_port(), free_port()
        self.pid = 0
        self.births_file = folder / "births"
        self._said_bytes = 0
        self._launcher = launcher
        self._command = [python, "-I", "-S", str(target)]

    def write(
        self,
        more: str = "",
        *,
        shop: str = "",
        probe: str = "",
        traits: Sequence[str] = (),
        stop_timeout: str = "3s",
        on_exit: str = "stop",
        store: str = "sqlite:///prunella.db",
        budget: int = 10,
        api: bool = True,
    ) -> None:
        """Write the config.

        Args:
            more: more services, as lines of the file.
            shop: more keys of the service, as lines of the file.
            probe: more keys of its probe, each after a comma.
            traits: more arguments of the service.
        """
        command = json.dumps([*self._command, str(self.port), str(self.births_file), *traits])
        service = (
            f"  shop:\n    platform: process\n"
            f"    process: {{command: {command}, on_exit: {on_exit},"
            f" stop_timeout: {stop_timeout}}}\n"
            f'    probes: [{{kind: http, url: "http://127.0.0.1:{self.port}/"{probe}}}]\n{shop}'
        )
        listen = f"{{listen: 127.0.0.1:{self.api}}}" if api else "off"
        text = _CONFIG.format(store=store, api=listen, budget=budget, services=f"{service}\n{more}")
        (self.folder / "prunella.yaml").write_text(text)

    # The daemon

    def launch(self, *more: str, env: Mapping[str, str] | None = None) -> None:
        argv = ["run", "prunella.yaml", *more]
        self._said_bytes = len(self.log())
        self.pid = self._launcher.launch(argv, self.folder, env or {})

    def start(self, *more: str) -> None:
        """Launch it, and wait until every service has been found well."""
        self.launch(*more)
        assert (
            until(lambda: (self.exit_code() is None and self.healthy()) or self.exit_code()) is True
        )

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def exit_code(self) -> int | None:
        """Of the newest daemon, negative for a signal; None while it runs."""
        try:
            return int((self.folder / f"exit.{self.pid}").read_text())
        except FileNotFoundError:
            return None

    def wait(self) -> int:
        until(lambda: self.exit_code() is not None)
        return self.exit_code() or 0

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send_signal(number)
        return self.wait()

    def log(self) -> str:
        """What all daemons have said."""
        try:
            return (self.folder / "daemon.log").read_text()
        except FileNotFoundError:
            return ""

    def lines(self, event: str) -> list[Any]:
        """What the newest daemon has logged of an event, line by line."""
        mark = f'"event": "{event}"'
        new = self.log()[self._said_bytes :]
        return [json.loads(line) for line in new.splitlines() if mark in line]

    def said(self, event: str) -> bool:
        """Whether the newest daemon has logged an event of that name."""
        return bool(self.lines(event))

    def close(self) -> None:
        """Kill what is left, the daemon first, which would start it again."""
        if self.pid and self.exit_code() is None:
            with suppress(ProcessLookupError):
                self.send_signal(signal.SIGKILL)
            self.wait()
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # Its API

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer's JSON; None when nobody answers."""
        connection = HTTPConnection("127.0.0.1", self.api, timeout=10)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read() or "null")
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def healthy(self) -> bool:
        """Whether all services are well, and there are some."""
        found = self.ask("GET", "/api/v1/health")
        return bool(found and found["totalServices"] and found["healthy"] == found["totalServices"])

    def history(self) -> list[Any]:
        """Newest first."""
        found = self.ask("GET", "/api/v1/healing-actions")
        return list(found["items"]) if found else []

    def healed(self, count: int = 1) -> list[Any]:
        """The actions that ended well, once there are `count` of them."""
        found = [action for action in self.history() if action["success"]]
        return found if len(found) >= count else []

    # Its store

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database says; nothing while it is not there yet."""
        try:
            with closing(sqlite3.connect(self.folder / "prunella.db", timeout=10)) as connection:
                return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    # The service

    def serves(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def births(self) -> list[int]:
        """The pids of all runs that ever began, in their order."""
        try:
            return [int(line) for line in self.births_file.read_text().split()]
        except FileNotFoundError:
            return []

    def doubles(self) -> str:
        """What the runs that began beside a living one have said of it."""
        try:
            return Path(f"{self.births_file}.doubles").read_text()
        except FileNotFoundError:
            return ""

    def questions(self) -> str:
        """A ``?`` for each question that a slow service has got, a ``!`` for each answer."""
        try:
            return Path(f"{self.births_file}.questions").read_text()
        except FileNotFoundError:
            return ""

    def pids(self) -> list[int]:
        """Who runs the service now."""
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if str(self.births_file).encode() in words:
                    found.append(int(entry.name))
        return found

    def strike(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the one process of the service; its pid."""
        (victim,) = self.pids()
        os.kill(victim, number)
        return victim
