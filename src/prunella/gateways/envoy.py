"""Gateway ``envoy``: files that Envoy watches, and an Envoy of our own if that is wanted.

What is written is live in some ten milliseconds, without a reload. Which circuits are open, and
until when, stands in a filter that is there only while there are some; which servers get nothing
stands beside their addresses. Envoy keeps all of it when we are gone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar
from uuid import uuid4

from pydantic import AfterValidator, Field

from prunella.argv import run_argv
from prunella.core.model import Epoch, ServiceId
from prunella.core.traffic import OPEN_WIDE, Flow, Server, Traffic, Valve
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.gateways import _envoy_resources as resources
from prunella.gateways._envoy_files import Files
from prunella.gateways._envoy_program import Program, find, too_old
from prunella.gateways._envoy_resources import Line, Open
from prunella.gateways._envoy_stats import Stats, read
from prunella.gateways._undo import undone_by
from prunella.plugins import GatewayContext, GatewayPlugin
from prunella.ports import Remark, Route
from prunella.spec import Duration, GatewaySpec, RouteSpec

_VALVES_FILE = "valves.json"
_CLUSTERS = "clusters.json"
_VERSIONS = {
    _VALVES_FILE: "extension_config_discovery.http_filter.valves.version_text",
    _CLUSTERS: "cluster_manager.cds.version_text",
    "listeners.json": "listener_manager.lds.version_text",
}


def _place(value: str) -> str:
    found = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):(\d{1,5})", value)
    if found is None or not 0 < int(found[2]) < 65536:
        raise ValueError("expected an address such as 127.0.0.1:8080")
    return value


Place = Annotated[str, AfterValidator(_place)]


class EnvoySpec(GatewaySpec):
    """An Envoy that watches a folder of ours."""

    folder: Path = Field(description="Where the files are that Envoy watches, and its sockets.")
    listen: Place = Field(
        default="127.0.0.1:8080", description="Where callers come in, unless a service says else."
    )
    start: bool = Field(
        default=False,
        description="Start Envoy, and start it again when it has ended; it outlives Prunella. "
        "Else you run it with the `bootstrap.json` of the folder.",
    )
    program: str | None = Field(
        default=None, description="Its program. Default: that of `pip install 'prunella[envoy]'`."
    )
    workers: int = Field(
        default=1, ge=1, le=256, description="Its threads: `--concurrency`, if you run it."
    )


class EnvoyRoute(RouteSpec):
    """Which requests are a service's."""

    listen: Place | None = Field(default=None, description="An address of its own.")
    domains: tuple[Annotated[str, Field(pattern=r"^[^\s/]+$")], ...] = Field(
        default=("*",), min_length=1, description="Hosts that callers ask for; * is any."
    )
    prefix: str = Field(default="/", pattern=r"^/\S*$", description="How their paths begin.")
    request_timeout: Duration = Field(
        default=15.0, description="A request that takes longer has failed."
    )


