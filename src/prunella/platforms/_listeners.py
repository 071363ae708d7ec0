"""What listens on this machine by this user's hand: drafts for services that Prunella could run."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prunella.plugins import Draft
from prunella.ports import Clock

if TYPE_CHECKING:
    import psutil

_INTERPRETER = re.compile(r"(python|node|java|ruby|perl|php|bash|dash|sh)[0-9.]*")
_STAND_INS = frozenset({"docker-proxy"})
_OURS = "PRUNELLA_INSTANCE"  # in the environment of what a Prunella runs already
_NOTE = (
    "Runs now as pid {pid}, outside Prunella, which can only manage what it has started itself: "
    "stop that one before `prunella run` starts its own. Its environment is not taken over."
)
_OVERWRITTEN = " It has overwritten its command line: write down what it is started with."

Address = tuple[str, int]


class _Listener(NamedTuple):
    process: psutil.Process
    sockets: frozenset[Address]


async def survey(_clock: Clock, /) -> Sequence[Draft]:
    """Processes of this user that listen on TCP ports, each with how it was started.

    Left out are those that Prunella runs already, Prunella itself, and whoever has only
    inherited all of its sockets: a worker comes and goes with its parent.
    """
    return await asyncio.to_thread(_look)


def _look() -> list[Draft]:
    import psutil  # noqa: PLC0415 - slow

    found: dict[int, _Listener] = {}
    for process in psutil.process_iter():
        # Gone meanwhile, or another user's after all.
        with suppress(psutil.Error, OSError):
            if sockets := _sockets(process):
                found[process.pid] = _Listener(process, sockets)
    drafts: list[Draft] = []
    for listener in found.values():
        with suppress(psutil.Error):
            if (draft := _draft(listener, found)) is not None:
                drafts.append(draft)
    return drafts


def _sockets(process: psutil.Process) -> frozenset[Address]:
    """Where a process of this user's listens, if it can be reached from here."""
    import psutil  # noqa: PLC0415 - slow

    if process.uids().real != os.getuid() or process.pid == 1:
        return frozenset()
    if Path(f"/proc/{process.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink():
        return frozenset()
    return frozenset(
        (found.laddr[0], found.laddr[1])
        for found in process.net_connections("tcp")
        if found.status == psutil.CONN_LISTEN
    )


def _draft(listener: _Listener, found: Mapping[int, _Listener]) -> Draft | None:
    process, sockets = listener
    for parent in process.parents():
        if parent.pid in found:
            sockets -= found[parent.pid].sockets
    command, cwd = process.cmdline(), process.cwd()
    if not sockets or not command or _belongs_to_another(process, command):
        return None
    note = _NOTE.format(pid=process.pid)
    if shutil.which(command[0]) is None and not (Path(cwd) / command[0]).exists():
        command, note = [process.exe()], note + _OVERWRITTEN
    hosts = _hosts(sockets)
    return Draft(
        id=f"{_name(command)}-{min(hosts)}",
        section={"command": command, "cwd": cwd},
        probes=[_probe(host, port) for port, host in sorted(hosts.items())],
        note=note,
    )


def _belongs_to_another(process: psutil.Process, command: Sequence[str]) -> bool:
    """Whether a Prunella runs it or it is one, or it stands for what another platform runs."""
    ours = "prunella" in {Path(word).name for word in command[:3]} or _OURS in process.environ()
    return ours or process.name() in _STAND_INS


def _hosts(addresses: frozenset[Address]) -> dict[int, str]:
    """For each port, an address of this machine at which it answers."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound
    # The last one counts: IPv4 where there are both.
    ordered = sorted(addresses, key=lambda address: ":" not in address[0])
    return {port: anywhere.get(host, host) for host, port in ordered}


def _probe(host: str, port: int) -> dict[str, Any]:
    elsewhere = {} if host == "127.0.0.1" else {"host": host}
    return {"kind": "tcp", **elsewhere, "port": port}


def _name(command: Sequence[str]) -> str:
    """What people would call it: the program, or what an interpreter runs."""
    name = Path(command[0]).name
    if not _INTERPRETER.fullmatch(name):
        return name
    options = list(command[1:])
    if "-m" in options[:-1]:
        return options[options.index("-m") + 1]
    scripts = (word for word in options if not word.startswith("-"))
    return Path(next(scripts, name)).stem
