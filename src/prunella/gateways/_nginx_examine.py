"""Whether Prunella and an nginx can work together, in words that say what to do."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from prunella.core.model import ServiceId
from prunella.errors import PrunellaError
from prunella.gateways import _nginx_files as files
from prunella.gateways._nginx_blocks import Surroundings
from prunella.gateways._nginx_conf import Places
from prunella.gateways._nginx_process import Dump, Master, Program, ask_status
from prunella.gateways._nginx_reading import Line
from prunella.gateways._nginx_spec import NginxSpec
from prunella.ports import Remark


def missing(
    places: Places, upstream: str, included: frozenset[Path], *, servers: bool
) -> Sequence[Path]:
    """Our files that nginx's configuration does not include and should."""
    needed = [places.http, places.location(upstream)]
    if servers:
        needed.append(places.servers(upstream))
    there = {path.resolve() for path in included}
    return [path for path in needed if path.resolve() not in there]


def not_included(config: Path, places: Places, upstream: str, lacking: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in lacking)
    return (
        f"{config} does not include {names}. It needs: {places.snippet(upstream)}; then reload "
        "nginx. Prunella writes the files when it starts"
    )


def not_taken(places: Places) -> str:
    return f"nginx does not write {places.log}, though its configuration says so now: reload nginx"


def meddled(path: Path) -> str:
    return (
        f"somebody else has changed {path}, and it is left as it is; "
        "remove it to have it written again"
    )


async def examined(
    spec: NginxSpec,
    places: Places,
    program: Program,
    find: Callable[[Dump | None], Awaitable[Master]],
    lines: Iterable[Line],
) -> Sequence[Remark]:
    """All that is found; `find` learns from a good configuration where nginx is."""
    try:
        return [remark async for remark in _found(spec, places, program, find, list(lines))]
    except PrunellaError as error:
        return [Remark(str(error), fault=True)]


async def _found(
    spec: NginxSpec,
    places: Places,
    program: Program,
    find: Callable[[Dump | None], Awaitable[Master]],
    lines: Sequence[Line],
) -> AsyncIterator[Remark]:
    await program.built()
    if why := _unwritable(spec.folder):
        yield Remark(why, fault=True)
    for path in [places.http, places.log_conf, *(places.location(one.upstream) for one in lines)]:
        present = files.read(path)
        if present is not None and not files.is_signed(present):
            yield Remark(meddled(path), fault=True)
    dump = await program.tested()
    for line in lines or _written(places, dump):
        if remark := _of_line(line, spec.config, places, dump):
            yield remark
    if not lines and places.http.resolve() not in {path.resolve() for path in dump.files}:
        said = not_included(spec.config, places, "UPSTREAM", [places.http])
        yield Remark(said, fault=True)
    master = await find(dump)
    master.require_moving()
    master.require_ours()
    if why := master.blind(places.valves):
        yield Remark(why, fault=True)
    if spec.status is None:
        yield Remark(
            "there is no 'status', so that an nginx that runs and does not answer is not seen"
        )
    else:
        await ask_status(spec.status, spec.timeout)
    if places.http in dump.files and not master.writes(places.log):
        yield Remark(not_taken(places), fault=True)


def _written(places: Places, dump: Dump) -> Sequence[Line]:
    """Services whose files nginx includes, where we were not told of any: we only look."""
    ending = ".location.conf"
    names = [one.name.removesuffix(ending) for one in places.folder.glob(f"*{ending}")]
    return [
        Line(ServiceId(name), name, ".leaving" in (files.read(places.location(name)) or ""))
        for name in sorted(names)
        if not missing(places, name, dump.files, servers=False)
    ]


def _of_line(line: Line, config: Path, places: Places, dump: Dump) -> Remark | None:
    included = dump.files
    line.refresh(places.servers(line.upstream))
    if lacking := missing(places, line.upstream, included, servers=False):
        return Remark(not_included(config, places, line.upstream, lacking), fault=True)
    location = places.location(line.upstream)
    around = Surroundings.of(dump.texts, config, location, places.log_conf)
    if around.tries_files():
        return Remark(
            f"a location of {line.service} has try_files, which nginx forgets while an 'if' of ours"
            f" holds: include {location} in the named location that try_files leads to",
            fault=True,
        )
    if not around.logs():
        return Remark(
            f"requests to {line.service} are not counted: an access_log of yours takes the place "
            f"of ours. Write include {places.log_conf}; beside it (and no 'access_log off')",
            fault=True,
        )
    if line.hangs_up and around.adds_headers():
        return Remark(
            f"what add_header says around {line.service} is missing for the moment in which a "
            "server is shut: set 'close_connections: false' where a header must never be missing"
        )
    if not line.servers:
        return Remark(
            f"no servers of {line.service} are known: name them in 'servers' to have single ones "
            "shut and counted"
        )
    if lacking := missing(places, line.upstream, included, servers=True):
        said = not_included(config, places, line.upstream, lacking)
        return Remark(f"no server of {line.service} can be shut: {said}")
    return None


def _unwritable(folder: Path) -> str:
    present = next(one for one in (folder, *folder.parents) if one.exists())
    if not present.is_dir():
        return f"{present} is no folder"
    if not os.access(present, os.W_OK | os.X_OK):
        return f"Prunella may not write to {present}"
    return ""
