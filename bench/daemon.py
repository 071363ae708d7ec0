"""The daemon of the respawn benchmarks: ``python -m bench.daemon CONFIG``, until SIGTERM.

It says ``serving`` when it watches.

The real objects on the real loop. What a file cannot open up is opened up here: a service that is
killed every few seconds and recovers each time counts as flapping, and would be left alone.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from dataclasses import replace
from pathlib import Path

from prunella.app import on_fast_loop, set_up_logging
from prunella.config import Config, load
from prunella.runtime.orchestrator import SelfHealingOrchestrator

_NEVER = 1_000_000


def tolerant(config: Config) -> Config:
    """The same configuration, in which no number of recoveries is called flapping."""
    services = {
        id_: replace(service, policy=replace(service.policy, flapping_recoveries=_NEVER))
        for id_, service in config.services.items()
    }
    return replace(config, services=services)


async def serve(path: Path) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with SelfHealingOrchestrator(tolerant(load(path))):
        gc.collect()
        gc.freeze()  # as the daemon does
        print("serving", flush=True)
        await stop.wait()
    return 0


if __name__ == "__main__":
    set_up_logging()
    raise SystemExit(on_fast_loop(serve(Path(sys.argv[1]))))
