"""The demo: start the services, break them one after the other, watch them being healed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import structlog
from rich.console import Console

from prunella.app import on_fast_loop
from prunella.config import parse
from prunella.core.model import Instant
from prunella.demo import server
from prunella.demo.callers import Callers
from prunella.demo.load import Load
from prunella.demo.releases import Releases
from prunella.demo.show import Show, history
from prunella.errors import PrunellaError
from prunella.gateways.envoy import EnvoyGateway, EnvoySpec
from prunella.plugins import GatewayContext
from prunella.runtime.clock import SystemClock
from prunella.runtime.orchestrator import SelfHealingOrchestrator
from prunella.testing.site import free_port

_HEALED_WITHIN_S = 14.0
_LIMIT_S = 57.0
_CLIENTS = 10
_PAUSE_S = 0.5  # for the eye, between two acts
_CONFIG = """
store: "sqlite:///{folder}/prunella.db"
state_dir: "{folder}/state"
api: off
defaults:
  interval: 500ms
  timeout: 1s
  grace: 1s
  thresholds: {{response_time: 300ms}}
  verify: {{soak: 2s, deadline: 20s}}
gateways:
  local: {{kind: envoy, folder: envoy, start: true, listen: "127.0.0.1:{entry}", interval: 1s}}
services:
"""
_SERVICE = """
  {id}:
    name: {name}
    platform: process
    process: {{command: {command}, ports: {port}-{port}, stop_timeout: 2s}}
    probes: [{{kind: http, url: "http://127.0.0.1:{{port}}/"}}]
"""
_SCALED = """
  thumbnails:
    name: Thumbnails
    platform: process
    process: {{command: {command}, ports: {port}-{last_port}, stop_timeout: 2s}}
    probes:
      - kind: http
        url: "http://127.0.0.1:{{port}}/load"
        number: {{pattern: 'inflight (\\d+)', above: 7}}
    scale: {{min: 1, max: 2, ttl: 3s}}
"""
_RELEASED = """
  invoices:
    name: Invoices
    platform: process
    process: {{command: {command}, cwd: invoices, ports: {port}-{port}, stop_timeout: 2s}}
    probes: [{{kind: http, url: "http://127.0.0.1:{{port}}/"}}]
    release:
      kind: git
      repository: invoices/repository
      ref: main
      current: invoices/current
      soak: 3s
    verify: {{rollback_soak: 2s}}
"""
_GUARDED = """
  storefront:
    name: Storefront
    domain: shop
    platform: process
    process: {{command: {storefront}, ports: {first}-{first}, stop_timeout: 2s}}
    probes: [{{kind: http, url: "http://127.0.0.1:{{port}}/"}}]
    depends_on: [recommend]
  recommend:
    name: Recommendations
    domain: shop
    platform: process
    process: {{command: {recommend}, ports: {second}-{second}, stop_timeout: 2s}}
    probes: [{{kind: http, url: "http://127.0.0.1:{{port}}/"}}]
    depends_on: [{{service: catalogue, optional: true}}]
  catalogue:
    name: Catalogue
    domain: shop
    platform: process
    process: {{command: {catalogue}, ports: {third}-{third}, stop_timeout: 2s}}
    probes: [{{kind: http, url: "http://127.0.0.1:{{port}}/"}}]
    gateway: {{name: local}}
    circuit: {{open_for: 2s, step: 1s, requests: 5, body: back soon}}
