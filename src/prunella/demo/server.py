"""A small real HTTP service that can be told to misbehave until it is restarted.

``python server.py PORT``. ``POST /fault/errors`` and ``POST /fault/slow`` break it. ``GET /work``
occupies one of its two workers for 50 ms, after having waited for one; ``GET /load`` answers at
once, with ``inflight N``: how many such requests are waiting or being worked on. Upon SIGHUP it
runs whatever its file contains by then.
"""

from __future__ import annotations

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Semaphore
from types import FrameType

SLOW_S = 0.6
WORK_S = 0.05


class _Service(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fault = ""
    inflight = 0
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
    _Service(("127.0.0.1", int(sys.argv[1])), _Request).serve_forever()
