"""A daemon's writes, each said on standard output once the store has acknowledged it.

A process of its own, so that a tracer can kill it somewhere on the way.
"""

from __future__ import annotations

import asyncio
import ctypes
import os

from prunella.core.ledger import Entry, EntryKind, Finish, Grant, Holder, Intent, Mark, Step
from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Epoch,
    IncidentId,
    Outcome,
    ServiceId,
    Stamp,
)
from prunella.errors import PrunellaError
from prunella.plugins import stores
from prunella.ports import Store
from prunella.stores._sql import migrate as _migrate  # noqa: F401 - read once, before the forks
from prunella.stores._sqlite import opening as _opening  # noqa: F401
from prunella.testing.clock import SimClock

PR_SET_PTRACER = 0x59616D61  # a tracer that is not a parent needs our leave
WEB = ServiceId("web")
HOLDER = Holder("here", os.getpid(), "0", "boot-1", "child")


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())


async def begin(store: Store, now: Stamp, epoch: Epoch) -> ActionId:
    action = Action(ActionKind.SCALE_UP, WEB, replicas=2, before="1")
    incident, grant = IncidentId("i"), Grant(1, 2, now)
    intent = Intent(action, incident, "why", None, "ann", now, None, Event.CONFIRMED, grant=grant)
    answer = await store.begin(intent, lambda _: (), now, epoch=epoch)
    assert isinstance(answer, int), answer
    say(f"begun {answer}")
    return answer


async def live(path: str) -> None:
    readonly = False
    store = stores()["sqlite"].open(f"sqlite:///{path}", readonly)
    say("opened 0")
    now = SimClock().stamp()
    epoch = await store.claim(HOLDER, now)
    say(f"claimed {epoch}")
    for _ in range(3):
        action = await begin(store, now, epoch)
        await store.note([Entry(EntryKind.HEALTH, now, WEB)], epoch=epoch)
        finish = Finish(action, Outcome.RECOVERED)
        step = Step(WEB, Event.RECOVERED, Phase.WATCHING, now, "well", finish=finish)
        await store.advance(step, epoch=epoch)
        say(f"ended {action}")
        await store.settle(WEB, ActionKind.SCALE_UP, now, epoch=epoch, reason="calm")
        say(f"settled {action}")
        await store.mark(Mark(WEB, str(action), now), epoch=epoch)
        say(f"marked {action}")
    await begin(store, now, epoch)
    await store.release(epoch=epoch)
    say("released 0")
    await store.close()
    say("closed 0")


async def fail(path: str) -> None:
    """Write until the store has refused twice, and say what it said."""
    readonly = False
    store = stores()["sqlite"].open(f"sqlite:///{path}", readonly)
    now = SimClock().stamp()
    epoch = Epoch(0)
    refused = 0
    while refused < 2:
        try:
            epoch = await store.claim(HOLDER, now)
            await begin(store, now, epoch)
        except PrunellaError as error:
            refused += 1
            say(f"{type(error).__name__}: {error}")
    await store.close()


def serve() -> None:
    """Fork a daemon per line of standard input, ``live`` or ``fail`` and a path.

    Each waits for a further line, by which time it is being traced.
    """
    while line := read_line():
        mode, path = line.split(maxsplit=1)
        child = os.fork()
        if child:
            say(f"exit {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
            continue
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
        say(f"pid {os.getpid()}")
        read_line()
        asyncio.run(live(path) if mode == "live" else fail(path))
        os._exit(0)


def read_line() -> str:
    read = b""
    while not read.endswith(b"\n") and (byte := os.read(0, 1)):
        read += byte
    return read.decode().strip()


if __name__ == "__main__":
    serve()
