"""Gateway ``nginx``: include files, valves that it looks at by itself, and a log that it writes.

A circuit is turned without a reload, by links that nginx looks for (``_nginx_valves``). Only which
servers are ``down`` is configuration, and is tested before nginx is told to read it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from prunella.core.model import Epoch, ServiceId
from prunella.core.traffic import Flow, Valve
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.gateways import _nginx_conf as conf
from prunella.gateways import _nginx_files as files
from prunella.gateways._nginx_examine import examined, meddled, missing, not_included, not_taken
from prunella.gateways._nginx_process import Dump, Master, Program, ask_status
from prunella.gateways._nginx_reading import Line, Reading
from prunella.gateways._nginx_spec import NginxRoute, NginxSpec
from prunella.gateways._nginx_valves import WIDE, Held, Valves
from prunella.gateways._undo import undone_by
from prunella.plugins import GatewayContext, GatewayPlugin
from prunella.ports import Remark, Route


class NginxGateway:
    """All services behind one nginx on this machine."""

    kind: ClassVar[str] = "nginx"
    shares = True
    shuts = True

    def __init__(self, spec: NginxSpec, context: GatewayContext) -> None:
        self._spec = spec
        self._clock = context.clock
        self._places = conf.Places(spec.folder, spec.access_log or spec.folder / "requests.log")
        self._program = Program(
            spec.program, spec.config, spec.prefix, spec.reload_timeout, context.clock
        )
        self._valves = Valves(self._places.valves)
        self._reading = Reading(self._places, context.clock, spec.log_limit)
        self._master: Master | None = None
        self._included: frozenset[Path] = frozenset()
        self._taken = False  # nginx was seen to run with our files
        self._changing = asyncio.Lock()
        self._taking = asyncio.Lock()

    async def route(self, routes: Sequence[Route], /) -> None:
        """Write the include files; nginx reads them if its configuration includes them already."""
        async with self._changing:
            texts = await asyncio.to_thread(_texts, self._places, routes)
            await self._apply(texts) if texts else await self._look()
            self._reading.tell(routes)

    async def observe(self) -> Mapping[ServiceId, Flow]:
        """Whether nginx lives, then the files and what is new in the log.

        A log that has become too large is renamed on the way.
        """
        master = self._master or await self._look()
        async with self._taking:
            await asyncio.to_thread(master.require_moving)
            if self._spec.status is not None:
                await ask_status(self._spec.status, self._spec.timeout)
            flows = await asyncio.to_thread(self._reading.take)
            if await asyncio.to_thread(self._reading.rotate):
                master.send(signal.SIGUSR1)
            return flows

    async def turn(
        self, service: ServiceId, valve: Valve, /, *, before: Valve, lease_s: float, epoch: Epoch
    ) -> None:
        del epoch  # nginx has no place for it
        async with self._changing:
            line = self._line(service)
            master = self._master or await self._look()
            master.find()
            down = dict.fromkeys(valve.shut - before.shut, True)
            down |= dict.fromkeys(before.shut - valve.shut, False)
            await self._require_included(line, servers=bool(down))
            await asyncio.to_thread(self._check, line, down)
            undo = await asyncio.to_thread(self._turn, line, valve, before, lease_s, master)

            def reopen() -> None:
                if undo is not None:
                    wall_s = self._clock.wall().timestamp()
                    self._valves.put_back(line.upstream, undo, wall_s=wall_s)

            with undone_by(reopen):
                await self._shut(line, down)

    async def examine(self) -> Sequence[Remark]:
        lines = self._reading.lines.values()
        return await examined(self._spec, self._places, self._program, self._find, lines)

    async def close(self) -> None:
        async with self._taking:
            await asyncio.to_thread(self._reading.close)

    def _line(self, service: ServiceId) -> Line:
        if service not in self._reading.lines:
            raise PermanentError(f"no service {service} is behind this gateway")
        return self._reading.lines[service]

    # The program --------------------------------------------------------------------------------

    async def _look(self) -> Master:
        """Learn where nginx is and what it includes, though its configuration be broken now."""
        dump: Dump | None = None
        with suppress(PermanentError):  # somebody is at work on it; `built` says if it is not there
            dump = await self._program.tested()
        return await self._find(dump)

    async def _find(self, dump: Dump | None) -> Master:
        prefix, built = await self._program.built()
        self._master = Master(
            self._spec.pid or prefix / ((dump.pid if dump else "") or built), self._clock
        )
        if dump is not None:
            self._included = dump.files
        return self._master

    async def _require_included(self, line: Line, *, servers: bool) -> None:
        """Raises: PermanentError: nginx's configuration does not have what a turn needs."""
        if missing(self._places, line.upstream, self._included, servers=servers):
            self._included = (await self._program.tested()).files
        if lacking := missing(self._places, line.upstream, self._included, servers=servers):
            raise PermanentError(
                not_included(self._spec.config, self._places, line.upstream, lacking)
            )

    async def _apply(self, texts: Mapping[Path, str]) -> None:
        """Write files, have nginx test them, and read them if it includes any; or leave all."""
        wall_s, limit_s = self._clock.wall().timestamp(), 2 * self._spec.reload_timeout
        with self._valves.leaving(wall_s=wall_s, timeout_s=limit_s):
            await self._change(texts)

    async def _change(self, texts: Mapping[Path, str]) -> None:
        before = await asyncio.to_thread(files.contents, texts)
        told: Master | None = None

        def put_back() -> None:
            files.put_back(before)
            if told is not None:
                with suppress(PrunellaError):  # it may have read them by now
                    told.send(signal.SIGHUP)

        with undone_by(put_back):
            for path, text in texts.items():
                await asyncio.to_thread(files.write, path, text.encode())
            dump = await self._program.tested()
            master = await self._find(dump)
            if not texts.keys().isdisjoint(dump.files) and master.runs():
                told = master
                await master.reload(self._spec.reload_timeout)

    # Turning ------------------------------------------------------------------------------------

    def _check(self, line: Line, down: Mapping[str, bool]) -> None:
        """Raises: ConflictError, PermanentError: a file was changed, or a server is not there."""
        for ours in (self._places.http, self._places.location(line.upstream)):
            if not files.is_signed(files.read(ours) or ""):
                raise ConflictError(meddled(ours))
        if not down:
            return
        path = self._places.servers(line.upstream)
        line.refresh(path)
        if unknown := down.keys() - {one.name for one in line.servers}:
            raise PermanentError(f"{', '.join(sorted(unknown))} is no server in {path}")

    def _turn(
        self, line: Line, valve: Valve, before: Valve, lease_s: float, master: Master
    ) -> Held | None:
        """What it was; None: nothing was to be done."""
        wall_s = self._clock.wall().timestamp()
        share = self._valves.read().get(line.upstream, Held()).at(wall_s)
        if share not in (before.share, valve.share):
            if before.share == valve.share:
                return None  # nothing is asked of it, and it is somebody else's
            raise ConflictError(f"the circuit of {line.service} is at {share} %")
        if share == valve.share == WIDE:
            return None
        if valve.share < WIDE:
            self._taken = self._taken or master.writes(self._places.log)
            if not self._taken:
                raise PermanentError(not_taken(self._places))
            self._valves.prepare(valve.share)
            if why := master.blind(self._places.valves):
                raise PermanentError(why)
        return self._valves.turn(line.upstream, valve.share, wall_s=wall_s, lease_s=lease_s)

    async def _shut(self, line: Line, down: Mapping[str, bool]) -> None:
        path = self._places.servers(line.upstream)
        text = await asyncio.to_thread(files.read, path)
        if text is None or (new := conf.with_down(text, down)) == text:
            return
        self._require_running()
        await self._apply({path: new})

    def _require_running(self) -> None:
        if self._master is None or not self._master.runs():
            raise TransientError("nginx does not run any more")


