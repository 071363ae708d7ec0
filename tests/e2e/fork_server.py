"""Starts the command ``prunella`` in forks of one process that has imported everything already.

Each line of standard input is a JSON object with ``argv``, ``cwd``, ``env`` and ``log``; the
answer is the pid. When a fork has ended its exit code is in the file ``exit.PID`` of its folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import prunella.api.app
import prunella.api.server
import prunella.app
import prunella.stores._sql.migrate
import prunella.stores._sqlite.opening  # noqa: F401 - all of these are read once, before the forks
from prunella import plugins
from prunella.cli import main


def become(order: dict[str, Any]) -> None:
    """Turn this fork into the command; never returns."""
    os.setsid()
    os.chdir(order["cwd"])
    os.environ.update(order["env"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(number, target)
    sys.argv = ["prunella", *order["argv"]]
    asyncio.set_event_loop(None)
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def collect(pid: int, folder: str) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    place = Path(folder) / f"exit.{pid}"
    with suppress(FileNotFoundError):  # the test is over and its folder gone
        place.with_suffix(".new").write_text(str(code))
        place.with_suffix(".new").rename(place)


def serve() -> None:
    with selectors.DefaultSelector() as waiting:
        waiting.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fd:
                    waiting.unregister(key.fd)
                    os.close(key.fd)
                    collect(*key.data)
                    continue
                line = sys.stdin.readline()
                if not line:
                    return
                order = json.loads(line)
                pid = os.fork()
                if not pid:
                    become(order)
                waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, order["cwd"]))
                sys.stdout.write(f"{pid}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    plugins.probes(), plugins.platforms(), plugins.releases(), plugins.stores()
    serve()
