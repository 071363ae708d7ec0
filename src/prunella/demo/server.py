"""A small real HTTP service that can be told to misbehave until it is restarted.

``python -m prunella.demo.server PORT``; ``POST /fault/errors`` and ``POST /fault/slow``.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event

SLOW_S = 0.6


class _Service(ThreadingHTTPServer):
    daemon_threads = True
    fault = ""
    ending = Event()


class _Request(BaseHTTPRequestHandler):
    server: _Service  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if self.server.fault == "slow":
            self.server.ending.wait(SLOW_S)
        self._answer(500 if self.server.fault == "errors" else 200)

    def do_POST(self) -> None:
        self.server.fault = self.path.removeprefix("/fault/")
        self._answer(200)

    def _answer(self, status: int) -> None:
        body = b"ok\n" if status == 200 else b"broken\n"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing: the demo's own table is what is to be seen."""


if __name__ == "__main__":
    _Service(("127.0.0.1", int(sys.argv[1])), _Request).serve_forever()
