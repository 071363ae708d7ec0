"""A real HAProxy of a test's own, in master-worker mode as its unit of systemd starts it.

A reload is SIGUSR2 to the master, which starts another worker. The worker is the one that serves
and that has the socket, so it is the one that stands still when frozen.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.real.freeze import freeze, thaw
from tests.real.web import Web

from prunella.testing.site import free_port

PATIENCE_S = 30.0

# What docs/gateways/haproxy.md tells users to write, word for word; a test compares them.
SNIPPET = """\
    http-request set-var(txn.circuit) be_name,map({circuits})
    http-request set-var(txn.end) var(txn.circuit),field(1,:)
    http-request set-var(txn.share) var(txn.circuit),field(2,:)
    http-request deny deny_status 503 content-type text/plain \
hdr Retry-After "%[date(0,ms),neg,add(txn.end),add(999),div(1000)]" \
lf-string "%[var(txn.circuit),field(3,:),b64dec]" \
if {{ date(0,ms),sub(txn.end) lt 0 }} {{ rand(100),sub(txn.share) ge 0 }}
"""


def missing() -> str:
    """Why there is no HAProxy to test with; empty if there is one."""
    return "" if shutil.which("haproxy", path=_path()) else "haproxy is not installed"


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Answer(NamedTuple):
    """What a caller got; status 0: nothing."""

    status: int
    headers: dict[str, str]
    body: str = ""


@dataclass
class HAProxy:
    """One HAProxy.

    Attributes:
        folder: of its configuration, its socket and the files that it reads.
        port: of its first frontend.
        level: of its socket.
        master: the process; None while it does not run.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    level: str = "admin"
    master: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "admin.sock"

    @property
    def circuits(self) -> Path:
        return self.folder / "prunella.map"

    @property
    def state_file(self) -> Path:
        return self.folder / "servers.state"

    def write(self, sections: str, mode: str = "http") -> None:
        """Its configuration. In a section ``{port}`` and ``{snippet}`` are filled in."""
        snippet = SNIPPET.format(circuits=self.circuits)
        self.circuits.touch()
        head = (
            "global\n"
            f"    stats socket {self.socket} mode 600 level {self.level} expose-fd listeners\n"
            f"    server-state-file {self.state_file}\n"
            "defaults\n"
            f"    mode {mode}\n"
            "    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n"
            "    load-server-state-from-file global\n"
        )
        filled = sections.replace("{port}", str(self.port)).replace("{snippet}", snippet)
        (self.folder / "haproxy.cfg").write_text(head + filled)

    async def start(self) -> None:
        with (self.folder / "haproxy.log").open("ab") as log:
            self.master = subprocess.Popen(  # noqa: ASYNC220 - it is not waited for
                ["haproxy", "-W", "-f", self.folder / "haproxy.cfg"],
                env={**os.environ, "PATH": _path()},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        await self._until_served_by_another("")

    async def reload(self) -> None:
        """Told again until it has: a master that has just begun does not hear yet."""
        assert self.master is not None
        before = await self.worker()
        async with asyncio.timeout(2 * PATIENCE_S):
            while True:
                self.master.send_signal(signal.SIGUSR2)
                with suppress(TimeoutError):
                    await self._until_served_by_another(before, PATIENCE_S / 10)
                    return

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        """Without grace, and with the workers."""
        if self.master is None:
            return
        self.freeze(False)  # noqa: FBT003 - as in a target of conformance
        workers = self._workers()
        self.master.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S / 3):
                while self.master.poll() is None:  # noqa: ASYNC110 - processes have no event
                    await asyncio.sleep(0.01)
        for pid in (*workers, *([self.master.pid] if self.master.poll() is None else [])):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.master.wait()
        self.master = None

    def freeze(self, frozen: bool) -> None:  # noqa: FBT001 - as in a target of conformance
        (freeze if frozen else thaw)(*self._workers())

    async def command(self, *commands: str) -> str:
        """As another operator types it."""
        reader, writer = await asyncio.open_unix_connection(self.socket)
        try:
            writer.write(f"{';'.join(commands)}\n".encode())
            return (await reader.read(-1)).decode()
        finally:
            writer.close()

    async def worker(self) -> str:
        """The pid of the one that has the socket; empty while nobody has."""
        with suppress(OSError, StopIteration):
            info = await self.command("show info")
            return next(line[5:] for line in info.splitlines() if line.startswith("Pid: "))
        return ""

    async def ask(self, port: int = 0, path: str = "/") -> Answer:
        """One request of a caller, on a connection of its own."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        except OSError:
            return Answer(0, {})
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            _, _, rest = head.lower().partition(b"content-length:")
            body = await reader.readexactly(int(rest.partition(b"\r")[0] or 0))
        except (OSError, asyncio.IncompleteReadError):
            return Answer(0, {})
        finally:
            writer.close()
        first, *lines = head.decode().strip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        return Answer(int(first.split()[1]), headers, body.decode())

    def log(self) -> str:
        return (self.folder / "haproxy.log").read_text()

    def _workers(self) -> Sequence[int]:
        if self.master is None:
            return []
        with suppress(OSError):
            children = Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children")
            return [int(pid) for pid in children.read_text().split()]
        return []

    async def _until_served_by_another(self, before: str, patience_s: float = PATIENCE_S) -> None:
        assert self.master is not None
        async with asyncio.timeout(patience_s):
            while await self.worker() in ("", before):
                assert self.master.poll() is None, self.log()
                await asyncio.sleep(0.01)


def servers(webs: Sequence[Web], more: str = "") -> str:
    """The lines of servers, for a backend."""
    return "".join(f"    server {one.name} 127.0.0.1:{one.port}{more}\n" for one in webs)


@asynccontextmanager
async def haproxy(folder: Path, level: str = "admin") -> AsyncIterator[HAProxy]:
    """One that is stopped in the end; it has still to be configured and started."""
    one = HAProxy(folder, level=level)
    try:
        yield one
    finally:
        await one.stop()