class EnvoyGateway:
    """All services behind one Envoy."""

    kind: ClassVar[str] = "envoy"
    shares = True
    shuts = True

    def __init__(self, spec: EnvoySpec, context: GatewayContext) -> None:
        self._spec = spec
        self._clock = context.clock
        self._files = Files(spec.folder)
        self._program = Program(
            spec.folder,
            spec.program,
            spec.workers,
            spec.timeout,
            context.clock,
            node=resources.node(context.name),
        )
        self._name = context.name
        self._in_force = False  # what is written is known to serve
        self._shut: tuple[object, dict[ServiceId, frozenset[str]]] = None, {}
        self._lines: dict[ServiceId, Line] = {}
        self._changing = asyncio.Lock()

    async def route(self, routes: Sequence[Route], /) -> None:
        async with self._changing:
            lines = _lines(routes, self._spec.listen)
            version = _version()
            texts = await asyncio.to_thread(self._texts, lines, version)
            if not texts and self._in_force:
                self._lines = lines
                return
            # Asked first: the folder of somebody else's Envoy is not written in.
            up = await self._program.lives()
            before = await asyncio.to_thread(self._files.write, texts)
            with undone_by(partial(self._files.put_back, before)):
                if not up and self._spec.start:
                    await self._program.start()
                    up = True
                if up:
                    await self._insist(lines, again=not texts)
            self._lines = lines

    async def observe(self) -> Mapping[ServiceId, Flow]:
        if not self._lines:
            return {}
        async with self._changing:
            await self._require_up()
            opened, shut = await asyncio.to_thread(self._set)
        try:
            stats = await read(self._program, self._lines, self._clock)
        except ConnectionError as error:
            raise TransientError("Envoy does not run any more") from error
        now, wall_ms = self._clock.now(), self._wall_ms()
        nothing = Traffic(now)
        return {
            service: _flow(line, opened.get(service), shut[service], stats, nothing, wall_ms)
            for service, line in self._lines.items()
        }

    async def turn(
        self, service: ServiceId, valve: Valve, /, *, before: Valve, lease_s: float, epoch: Epoch
    ) -> None:
        del epoch  # Envoy has no place for it
        async with self._changing:
            if service not in self._lines:
                raise PermanentError(f"no service {service} is behind this gateway")
            line = self._lines[service]
            await self._require_up()
            opened, shut = await asyncio.to_thread(self._set)
            version = _version()
            wall_ms = self._wall_ms()
            texts: dict[str, str] = {}
            versions: dict[str, str] = {}
            present = _share(opened.get(service), wall_ms)
            if present not in (before.share, valve.share):
                raise ConflictError(f"the circuit of {service} is at {present} %")
            if not present == valve.share == OPEN_WIDE.share:
                ends_ms = wall_ms + int(lease_s * 1000)
                opened = {n: one for n, one in opened.items() if one.ends_ms > wall_ms}
                opened.pop(service, None)
                if valve.share < OPEN_WIDE.share:
                    opened[service] = Open(valve.share, ends_ms)
                texts[_VALVES_FILE] = resources.valves(opened, self._lines, version)
                versions[_VERSIONS[_VALVES_FILE]] = version
            wanted = (shut[service] | (valve.shut - before.shut)) - (before.shut - valve.shut)
            if wanted != shut[service]:
                names = {one.name for one in line.endpoints}
                if unknown := wanted - names:
                    raise PermanentError(f"{', '.join(sorted(unknown))} is no server of {service}")
                shut[service] = wanted
                texts[_CLUSTERS] = resources.clusters(self._lines.values(), shut, version)
                versions[_VERSIONS[_CLUSTERS]] = version
            if texts:
                await self._apply(texts, versions, version)

    async def examine(self) -> Sequence[Remark]:
        remarks: list[Remark] = []
        if self._spec.start:
            try:
                path = await asyncio.to_thread(find, self._spec.program)
                said = await run_argv([path, "--version"], timeout_s=self._spec.timeout)
                trouble = too_old(said.output.decode(errors="replace"))
            except PrunellaError as error:
                trouble = str(error)
            if trouble:
                remarks.append(Remark(trouble, fault=True))
        if trouble := await asyncio.to_thread(self._files.trouble):
            remarks.append(Remark(trouble, fault=True))
        try:
            lives = await self._program.lives()
        except PrunellaError as error:
            return [*remarks, Remark(str(error), fault=True)]
        if not lives and not self._spec.start:
            bootstrap = self._spec.folder / "bootstrap.json"
            words = f"no Envoy watches {self._spec.folder}: run `envoy -c {bootstrap}`, or `start`"
            remarks.append(Remark(words, fault=True))
        return remarks

    async def close(self) -> None:
        """Envoy goes on; `stop` ends it."""

    async def stop(self) -> None:
        """End the Envoy itself: nobody is served by it any more."""
        await self._program.stop()

    async def _require_up(self) -> None:
        """Raises: TransientError, PermanentError: it does not run, or not by what is written."""
        if not await self._program.lives():
            self._in_force = False
            if not self._spec.start:
                raise TransientError(f"no Envoy watches {self._spec.folder}")
            await self._program.start()
        if not self._in_force:
            await self._insist(self._lines, again=True)

    def _texts(self, lines: Mapping[ServiceId, Line], version: str) -> dict[str, str]:
        """What has to be written; valves and servers that are shut stay as they are."""
        folder, every = self._files.folder, list(lines.values())
        opened, shut = self._set(lines)
        opened = {name: one for name, one in opened.items() if name in lines}
        places = {line.listen for line in every}
        texts = {
            resources.routes_file(place): resources.routes(every, place, version)
            for place in places
        }
        texts[_VALVES_FILE] = resources.valves(opened, lines, version)
        texts[_CLUSTERS] = resources.clusters(every, shut, version)
        texts["workers.json"] = resources.workers(version)
        texts["listeners.json"] = resources.listeners(folder, every, version)
        texts["bootstrap.json"] = resources.bootstrap(folder, self._name)
        return {name: text for name, text in texts.items() if self._files.differs(name, text)}

    async def _insist(self, lines: Mapping[ServiceId, Line], *, again: bool) -> None:
        """Wait until all that is written is what serves.

        Args:
            again: write it once more, since what Envoy has refused it reads only then.
        """
        self._in_force = False
        names = dict(_VERSIONS)
        for place in {line.listen for line in lines.values()}:
            names[resources.routes_file(place)] = resources.routes_version(place)
        if not lines:
            del names[_VALVES_FILE]  # no listener asks for it
        texts = {name: await asyncio.to_thread(self._files.read, name) for name in names}
        versions = {names[name]: resources.version_of(text) for name, text in texts.items()}
        nonce = _version()
        written = {**(texts if again else {}), "workers.json": resources.workers(nonce)}
        await asyncio.to_thread(self._files.write, written)
        await self._taken(versions, nonce)
        self._in_force = True

    async def _apply(
        self, texts: Mapping[str, str], versions: Mapping[str, str], version: str
    ) -> None:
        """Write, and wait until it is so for every new request; or put everything back."""
        before = await asyncio.to_thread(self._files.write, texts)
        with undone_by(partial(self._files.put_back, before)):
            nonce = {"workers.json": resources.workers(version)}
            await asyncio.to_thread(self._files.write, nonce)
            await self._taken(versions, version)

    async def _taken(self, versions: Mapping[str, str], nonce: str) -> None:
        try:
            await self._program.taken(versions, nonce)
        except ConnectionError as error:
            raise TransientError("Envoy does not run any more") from error

    def _set(
        self, lines: Mapping[ServiceId, Line] | None = None
    ) -> tuple[dict[ServiceId, Open], dict[ServiceId, frozenset[str]]]:
        """What stands in the files: open circuits, and the servers that are shut."""
        opened: dict[ServiceId, Open] = {}
        with suppress(FileNotFoundError):
            opened = resources.opened_of(self._files.read(_VALVES_FILE))
        found: dict[ServiceId, frozenset[str]] = {}
        with suppress(FileNotFoundError):
            stamp = self._files.stamp(_CLUSTERS)
            if stamp != self._shut[0]:  # a large file, that seldom changes
                self._shut = stamp, resources.shut_of(self._files.read(_CLUSTERS))
            found = self._shut[1]
        services = self._lines if lines is None else lines
        return opened, {service: found.get(service, frozenset()) for service in services}

    def _wall_ms(self) -> int:
        return int(self._clock.wall().timestamp() * 1000)


