"""The demo: start the services, break them one after the other, watch them being healed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Self

import structlog
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prunella.app import on_fast_loop
from prunella.config import parse
from prunella.core.model import Instant
from prunella.runtime.clock import SystemClock
from prunella.runtime.notices import Notice
from prunella.runtime.orchestrator import SelfHealingOrchestrator
from prunella.wire import HealingAction, ServiceHealth

_HEALED_WITHIN_S = 14.0
_LIMIT_S = 55.0
_COLOURS = {"healthy": "green", "degraded": "yellow", "failed": "red", "recovering": "cyan"}
_CONFIG = """
store: "sqlite:///{folder}/prunella.db"
state_dir: "{folder}/state"
api: off
defaults:
  interval: 500ms
  timeout: 1s
  grace: 1s
  thresholds: {{response_time: 300ms}}
  verify: {{soak: 3s, deadline: 20s}}
services:
"""
_SERVICE = """
  {id}:
    name: {name}
    platform: process
    process: {{command: ["{python}", -m, prunella.demo.server, "{port}"], stop_timeout: 2s}}
    probes: [{{kind: http, url: "http://127.0.0.1:{port}/"}}]
"""
_NAMES = {"shop": "Web shop", "search": "Search", "payments": "Payments"}


@dataclass(frozen=True, slots=True)
class _Fault:
    """Something that is done to a service, and the words for it."""

    service: str
    words: str
    inject: Callable[[int, int], None]  # pid and port


def _send(fault: str) -> Callable[[int, int], None]:
    def inject(_pid: int, port: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("POST", f"/fault/{fault}")
        connection.getresponse().read()
        connection.close()

    return inject


_FAULTS = (
    _Fault("shop", "killed with SIGKILL", lambda pid, _port: os.kill(pid, signal.SIGKILL)),
    _Fault("search", "frozen with SIGSTOP", lambda pid, _port: os.kill(pid, signal.SIGSTOP)),
    _Fault("payments", "made to answer 500 to everything", _send("errors")),
    _Fault("shop", "made slow (600 ms an answer)", _send("slow")),
)


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in taken]
    for server in taken:
        server.close()
    return ports


def _row(health: ServiceHealth) -> tuple[str, ...]:
    response = "" if health.response_time is None else f"{health.response_time:.1f} ms"
    colour = _COLOURS.get(health.status, "white")
    return (
        health.name,
        f"[{colour}]{health.status}[/]",
        response,
        str(health.restart_count),
        health.detail[:60],
    )


def _services(health: list[ServiceHealth]) -> Table:
    table = Table(title="Prunella", title_justify="left", expand=True)
    for column in ("service", "status", "response", "restarts", "what is known"):
        table.add_column(column, no_wrap=True)
    for service in health:
        table.add_row(*_row(service))
    return table


def _history(actions: list[HealingAction]) -> Table:
    table = Table(title="History, newest first", title_justify="left", expand=True)
    for column in ("time", "service", "symptom", "action", "outcome", "recovery", "downtime"):
        table.add_column(column, no_wrap=True)
    for action in actions:
        recovery = "" if action.recovery_time is None else f"{action.recovery_time:.0f} ms"
        down = "" if action.downtime is None else f"{action.downtime:.0f} ms"
        outcome = action.outcome or "running"
        colour = "green" if action.success else "red"
        table.add_row(
            f"{action.timestamp:%H:%M:%S}",
            action.service_id,
            action.symptom or "",
            action.action,
            f"[{colour}]{outcome}[/]",
            recovery,
            down,
        )
    return table


class _Show:
    """The live table on a terminal; plain lines elsewhere."""

    def __init__(self, orchestrator: SelfHealingOrchestrator, console: Console) -> None:
        self._orchestrator = orchestrator
        self._console = console
        self._lines: list[Text] = []
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, words: str, style: str = "") -> None:
        self._lines.append(Text(words, style=style))
        if not self._console.is_terminal:
            self._console.print(words)

    def heard(self, notice: Notice) -> None:
        if notice.service is not None:
            detail = notice.data.get("evidence") or notice.data.get("reason") or ""
            self.say(f"    {notice.topic.value}: {notice.service}  {str(detail)[:80]}", "dim")

    def _picture(self) -> Group:
        services = self._orchestrator.get_system_health().services
        return Group(_services(services), *self._lines[-12:])


async def _healed(orchestrator: SelfHealingOrchestrator, count: int) -> bool:
    """Wait until `count` actions have ended well, at most so long."""
    clock = SystemClock()
    end = clock.now() + _HEALED_WITHIN_S
    while clock.now() < end:
        actions = await orchestrator.get_healing_history(20)
        if sum(bool(action.success) for action in actions) >= count:
            return True
        await clock.sleep_until(Instant(clock.now() + 0.1))
    return False


async def _break_all(
    orchestrator: SelfHealingOrchestrator, ports: dict[str, int], show: _Show
) -> bool:
    clock = SystemClock()
    for number, fault in enumerate(_FAULTS, start=1):
        await clock.sleep_until(Instant(clock.now() + 1.0))
        pid = orchestrator.get_pids(fault.service)[0]
        show.say(f"{number}. {_NAMES[fault.service]} is {fault.words}", "bold red")
        fault.inject(pid, ports[fault.service])
        if not await _healed(orchestrator, number):
            show.say(f"   {_NAMES[fault.service]} was not healed", "bold red")
            return False
        newest = (await orchestrator.get_healing_history(1))[0]
        show.say(f"   healed by {newest.action} ({newest.reason[:80]})", "bold green")
    return True


async def _well(orchestrator: SelfHealingOrchestrator) -> None:
    clock = SystemClock()
    while orchestrator.get_system_health().healthy < len(_NAMES):
        await clock.sleep_until(Instant(clock.now() + 0.05))


async def _play(folder: Path, *, keep: bool) -> int:
    console = Console()
    ports = dict(zip(_NAMES, _free_ports(len(_NAMES)), strict=True))
    text = _CONFIG.format(folder=folder) + "".join(
        _SERVICE.format(id=id_, name=name, python=sys.executable, port=ports[id_])
        for id_, name in _NAMES.items()
    )
    orchestrator = SelfHealingOrchestrator(parse(text, folder / "prunella.yaml"))
    show = _Show(orchestrator, console)
    orchestrator.on("*", show.heard)
    all_healed = False
    async with orchestrator:
        with show:
            try:
                async with asyncio.timeout(None if keep else _LIMIT_S):
                    await _well(orchestrator)
                    all_healed = await _break_all(orchestrator, ports, show)
                    if keep:
                        show.say("Everything stays up; Ctrl-C ends it.")
                        await asyncio.Event().wait()
            except TimeoutError:
                show.say("not everything was healed in time", "bold red")
        actions = await orchestrator.get_healing_history(20)
    console.print(_history(actions))
    healed = sum(bool(action.success) for action in actions)
    console.print(f"{healed} of {len(_FAULTS)} faults healed and verified.")
    return 0 if all_healed else 1


def demo(*, keep: bool = False) -> int:
    """Run the demo. Returns 0 only if every fault was healed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory(prefix="prunella-demo-") as folder:
        return on_fast_loop(_play(Path(folder), keep=keep))
