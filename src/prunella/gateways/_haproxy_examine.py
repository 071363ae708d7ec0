"""Whether HAProxy can be driven as it is configured, and what to change if not."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prunella.errors import TransientError
from prunella.gateways._haproxy_circuits import listed
from prunella.gateways._haproxy_files import KeptFile
from prunella.gateways._haproxy_reading import Backend, backends
from prunella.gateways._haproxy_socket import AdminSocket
from prunella.ports import Remark, Route

_OLDEST = (2, 4)
_VERSION = re.compile(r"^Version: (\d+)\.(\d+)", re.MULTILINE)


async def examine(
    socket: AdminSocket, circuits: Path | None, routes: Sequence[Route], kept: Sequence[KeptFile]
) -> Sequence[Remark]:
    """All that is wrong, without changing anything."""
    files = await asyncio.to_thread(lambda: [*_files(circuits, kept)])
    line = f"`stats socket {socket.path} level admin`"
    try:
        program = await _program(socket, line)
        return [*(program or await _configuration(socket, circuits, routes)), *files]
    except TransientError as error:
        return [_fault(f"{error}; its configuration needs {line} in the section `global`"), *files]


async def _program(socket: AdminSocket, line: str) -> Sequence[Remark]:
    info, level = await socket.ask("show info", "show cli level")
    if (version := _VERSION.search(info)) is None:
        return [_fault(f"what answers at {socket.path} does not say that it is HAProxy")]
    if (int(version[1]), int(version[2])) < _OLDEST:
        return [_fault(f"HAProxy {version[1]}.{version[2]} is too old, 2.4 is needed")]
    if level.strip() != "admin":
        return [_fault(f"HAProxy lets nobody change anything at {socket.path}: it needs {line}")]
    return []


async def _configuration(
    socket: AdminSocket, circuits: Path | None, routes: Sequence[Route]
) -> Sequence[Remark]:
    stat, states = await socket.ask("show stat", "show servers state")
    found = backends(stat, states, {n for one in routes for n in (one.spec.backend, one.fallback)})
    remarks = [remark for route in routes for remark in _route(route, found, circuits)]
    if circuits is None:
        remarks.append(
            Remark("without `circuits` an open circuit stays open if Prunella is gone for good")
        )
    elif listed((await socket.ask(f"show map {circuits}"))[0]) is None:
        remarks.append(
            _fault(
                f"HAProxy has no map {circuits}: its configuration has to look up circuits in it, "
                "by this very path"
            )
        )
    return remarks


def _route(route: Route, found: Mapping[str, Backend], circuits: Path | None) -> Iterator[Remark]:
    service, name, server = route.service, route.spec.backend, route.spec.server
    if (backend := found.get(name)) is None:
        yield _fault(f"HAProxy has no backend {name}, which is to serve {service}")
        return
    if server and server not in {one.name for one in backend.members}:
        yield _fault(f"HAProxy has no server {server} in its backend {name}")
    if route.fallback and route.fallback not in found:
        yield _fault(f"HAProxy has no backend {route.fallback}, the fallback of {service}")
    if circuits is not None and (server or not backend.http):
        why = "is one server" if server else "speaks TCP"
        yield Remark(
            f"{service} {why}: its circuit lets all through or nothing, and does not end by itself"
        )


def _files(circuits: Path | None, kept: Sequence[KeptFile]) -> Iterator[Remark]:
    if circuits is not None and not circuits.is_file():
        yield _fault(f"there is no file {circuits}, without which HAProxy does not start")
    for file in kept:
        folder = file.path.parent
        if file.trouble:
            yield _fault(file.trouble)
        elif not os.access(folder, os.W_OK | os.X_OK):
            yield _fault(f"no file can be replaced in {folder}, and {file.path.name} has to be")


def _fault(message: str) -> Remark:
    return Remark(message, fault=True)
