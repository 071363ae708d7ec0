"""What a survey finds of the processes that listen here."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from prunella.platforms._listeners import survey
from prunella.plugins import Draft
from prunella.runtime.clock import SystemClock
from prunella.testing.site import PATIENCE_S, free_port, until

# Listens where it is told, and forks a worker with the same sockets.
LISTENER = """
import os, socket, sys
sockets = []
for word in sys.argv[1:]:
    host, _, port = word.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    made.bind((host, int(port)))
    made.listen()
    sockets.append(made)
os.fork()
import signal
signal.pause()
"""

PYTHON = str(Path(sys.executable).resolve())
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    script = tmp_path / "listener.py"
    script.write_text(LISTENER)
    begun: list[subprocess.Popen[bytes]] = []

    def begin(
        *addresses: str, name: str = sys.executable, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [name, str(script), *addresses],
            executable=sys.executable,
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            process_group=0,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.fixture
def found() -> Callable[[int], Awaitable[Draft]]:
    async def wait(port: int) -> Draft:
        async with asyncio.timeout(2 * PATIENCE_S):
            while True:
                for draft in await survey(SystemClock()):
                    if draft.id.endswith(f"-{port}"):
                        return draft

    return wait


async def test_it_is_found_once_with_how_it_was_started(
    start: Start, found: Callable[[int], Awaitable[Draft]], tmp_path: Path
) -> None:
    one, other = sorted((free_port(), free_port()))
    process = start(f"0.0.0.0:{one}", f"127.0.0.1:{other}", f"::1:{other}")
    draft = await found(one)
    assert draft.id == f"listener-{one}"
    words = [f"0.0.0.0:{one}", f"127.0.0.1:{other}", f"::1:{other}"]
    script = str(tmp_path / "listener.py")
    assert draft.section == {"command": [sys.executable, script, *words], "cwd": str(tmp_path)}
    assert draft.probes == [{"kind": "tcp", "port": one}, {"kind": "tcp", "port": other}]
    assert f"pid {process.pid}," in draft.note
    ports = [probe["port"] for one in await survey(SystemClock()) for probe in one.probes]
    assert (ports.count(one), ports.count(other)) == (1, 1), "its worker is no service"


async def test_a_service_on_ipv6_alone_is_measured_there(
    start: Start, found: Callable[[int], Awaitable[Draft]]
) -> None:
    port = free_port()
    start(f"::1:{port}")
    assert (await found(port)).probes == [{"kind": "tcp", "host": "::1", "port": port}]


async def test_a_command_line_that_was_overwritten_is_not_taken_for_one(
    start: Start, found: Callable[[int], Awaitable[Draft]]
) -> None:
    port = free_port()
    start(f"127.0.0.1:{port}", name="web: master process")
    draft = await found(port)
    assert draft.section["command"] == [PYTHON]
    assert draft.note.endswith("write down what it is started with.")


async def test_what_a_prunella_runs_already_is_left_out(
    start: Start, found: Callable[[int], Awaitable[Draft]]
) -> None:
    ours, other = free_port(), free_port()
    start(f"127.0.0.1:{ours}", env={"PRUNELLA_INSTANCE": "x:0"})
    await asyncio.to_thread(_until_it_listens, ours)
    start(f"127.0.0.1:{other}")
    await found(other)
    assert [
        draft.id for draft in await survey(SystemClock()) if draft.id.endswith(f"-{ours}")
    ] == []


def _until_it_listens(port: int) -> None:
    def listens() -> bool:
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return True
        return False

    until(listens)
