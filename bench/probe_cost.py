"""CPU time of one HTTP check, with a fresh connection each time, ours and a peer's.

The target is a server in a process of its own, so that only the prober is counted. The peer is
prometheus-blackbox-exporter, if it is installed; its figure includes answering the request that
makes it probe, since it does not probe otherwise. Run it as ``python bench/probe_cost.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import uvloop

from prunella.core.model import ServiceId, Verdict
from prunella.plugins import ProbeContext
from prunella.probes.http import HttpProbe, HttpSpec
from prunella.runtime.clock import SystemClock

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
PARALLEL = 10
PEER = "prometheus-blackbox-exporter"


class _Target(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert data.endswith(b"\r\n\r\n")
        self._transport.write(ANSWER)
        self._transport.close()


async def serve() -> None:
    """Be the target, until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Target, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def target() -> Iterator[str]:
    """The URL of a target in another process."""
    child = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        yield f"http://127.0.0.1:{int(child.stdout.readline())}/"
    finally:
        child.kill()
        child.communicate()


async def _check(url: str, check_count: int) -> float:
    context = ProbeContext(ServiceId("bench"), SystemClock(), lambda _of: ())
    spec = HttpSpec.model_validate({"url": url})
    probes = [HttpProbe(spec, context) for _ in range(PARALLEL)]

    async def repeat(probe: HttpProbe, times: int) -> None:
        for _ in range(times):
            observation = await probe.check()
            assert observation.verdict is Verdict.PASS, observation

    await asyncio.gather(*(repeat(probe, 20) for probe in probes))
    before_s = time.process_time()
    await asyncio.gather(*(repeat(probe, check_count // PARALLEL) for probe in probes))
    used_s = time.process_time() - before_s
    for probe in probes:
        await probe.close()
    return used_s / check_count * 1e6


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _ask_peer(port: int, url: str, times: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(times):
        connection.request("GET", f"/probe?module=http_2xx&target={url}")
        body = connection.getresponse().read()
        assert b"\nprobe_success 1\n" in body, body
    connection.close()


@contextlib.contextmanager
def _peer(binary: str) -> Iterator[tuple[int, int]]:
    """A running exporter: its process and its port."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "blackbox.yml"
        config.write_text("modules: {http_2xx: {prober: http, timeout: 2s}}\n")
        options = [f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
        child = subprocess.Popen([binary, *options], stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert time.monotonic() < deadline, f"{binary} does not listen"
                time.sleep(0.05)
            yield child.pid, port
        finally:
            child.kill()
            child.wait()


def _measure_peer(binary: str, url: str, check_count: int, run_count: int) -> list[float]:
    runs: list[float] = []
    with _peer(binary) as (pid, port), ThreadPoolExecutor(PARALLEL) as pool:

        def ask(times: int) -> None:
            list(pool.map(lambda _: _ask_peer(port, url, times), range(PARALLEL)))

        ask(20)
        for _ in range(run_count):
            before_s = _cpu_s(pid)
            ask(check_count // PARALLEL)
            runs.append((_cpu_s(pid) - before_s) / check_count * 1e6)
    return runs


def _on(new_loop: Callable[[], asyncio.AbstractEventLoop], url: str, check_count: int) -> float:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_check(url, check_count))


def measure(check_count: int = 3000, run_count: int = 7) -> dict[str, float | None]:
    """Medians, in microseconds of CPU time per check; the peer's are None without the peer.

    Our two event loops take turns, so that a busy moment of the machine is nobody's alone.
    """
    uv: list[float] = []
    plain: list[float] = []
    with target() as url:
        for _ in range(run_count):
            uv.append(_on(uvloop.new_event_loop, url, check_count))
            plain.append(_on(asyncio.new_event_loop, url, check_count))
        binary = shutil.which(PEER)
        peer = _measure_peer(binary, url, check_count, run_count) if binary else []
    ours_us = statistics.median(uv)
    peer_us = statistics.median(peer) if peer else None
    return {
        "uvloop_us": round(ours_us, 1),
        "uvloop_best_us": round(min(uv), 1),
        "asyncio_us": round(statistics.median(plain), 1),
        "peer_us": None if peer_us is None else round(peer_us, 1),
        "peer_best_us": round(min(peer), 1) if peer else None,
        "peer_ratio": None if peer_us is None else round(peer_us / ours_us, 2),
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        uvloop.run(serve())
    else:
        print(json.dumps(measure(), indent=2))
