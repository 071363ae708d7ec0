"""A small real HTTP service that can be told to misbehave until it is restarted.

``python server.py PORT [URL] [FILE]``. ``POST /fault/errors`` and ``POST /fault/slow`` break it.
With a URL it asks there for every request, and waits a second for any answer; two can wait at a
time. With a file it answers nothing for as long as that is there: what it needs itself is down.
``GET /work`` occupies one of its two workers for 50 ms, after having waited for one; ``GET /load``
answers at once, with ``inflight N``: how many such requests are waiting or being worked on. Upon
SIGHUP it runs whatever its file contains by then.
"""

from __future__ import annotations

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Semaphore
from types import FrameType
from urllib.error import HTTPError
from urllib.request import urlopen

SLOW_S = 0.6
WORK_S = 0.05
WAIT_S = 1.0
STUCK_S = 5.0


class _Service(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fault = ""
    inflight = 0
    needs = ""
    stuck = ""
    counting = Lock()
    workers = Semaphore(2)
    ending = Event()

    def work(self) -> None:
        self.count(1)
        try:
            with self.workers:
                self.ending.wait(WORK_S)
        finally:
            self.count(-1)

    def ask(self) -> bool:
        """Whether what it needs has answered at all: any answer will do."""
        with self.workers:
            try:
                urlopen(self.needs, timeout=WAIT_S).close()  # noqa: S310 - http, as we say ourselves
            except HTTPError as error:
                error.close()
            except OSError:
                return False
        return True

    def count(self, step: int) -> None:
        with self.counting:
            self.inflight += step


class _Request(BaseHTTPRequestHandler):
    server: _Service  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if self.path == "/load":
            self._answer(200, f"inflight {self.server.inflight}\n")
            return
        if self.path == "/work":
            self.server.work()
        if self.server.stuck and Path(self.server.stuck).exists():
            self.server.ending.wait(STUCK_S)
        if self.server.needs and not self.server.ask():
            self._answer(504)
            return
        if self.server.fault == "slow":
            self.server.ending.wait(SLOW_S)
        self._answer(500 if self.server.fault == "errors" else 200)

    def do_POST(self) -> None:
        self.server.fault = self.path.removeprefix("/fault/")
        self._answer(200)

    def _answer(self, status: int, text: str = "") -> None:
        body = (text or ("ok\n" if status == 200 else "broken\n")).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing: the demo's own table is what is to be seen."""


def _start_anew(_number: int, _frame: FrameType | None) -> None:
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the same command once more


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, _start_anew)
    _Service.needs, _Service.stuck = (*sys.argv[2:4], "", "")[:2]
    _Service(("127.0.0.1", int(sys.argv[1])), _Request).serve_forever()
