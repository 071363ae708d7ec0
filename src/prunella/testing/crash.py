"""Sudden death at a chosen point: the process kills itself before or after a chosen call.

The plugins below stand in for the built-in ones of the same kinds when they are installed beside
them, and change nothing unless ``PRUNELLA_CRASH_AT`` names a point: ``store.begin/after/1`` dies
right after the first intent is durable, ``_child.Child.spawn/before/2`` before the second start.
With ``rehearsal`` instead of a point nobody dies, and each effect is logged as it begins.
"""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Self, TypeVar, cast

import structlog

from prunella.core.ledger import Mark, Step
from prunella.core.model import Action, ActionKind, Epoch, Instant, Scope, Stamp, Status
from prunella.platforms.process import PLUGIN as REAL_PLATFORM
from prunella.platforms.process import ProcessPlatform, ProcessSpec
from prunella.plugins import PlatformContext, PlatformPlugin, StorePlugin
from prunella.ports import Store
from prunella.stores.sqlite import PLUGIN as REAL_STORE
from prunella.testing.effects import When, effects, tell_effects

VARIABLE = "PRUNELLA_CRASH_AT"
REHEARSAL = "rehearsal"
ORDERS = ("platform.ensure", "platform.execute")
_log = structlog.get_logger("prunella.testing")
_AGE_S = 86400.0

T = TypeVar("T")


def writes() -> tuple[str, ...]:
    """Every write of the ``Store`` protocol as ``store.NAME``: what carries an epoch, and the
    claim that begins one.
    """
    methods = inspect.getmembers(Store, inspect.isfunction)
    fenced = [name for name, body in methods if "epoch" in inspect.signature(body).parameters]
    return tuple(f"store.{name}" for name in ("claim", *fenced))


@dataclass
class Point:
    """Before or after the `nth` call, from 1, of one call; ``seen`` counts them."""

    call: str
    when: When
    nth: int = 1
    seen: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``store.begin/after/1``. Raises ValueError: it is no such point."""
        call, when, nth = text.split("/")
        if when not in ("before", "after") or call not in (*writes(), *ORDERS, *effects()):
            raise ValueError(f"no crash point: {text}")
        return cls(call, when, int(nth))  # type: ignore[arg-type]  # checked two lines above

    def __str__(self) -> str:
        return f"{self.call}/{self.when}/{self.nth}"

    def reach(self, call: str, when: When) -> None:
        """Take that a call begins or has ended, and die if this is the point."""
        if call != self.call:
            return
        self.seen += when == "before"
        if when == self.when and self.seen == self.nth:
            os.kill(os.getpid(), signal.SIGKILL)

    async def around(self, call: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work, and die if this is the point. What raises has not got to its end."""
        self.reach(call, "before")
        result = await work()
        self.reach(call, "after")
        return result


class CrashingStore:
    """A store whose writes are points of death; everything else is the real one's.

    What the daemon does not do in every life falls into the middle of the first heal when the
    point is there: it compacts once an hour, and these processes have no version and no debt.
    """

    def __init__(self, real: Store, point: Point) -> None:
        self._real = real
        self._point = point

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        call = f"store.{name}"
        if call not in writes():
            return found

        async def dying(*args: Any, **keywords: Any) -> Any:
            return await self._point.around(call, lambda: found(*args, **keywords))

        return dying

    async def advance(self, step: Step, /, *, epoch: Epoch) -> None:
        rare = self._rare(step, epoch).get(self._point.call)
        if rare:
            await self._point.around(self._point.call, rare)
        await self._point.around("store.advance", lambda: self._real.advance(step, epoch=epoch))

    def _rare(self, step: Step, epoch: Epoch) -> dict[str, Callable[[], Awaitable[object]]]:
        real, service, now = self._real, step.service, step.at
        return {
            "store.compact": lambda: self._compact(now, epoch),
            "store.mark": lambda: real.mark(Mark(service, "1", now), epoch=epoch),
            "store.settle": lambda: real.settle(
                service, ActionKind.SCALE_UP, now, epoch=epoch, reason="no debt"
            ),
        }

    async def _compact(self, now: Stamp, epoch: Epoch) -> int:
        then = Stamp(now.wall - timedelta(seconds=_AGE_S), Instant(now.instant - _AGE_S), now.boot)
        return await self._real.compact(then, epoch=epoch)


class CrashingPlatform:
    """Real processes, with death before and after each order to them."""

    kind: ClassVar[str] = "process"

    def __init__(self, real: ProcessPlatform, point: Point) -> None:
        self._real = real
        self._point = point

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        return self._real.capabilities

    async def observe(self) -> Status:
        return await self._real.observe()

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:
        await self._point.around(
            "platform.execute", lambda: self._real.execute(action, epoch=epoch)
        )

    async def ensure(self) -> Sequence[str]:
        return await self._point.around("platform.ensure", self._real.ensure)

    async def shutdown(self) -> None:
        await self._real.shutdown()

    async def stop(self) -> None:
        await self._real.stop()

    async def close(self) -> None:
        await self._real.close()


def _open(url: str, readonly: bool, /) -> Store:  # noqa: FBT001 - the plugin's shape
    store = REAL_STORE.open(url, readonly)
    armed = os.environ.get(VARIABLE)
    if not armed or armed == REHEARSAL or readonly:
        return store
    return cast("Store", CrashingStore(store, Point.parse(armed)))


def _build(spec: ProcessSpec, context: PlatformContext) -> ProcessPlatform | CrashingPlatform:
    real = REAL_PLATFORM.build(spec, context)
    assert isinstance(real, ProcessPlatform)
    armed = os.environ.get(VARIABLE)
    if armed == REHEARSAL:
        tell_effects(_say)
        return real
    if not armed:
        return real
    point = Point.parse(armed)
    if point.call in effects():
        tell_effects(point.reach)
    return CrashingPlatform(real, point)


def _say(effect: str, when: When) -> None:
    if when == "before":
        _log.info("effect", name=effect)


STORE = StorePlugin(REAL_STORE.kind, _open)
PLATFORM = PlatformPlugin(REAL_PLATFORM.kind, REAL_PLATFORM.spec, _build)