"""
_STOREFRONTS = ("storefront", "unwatched")
_PLAIN = {"shop": "Web shop", "search": "Search", "payments": "Payments"}


@dataclass(slots=True)
class _Stage:
    """Where the demo takes place: the services, and how to get at them."""

    orchestrator: SelfHealingOrchestrator
    ports: dict[str, int]
    releases: Releases
    folder: Path
    clock: SystemClock = field(default_factory=SystemClock)
    load: Load | None = None
    callers: Callers | None = None
    helped: int = 0

    @property
    def stuck(self) -> Path:
        """While it is there, what the catalogue needs itself is down."""
        return self.folder / "stuck"

    async def wait(self, seconds: float) -> None:
        await self.clock.sleep_until(Instant(self.clock.now() + seconds))

    async def count(self, service: str, remedy: str) -> int:
        """How often this remedy has helped this service."""
        actions = await self.orchestrator.get_healing_history(20)
        found = ((a.service_id, a.action) for a in actions if a.success)
        return sum(one == (service, remedy) for one in found)

    def name(self, service: str) -> str:
        return self.orchestrator.get_service_health(service).name

    async def well(self, services: int) -> None:
        while self.orchestrator.get_system_health().healthy < services:
            await self.wait(0.05)

    async def has_helped(self, act: _Act, before: int) -> bool:
        """Wait for its remedy to be carried out and verified once more than `before`."""
        end = self.clock.now() + _HEALED_WITHIN_S
        while await self.count(act.service, act.remedy) == before:
            if self.clock.now() > end:
                return False
            await self.wait(0.1)
        return True

    async def end(self) -> None:
        load, self.load = self.load, None
        callers, self.callers = self.callers, None
        for clients in (load, callers):
            if clients is not None:
                await clients.end()


@dataclass(frozen=True, slots=True)
class _Act:
    """Something that befalls a service, in words, and what is to be done about it.

    ``meanwhile``: the next act begins before that has been done.
    """

    service: str
    words: str
    happen: Callable[[_Stage, str], Awaitable[None]]
    remedy: str = "restart"
    meanwhile: bool = False


def _signal(number: signal.Signals) -> Callable[[_Stage, str], Awaitable[None]]:
    async def happen(stage: _Stage, service: str) -> None:
        os.kill(stage.orchestrator.get_pids(service)[0], number)

    return happen


def _break(fault: str) -> Callable[[_Stage, str], Awaitable[None]]:
    def order(port: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("POST", f"/fault/{fault}")
        connection.getresponse().read()
        connection.close()

    async def happen(stage: _Stage, service: str) -> None:
        await asyncio.to_thread(order, stage.ports[service])

    return happen


async def _rush(stage: _Stage, service: str) -> None:
    first = stage.ports[service]
    stage.load = Load((first, first + 1), _CLIENTS, stage.clock)


async def _get_stuck(stage: _Stage, service: str) -> None:  # noqa: ARG001 - as the others
    watched, unwatched = (stage.ports[one] for one in _STOREFRONTS)
    stage.callers = Callers(watched, unwatched, stage.clock)
    await stage.wait(1)
    stage.stuck.touch()


async def _come_back(stage: _Stage, service: str) -> None:  # noqa: ARG001 - as the others
    assert stage.callers is not None
    await stage.wait(8)  # for the callers to meet what has become of it
    stage.stuck.unlink()


async def _calm(stage: _Stage, service: str) -> None:  # noqa: ARG001 - one load, one service
    load, stage.load = stage.load, None
    assert load is not None
    await load.end()


async def _deploy_a_bad_release(stage: _Stage, service: str) -> None:
    await stage.releases.deploy_a_bad_one()
    os.kill(stage.orchestrator.get_pids(service)[0], signal.SIGHUP)


_ACTS = (
    _Act("shop", "is killed with SIGKILL", _signal(signal.SIGKILL)),
    _Act("search", "is frozen with SIGSTOP", _signal(signal.SIGSTOP)),
    _Act("payments", "is made to answer 500 to everything", _break("errors")),
    _Act("shop", "is made slow (600 ms an answer)", _break("slow")),
    _Act(
        "catalogue",
        "answers nothing: what it needs itself is down, and no restart helps",
        _get_stuck,
        "circuit-break",
    ),
    _Act("catalogue", "can do its work again", _come_back, "circuit-close", meanwhile=True),
    _Act("thumbnails", "is asked for more than one of it can do", _rush, "scale-up"),
    _Act("thumbnails", "has little to do again", _calm, "scale-down", meanwhile=True),
    _Act("invoices", "gets a new version, which answers 500", _deploy_a_bad_release, "rollback"),
)


async def _perform(stage: _Stage, show: Show) -> bool:
    """All acts, each until its remedy has helped. False: one of them has not."""
    awaited: list[tuple[_Act, int]] = []
    for number, act in enumerate(_ACTS, start=1):
        awaited.append((act, await stage.count(act.service, act.remedy)))
        show.say(f"{number}. {stage.name(act.service)} {act.words}", "bold red")
        await act.happen(stage, act.service)
        if act.meanwhile:
            continue
        for one, before in awaited:
            if not await stage.has_helped(one, before):
                show.say(f"   {stage.name(one.service)}: no {one.remedy} has helped", "bold red")
                return False
            said = f"   {stage.name(one.service)}: {one.remedy} carried out and verified"
            show.say(said, "bold green")
            stage.helped += 1
        awaited.clear()
        await stage.wait(_PAUSE_S)
    if (callers := stage.callers) is not None:
        watched, unwatched = (callers.failed[stage.ports[one]] for one in _STOREFRONTS)
        show.say(f"Of {callers.asked} requests to the storefront {watched} failed;", "bold")
        show.say(f"to the same one without Prunella {unwatched} did.", "bold")
    return True


@asynccontextmanager
async def _front(folder: Path) -> AsyncGenerator[None]:
    """The gateway outlives Prunella; the demo ends it."""
    try:
        yield
    finally:
        spec = EnvoySpec(folder=folder / "envoy")
        await EnvoyGateway(spec, GatewayContext("local", SystemClock(), folder)).stop()


@asynccontextmanager
async def _unwatched(ports: Mapping[str, int], folder: Path) -> AsyncGenerator[None]:
    """The same three tiers once more, and nobody looks after them."""
    first = ports["unwatched"]
    every = (
        _words(first, _url(first + 1)),
        _words(first + 1, _url(first + 2)),
        _words(first + 2, "", str(folder / "stuck")),
    )
    started = [
        await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        for words in every
    ]
    try:
        yield
    finally:
        for child in started:
            child.kill()
            await child.wait()


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/"


def _words(port: int | str, *more: str) -> list[str]:
    return [sys.executable, "-I", "-S", server.__file__, str(port), *more]


def _config(folder: Path, ports: Mapping[str, int]) -> str:
    def command(file: str) -> str:
        return json.dumps([sys.executable, "-I", "-S", file, "{port}"])

    text = _CONFIG.format(folder=folder, entry=ports["entry"])
    for id_, name in _PLAIN.items():
        words = {"id": id_, "name": name, "command": command(server.__file__), "port": ports[id_]}
        text += _SERVICE.format(**words)
    text += _GUARDED.format(
        storefront=json.dumps(_words("{port}", _url(ports["recommend"]))),
        recommend=json.dumps(_words("{port}", _url(ports["entry"]))),
        catalogue=json.dumps(_words("{port}", "", str(folder / "stuck"))),
        first=ports["storefront"],
        second=ports["recommend"],
        third=ports["catalogue"],
    )
    first = ports["thumbnails"]
    text += _SCALED.format(command=command(server.__file__), port=first, last_port=first + 1)
    return text + _RELEASED.format(command=command("current/server.py"), port=ports["invoices"])


async def _play(folder: Path, *, keep: bool) -> int:
    console = Console()
    ids = (*_PLAIN, "invoices", "storefront", "recommend", "catalogue", "entry")
    several = {"thumbnails": 2, "unwatched": 3}
    after = free_port(len(ids) + sum(several.values()))
    ports: dict[str, int] = {}
    for id_, count in (*((id_, 1) for id_ in ids), *several.items()):
        ports[id_], after = after, after + count
    releases = Releases(folder / "invoices")
    await releases.begin()
    orchestrator = SelfHealingOrchestrator(parse(_config(folder, ports), folder / "prunella.yaml"))
    stage, show = _Stage(orchestrator, ports, releases, folder), Show(orchestrator, console)
    orchestrator.on("*", show.heard)
    all_healed = False
    async with _front(folder), _unwatched(ports, folder), orchestrator:
        with show:
            try:
                async with asyncio.timeout(None if keep else _LIMIT_S):
                    await stage.well(len(orchestrator.get_system_health().services))
                    all_healed = await _perform(stage, show)
                    if keep:
                        show.say("Everything stays up; Ctrl-C ends it.")
                        await asyncio.Event().wait()
            except TimeoutError:
                show.say("not everything was healed in time", "bold red")
            finally:
                await stage.end()
        actions = await orchestrator.get_healing_history(20)
    console.print(history(actions))
    console.print(f"{stage.helped} of {len(_ACTS)} remedies carried out and verified.")
    return 0 if all_healed else 1


async def _play_until_told(folder: Path, *, keep: bool) -> int:
    """The demo; a closed terminal or a kill ends it like Ctrl-C, and leaves no service behind."""
    told: list[signal.Signals] = []
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"

    def end(number: signal.Signals) -> None:
        told.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        return await _play(folder, keep=keep)
    except asyncio.CancelledError:
        if not told:
            raise
        return 128 + told[0]


def demo(*, keep: bool = False) -> int:
    """Run the demo. Returns 0 only if everything was healed, 128 + n after signal n."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory(prefix="prunella-demo-") as folder:
        try:
            return on_fast_loop(_play_until_told(Path(folder), keep=keep))
        except PrunellaError as error:
            sys.stderr.write(f"prunella: {error}\n")
            return 1
