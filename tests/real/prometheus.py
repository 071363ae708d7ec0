"""A Prometheus server of our own, in a folder that goes with it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.real.freeze import freeze
from tests.real.slot import SYSTEM_PATH

from prunella.testing.site import free_port, until

_CONFIG = """
global: {scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 1s}
scrape_configs:
  - job_name: shops
    static_configs:
"""


def missing() -> str:
    """Why no server can run here; empty when one can."""
    found = shutil.which("prometheus", path=SYSTEM_PATH)
    return "" if found else "a Prometheus server of our own needs prometheus"


class Prometheus:
    """Reads the figures of some ports, five times a second.

    Attributes:
        url: where it answers.
    """

    def __init__(self, folder: Path, targets: Sequence[tuple[int, str]]) -> None:
        lines = [
            f'      - {{targets: ["127.0.0.1:{port}"], labels: {{service: "{service}"}}}}\n'
            for port, service in targets
        ]
        (folder / "prometheus.yml").write_text(_CONFIG + "".join(lines))
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [
            *("setpriv", "--pdeathsig", "KILL", "prometheus"),
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdout=log, stderr=log, env={"PATH": SYSTEM_PATH, "GOMAXPROCS": "1"}
            )
        until(lambda: self.get("/-/ready") is not None)

    def freeze(self) -> None:
        """Accept, and answer nothing."""
        assert self._process is not None
        freeze(self._process.pid)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def get(self, path: str) -> str | None:
        """What it says there; None while it says nothing good."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            said = answer.read().decode()
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()
        return said if answer.status == 200 else None

    def samples(self, query: str) -> list[dict[str, Any]]:
        said = self.get(f"/api/v1/query?query={quote(query)}")
        return [] if said is None else json.loads(said)["data"]["result"]

    def query_count(self) -> int:
        """How many instant queries it has been asked by POST or GET, ours here included."""
        page = self.get("/metrics") or ""
        name = "prometheus_http_requests_total{"
        return sum(
            int(float(line.rpartition(" ")[2]))
            for line in page.splitlines()
            if line.startswith(name) and 'handler="/api/v1/query"' in line
        )


@contextmanager
def running(folder: Path, targets: Sequence[tuple[int, str]]) -> Iterator[Prometheus]:
    """A server that reads ``(port, service)`` at ``/metrics``."""
    server = Prometheus(folder, targets)
    try:
        server.start()
        yield server
    finally:
        server.stop()
