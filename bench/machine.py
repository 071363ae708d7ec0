"""What the benchmarks need of the machine: ports, processes, and waiting for a condition."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
_STEP_S = 0.0002


class NotInTimeError(RuntimeError):
    """What a benchmark waited for did not happen: there is no figure."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until(
    condition: Callable[[], bool], limit_s: float, what: str, step_s: float = _STEP_S
) -> None:
    """Poll until `condition` holds. Raises NotInTimeError after `limit_s`."""
    end = time.perf_counter() + limit_s
    while not condition():
        if time.perf_counter() > end:
            raise NotInTimeError(f"{what}: not within {limit_s:g} s")
        time.sleep(step_s)


def accepts(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def answers(port: int, timeout_s: float = 0.05) -> bool:
    """Whether an HTTP server there answers; a frozen one accepts, and says nothing."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return sock.recv(16).startswith(b"HTTP/1.")
    except OSError:
        return False


def server_pid(port: int) -> int | None:
    """The busybox httpd of that port: the oldest one, which is not a child for one request."""
    suffix = f"127.0.0.1:{port}".encode()
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"busybox") and suffix in words:
                found.append(int(folder.name))
    return min(found, default=None)


def await_end(pidfd: int, limit_s: float = 5.0) -> None:
    """Until a process is gone, and with it what it listened on."""
    if not select.select([pidfd], [], [], limit_s)[0]:
        raise NotInTimeError(f"a process that was to end is there after {limit_s:g} s")


def end(child: subprocess.Popen[bytes], limit_s: float = 10.0) -> None:
    """Ask a child of ours to end, and see to it."""
    child.terminate()
    try:
        child.wait(limit_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextlib.contextmanager
def running(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child process, ended on the way out; its output goes to `log`."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield child
    finally:
        end(child)


def rss_mib(field: str = "VmRSS") -> float:
    """Memory of this process: `VmRSS` now, `VmHWM` at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise NotInTimeError(f"the kernel does not tell {field}")


def own_cpu_s() -> float:
    """CPU time of this process without its children, user and system."""
    times = os.times()
    return times.user + times.system