def _texts(places: conf.Places, routes: Sequence[Route]) -> Mapping[Path, str]:
    """What has to be written, by file, in an order in which nginx could read it at any time.

    A file that somebody else has changed is left: it stands in the way of turns, and of no more.

    Raises: PermanentError: two services are one upstream.
    """
    seen: dict[str, ServiceId] = {}
    wanted = {places.http: conf.http_conf(places), places.log_conf: conf.log_conf(places)}
    servers: dict[Path, str] = {}
    for route in routes:
        spec: NginxRoute = route.spec
        if (other := seen.setdefault(spec.upstream, route.service)) != route.service:
            raise PermanentError(f"{other} and {route.service} are both upstream {spec.upstream}")
        wanted[places.location(spec.upstream)] = conf.location_conf(
            places,
            spec.upstream,
            body=route.body,
            fallback=route.fallback,
            retry_after_s=spec.retry_after,
            hangs_up=spec.close_connections,
        )
        named = [(one, one) for one in spec.servers]
        if route.endpoints:
            named = [(one.name, conf.host(one.address, one.port)) for one in route.endpoints]
        if named:
            path = places.servers(spec.upstream)
            text = files.read(path)
            if (new := conf.with_servers(text, spec.upstream, named)) != text:
                servers[path] = new
    changed: dict[Path, str] = {}
    for path, text in wanted.items():
        present = files.read(path)
        theirs = present is not None and not files.is_signed(present)
        if not theirs and present != (new := files.signed(text)):
            changed[path] = new
    return changed | servers


PLUGIN = GatewayPlugin("nginx", NginxSpec, NginxRoute, NginxGateway, writes=True)
