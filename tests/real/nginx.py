"""A real nginx on a free port, with a folder of its own.

Started in the foreground, so that it is our child and ends with us: a master that gets SIGTERM ends
its workers, one that gets SIGKILL leaves them behind.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.real.freeze import freeze, thaw

from prunella.testing.site import free_port

_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_CONF = """\
{user}
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp;
    fastcgi_temp_path {folder}/tmp; uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
{http}
    server {{
        listen 127.0.0.1:{port};
        location = /nginx_status {{ access_log off; stub_status; }}
{server}
    }}
}}
"""


def missing() -> str:
    """Why there can be no nginx here; empty: there can be."""
    lacking = [one for one in ("nginx", "setpriv") if shutil.which(one, path=_PATH) is None]
    return f"{', '.join(lacking)} is not installed" if lacking else ""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - processes have no event
            await asyncio.sleep(0.01)


@dataclass
class Nginx:
    """One of them; ``write`` its configuration first."""

    folder: Path
    port: int = field(default_factory=free_port)
    program: str = field(default_factory=lambda: shutil.which("nginx", path=_PATH) or "nginx")
    _process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "nginx.conf"

    @property
    def status(self) -> str:
        return f"http://127.0.0.1:{self.port}/nginx_status"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def write(self, http: str, server: str) -> None:
        user = "user root;" if os.geteuid() == 0 else ""
        self.config.write_text(
            _CONF.format(user=user, folder=self.folder, http=http, server=server, port=self.port)
        )

    def workers(self) -> list[int]:
        """A child has its master's title at first."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in found if "worker process" in _title(pid)]

    def launch(self) -> None:
        command = ["setpriv", "--pdeathsig", "TERM", self.program]
        self._process = subprocess.Popen(
            [*command, "-c", str(self.config), "-g", "daemon off;"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def start(self) -> None:
        (self.folder / "nginx.pid").unlink(missing_ok=True)
        self.launch()
        await until(lambda: (self.folder / "nginx.pid").exists() and len(self.workers()) >= 2)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def reload(self) -> None:
        """As an operator does, and wait until the old workers have gone."""
        before = set(self.workers())
        self.send(signal.SIGHUP)
        await until(lambda: not before & set(self.workers()))

    def freeze(self, still: bool) -> None:  # noqa: FBT001 - as in `Bench`
        (freeze if still else thaw)(self.pid, *self.workers())

    async def crash(self) -> None:
        """End all of its processes at once, as the kernel does when memory is short."""
        assert self._process is not None
        for pid in (self.pid, *self.workers()):
            os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait, 30)
        self._process = None

    async def stop(self) -> None:
        if self._process is None:
            return
        self.freeze(False)  # noqa: FBT003
        self.send(signal.SIGTERM)
        await asyncio.to_thread(self._process.wait, 30)
        self._process = None


def _title(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@asynccontextmanager
async def nginx(folder: Path) -> AsyncIterator[Nginx]:
    """One that is stopped at the end, however that comes."""
    one = Nginx(folder)
    try:
        yield one
    finally:
        await one.stop()
