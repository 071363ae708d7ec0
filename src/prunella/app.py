"""The composition root: a config file becomes a running daemon."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from prunella.config import Changes, Config, ConfigFaults, load
from prunella.core.model import Mode
from prunella.errors import PrunellaError
from prunella.runtime.clock import SystemClock
from prunella.runtime.orchestrator import SelfHealingOrchestrator
from prunella.runtime.systemd import ServiceManager

if TYPE_CHECKING:
    from prunella.api.server import HttpServer
    from prunella.operator.home import Home

_log = structlog.get_logger("prunella.app")
EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def set_up_logging() -> None:
    """Lines for a person on a terminal, JSON for a machine elsewhere; to standard error."""
    on_terminal = sys.stderr.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if on_terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def on_fast_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run to the end on uvloop where it exists, else on asyncio's own loop."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def read_config(path: Path, *, observe: bool) -> Config:
    """Load a file; with `observe` nothing is ever done, only what would have been is recorded."""
    config = load(path)
    if not observe:
        return config
    services = {
        id_: replace(service, policy=replace(service.policy, mode=Mode.OBSERVE))
        for id_, service in config.services.items()
    }
    return replace(config, services=services)


def run(path: Path, *, observe: bool = False) -> int:
    """The daemon in the foreground. Returns its exit code: 0 ended cleanly, 1 failed, 2 faults."""
    set_up_logging()
    try:
        config = read_config(path, observe=observe)
    except ConfigFaults as faults:
        sys.stderr.write("".join(f"{fault}\n" for fault in faults.faults))
        return EXIT_USAGE
    try:
        return on_fast_loop(_serve(config, observe=observe))
    except PrunellaError as error:
        sys.stderr.write(f"prunella: {error}\n")
        return EXIT_FAILED


async def _serve(config: Config, *, observe: bool) -> int:
    home = None
    if config.operator is not None:
        from prunella.operator.home import Home  # noqa: PLC0415 - no cluster, nothing of it

        home = Home(config, observe=observe)
    orchestrator = SelfHealingOrchestrator(config, tenure=None if home is None else home.tenure)
    if config.api is not None:
        orchestrator.address = "{}:{}".format(*config.api)
    manager = ServiceManager.taken_from(os.environ)
    take_over = orchestrator.reload if home is None else home.take_file
    stop = _signals(take_over, config.path, manager, observe=observe)
    async with AsyncExitStack() as open_parts:
        if home is not None:
            open_parts.push_async_callback(home.leave)
            await _listen(orchestrator, config, open_parts)
            if not await home.lead(orchestrator, stop):
                return EXIT_OK
        open_parts.push_async_callback(_stop, orchestrator, home)
        await orchestrator.open()
        if home is None:
            await _listen(orchestrator, config, open_parts)
        await orchestrator.start_monitoring()
        if home is not None:
            home.move_in(orchestrator)
            open_parts.push_async_callback(home.move_out)
        gc.collect()
        gc.freeze()  # what was built at the start stays: walking it again only stalls the loop
        open_parts.callback(manager.tell, "STOPPING=1")
        manager.tell("READY=1")
        dog = asyncio.create_task(manager.beat(SystemClock()))
        open_parts.callback(dog.cancel)
        _log.info("ready", services=len(config.services), store=config.store)
        return await _until_stopped(orchestrator, home, stop)


async def _listen(
    orchestrator: SelfHealingOrchestrator, config: Config, open_parts: AsyncExitStack
) -> None:
    """Start what the configuration has of servers."""
    if config.api is None:
        return
    from prunella.api.server import ApiServer, MonitoringServer  # noqa: PLC0415 - no API, no web

    orchestrator.loop = asyncio.get_running_loop()
    servers: list[HttpServer] = [ApiServer(orchestrator, *config.api)]
    if config.monitoring is not None:
        servers.append(MonitoringServer(orchestrator, *config.monitoring))
    for server in servers:
        open_parts.push_async_callback(server.stop)
        host, port = await server.start()
        _log.info("api", **{server.key: f"{host}:{port}"})


async def _stop(orchestrator: SelfHealingOrchestrator, home: Home | None) -> None:
    """Who does not lead any more touches nothing: the next one looks after it already."""
    await orchestrator.stop_monitoring(leave=home is not None and home.has_lost)


async def _until_stopped(
    orchestrator: SelfHealingOrchestrator, home: Home | None, stop: asyncio.Event
) -> int:
    assert orchestrator.failed is not None, "open() has run"
    stopping = asyncio.create_task(stop.wait())
    failures = [orchestrator.failed, *([home.failed] if home is not None else [])]
    ends: list[asyncio.Future[Any]] = [stopping, *failures]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for failed in failures:
        if failed.done():
            sys.stderr.write(f"prunella: {failed.exception()}\n")
            return EXIT_FAILED
    return EXIT_OK


def _signals(
    take_over: Callable[[Config], Awaitable[Changes]],
    path: Path | None,
    manager: ServiceManager,
    *,
    observe: bool,
) -> asyncio.Event:
    """SIGTERM and SIGINT end it, SIGHUP reloads; the answer is set when it is to end."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        if path is not None:
            task = loop.create_task(_reload(take_over, path, manager, observe=observe))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    return stop


async def _reload(
    take_over: Callable[[Config], Awaitable[Changes]],
    path: Path,
    manager: ServiceManager,
    *,
    observe: bool,
) -> None:
    """Take over a changed file; a bad one is refused and the old configuration stays."""
    manager.tell("RELOADING=1")
    try:
        found = await take_over(read_config(path, observe=observe))
    except PrunellaError as error:
        _log.error("reload-refused", error=str(error))
    else:
        _log.info(
            "reloaded",
            added=found.added,
            removed=found.removed,
            changed=found.changed,
            restart_needed=found.restart_needed,
        )
    manager.tell("READY=1")
