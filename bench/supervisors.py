"""The same small web server under different supervisors, each started and ended by us."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from bench.machine import answers, free_port, running, server_pid, until

_CONFIG = """
store: "sqlite:///{folder}/prunella.db"
state_dir: "{folder}/state"
api: off
defaults:
  interval: 1s
  timeout: 1s
  grace: 1ms
  verify: {{soak: 100ms, deadline: 20s}}
  guards:
    rise: 1
    budget: {{actions: 1000, window: 1s}}
    backoff: {{base: 1ms, cap: 1ms}}
    chain: {{ineffective: 1000, attempts: 1000, window: 1s}}
services:
  web:
    platform: {platform}
    {platform}: {section}
    probes: [{{kind: http, url: "http://127.0.0.1:{port}/"}}]
"""
_SUPERVISORD = """
[supervisord]
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
user=root
[program:web]
command={command}
autorestart=true
startsecs=0
startretries=1000000
"""
_MONIT = """
set daemon 1
set logfile {folder}/monit.log
set pidfile {folder}/monit.pid
set idfile {folder}/monit.id
set statefile {folder}/monit.state
check process web with pidfile {folder}/web.pid
  start program = "/bin/sh {folder}/start.sh" with timeout 1 seconds
  stop program = "/bin/sh {folder}/stop.sh"
  if failed host 127.0.0.1 port {port} protocol http with timeout 1 seconds
    for 3 cycles then restart
"""

Supervisor = Callable[[Path], AbstractContextManager[int]]
"""Takes an empty folder; inside, the server is up under it, on the port that it answers."""


def _command(folder: Path, port: int) -> list[str]:
    (folder / "index.html").write_text("ok\n")
    return ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(folder)]


@contextlib.contextmanager
def _supervised(argv: list[str], folder: Path, port: int) -> Iterator[int]:
    try:
        with running(argv, folder / "output.log"):
            until(lambda: answers(port), 20.0, f"{argv[0]} starts the server", 0.02)
            yield port
    finally:
        left = server_pid(port)
        if left is not None:
            os.kill(left, signal.SIGKILL)


def prunella_argv(folder: Path, port: int, platform: str, section: dict[str, object]) -> list[str]:
    """A daemon that heals what answers on that port, as often and as soon as it is asked to."""
    config = folder / "prunella.yaml"
    text = _CONFIG.format(folder=folder, port=port, platform=platform, section=json.dumps(section))
    config.write_text(text)
    return [sys.executable, "-m", "bench.daemon", str(config)]


@contextlib.contextmanager
def prunella(folder: Path) -> Iterator[int]:
    port = free_port()
    argv = prunella_argv(folder, port, "process", {"command": _command(folder, port)})
    with _supervised(argv, folder, port):
        yield port


@contextlib.contextmanager
def bare_loop(folder: Path) -> Iterator[int]:
    """The least that respawns: no supervision, no record, no back-off."""
    port = free_port()
    line = " ".join(_command(folder, port))
    with _supervised(["sh", "-c", f"while :; do {line}; done"], folder, port):
        yield port


@contextlib.contextmanager
def supervisord(folder: Path) -> Iterator[int]:
    port = free_port()
    config = folder / "supervisord.conf"
    command = " ".join(_command(folder, port))
    config.write_text(_SUPERVISORD.format(folder=folder, command=command))
    argv = ["supervisord", "--nodaemon", f"--configuration={config}"]
    with _supervised(argv, folder, port):
        yield port


@contextlib.contextmanager
def monit(folder: Path) -> Iterator[int]:
    port = free_port()
    line = " ".join(_command(folder, port))
    (folder / "start.sh").write_text(
        f"exec </dev/null >/dev/null 2>&1\nPATH={os.environ['PATH']}\n"
        f"{line} &\necho $! >{folder}/web.pid\n"
    )
    (folder / "stop.sh").write_text(f"kill -9 $(cat {folder}/web.pid)\n")
    config = folder / "monitrc"
    config.write_text(_MONIT.format(folder=folder, port=port))
    config.chmod(0o600)
    with _supervised(["monit", "-I", "-c", str(config)], folder, port):
        yield port


PEERS: dict[str, tuple[str, Supervisor]] = {
    "bare loop": ("sh", bare_loop),
    "supervisord": ("supervisord", supervisord),
    "Monit": ("monit", monit),
}


def missing(binary: str) -> str:
    """Why a peer is not measured; empty when it can be."""
    return "" if shutil.which(binary) else f"{binary} is not installed"