def _version() -> str:
    return uuid4().hex


def _share(opened: Open | None, wall_ms: int) -> int:
    return OPEN_WIDE.share if opened is None or opened.ends_ms <= wall_ms else opened.share


def _flow(
    line: Line,
    opened: Open | None,
    shut: frozenset[str],
    stats: Stats,
    nothing: Traffic,
    wall_ms: int,
) -> Flow:
    service, counted = line.service, stats.servers
    servers = tuple(
        Server(name, at, port, traffic=counted.get((service, at, port), nothing))
        for name, at, port in line.endpoints
    )
    return Flow(Valve(_share(opened, wall_ms), shut), stats.services[service], servers)


def _lines(routes: Sequence[Route], listen: str) -> dict[ServiceId, Line]:
    """Raises: PermanentError: two services want the same requests, or a fallback is no address."""
    lines: dict[ServiceId, Line] = {}
    taken: dict[tuple[object, ...], ServiceId] = {}
    for route in routes:
        spec: EnvoyRoute = route.spec
        line = Line(
            route.service,
            _split(spec.listen or listen),
            tuple(sorted(spec.domains)),
            spec.prefix,
            spec.request_timeout,
            route.body,
            _split(route.fallback) if route.fallback else None,
            route.endpoints,
        )
        for domain in line.domains:
            other = taken.setdefault((line.listen, domain, line.prefix), line.service)
            if other != line.service:
                where = f"{domain}{line.prefix}"
                raise PermanentError(f"{other} and {line.service} both want {where}")
        lines[line.service] = line
    return lines


def _split(place: str) -> tuple[str, int]:
    try:
        _place(place)
    except ValueError as error:
        raise PermanentError(f"{place!r}: {error}") from error
    host, _, port = place.rpartition(":")
    return host.strip("[]"), int(port)


PLUGIN = GatewayPlugin("envoy", EnvoySpec, EnvoyRoute, EnvoyGateway, writes=True)
