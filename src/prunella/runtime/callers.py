"""Circuits for callers in this very process: the gateway that is asked by a decorator.

Nobody is asked on the way of a call: what is let through is pushed here, and read as a number.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import iscoroutinefunction
from random import Random
from threading import Lock
from types import TracebackType
from typing import Any, ClassVar, ParamSpec, Self, TypeVar, cast

from prunella.core.model import Epoch, Instant, ServiceId
from prunella.core.traffic import OPEN_WIDE, Flow, Traffic, Valve
from prunella.errors import CircuitOpenError, ConflictError, PermanentError
from prunella.ports import Clock, Route

P = ParamSpec("P")
R = TypeVar("R")

_RECENT_COUNT = 512  # calls that percentiles are taken of


class _Line:
    """The circuit of one service. Calls come from any thread."""

    __slots__ = (
        "body",
        "ended",
        "ends_at",
        "failed",
        "lock",
        "random",
        "recent",
        "share",
        "started",
        "turned_away",
    )

    def __init__(self, random: Random) -> None:
        self.random = random
        self.lock = Lock()
        self.share = OPEN_WIDE.share
        self.ends_at = Instant(float("inf"))
        self.body = ""
        self.started = self.ended = self.failed = self.turned_away = 0
        self.recent: deque[float] = deque(maxlen=_RECENT_COUNT)


class Circuit:
    """The circuit of one service, as a decorator or a context manager, sync or async.

    ``with`` and ``async with`` take one call at a time; ask for another one with
    ``SelfHealingOrchestrator.circuit`` for each call. A decorated function may be called by many.

    What is called has failed when it raises an ``Exception`` that is not among `ignore`.

    Raises: CircuitOpenError in place of the call, with the time after which to try again.
    """

    __slots__ = ("_began", "_clock", "_ignore", "_line", "_service")

    def __init__(
        self,
        service: ServiceId,
        line: _Line,
        clock: Clock,
        ignore: tuple[type[Exception], ...],
    ) -> None:
        self._service = service
        self._line = line
        self._clock = clock
        self._ignore = ignore
        self._began = Instant(0.0)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        begin, end = self._begin, self._end
        if iscoroutinefunction(function):

            @wraps(function)
            async def wait(*args: P.args, **keywords: P.kwargs) -> Any:
                began = begin()
                try:
                    done = await function(*args, **keywords)
                except BaseException as error:
                    end(began, type(error))
                    raise
                end(began)
                return done

            return cast("Callable[P, R]", wait)

        @wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> R:
            began = begin()
            try:
                done = function(*args, **keywords)
            except BaseException as error:
                end(began, type(error))
                raise
            end(began)
            return done

        return call

    def __enter__(self) -> Self:
        self._began = self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        self._end(self._began, kind)

    async def __aenter__(self) -> Self:
        self._began = self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        self._end(self._began, kind)

    def _begin(self) -> Instant:
        line, now = self._line, self._clock.now()
        if line.share < OPEN_WIDE.share:
            self._turn_away(line, now)
        with line.lock:
            line.started += 1
        return now

    def _end(self, began: Instant, kind: type[BaseException] | None = None) -> None:
        line = self._line
        line.recent.append(self._clock.now() - began)
        with line.lock:
            line.ended += 1
            if kind is not None and issubclass(kind, Exception):
                line.failed += not issubclass(kind, self._ignore)

    def _turn_away(self, line: _Line, now: Instant) -> None:
        left_s = line.ends_at - now
        if left_s <= 0 or line.random.random() * 100 < line.share:
            return
        with line.lock:
            line.turned_away += 1
        raise CircuitOpenError(self._service, left_s, line.body)


class Callers:
    """The gateway in front of what this process itself calls."""

    kind: ClassVar[str] = "in-process"
    shares = True
    shuts = False

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._lines: dict[ServiceId, _Line] = {}

    @property
    def services(self) -> frozenset[ServiceId]:
        """Those whose circuit somebody has asked for."""
        return frozenset(self._lines)

    def circuit(self, service: ServiceId, ignore: tuple[type[Exception], ...] = ()) -> Circuit:
        line = self._lines.setdefault(service, _Line(self._random))
        return Circuit(service, line, self._clock, ignore)

    async def route(self, routes: Sequence[Route], /) -> None:
        for route in routes:
            self._lines.setdefault(route.service, _Line(self._random)).body = route.body

    async def observe(self) -> Mapping[ServiceId, Flow]:
        return {service: self._flow(line) for service, line in self._lines.items()}

    async def turn(
        self,
        service: ServiceId,
        valve: Valve,
        /,
        *,
        before: Valve,
        lease_s: float,
        epoch: Epoch,  # noqa: ARG002 - it lives and dies with us
    ) -> None:
        if service not in self._lines:
            raise PermanentError(f"nobody here has asked for the circuit of {service}")
        if valve.shut:
            raise PermanentError("callers in this process know no servers")
        line = self._lines[service]
        now = self._clock.now()
        present = self._share(line)
        if present not in (before.share, valve.share):
            raise ConflictError(f"the circuit of {service} is at {present} %")
        line.ends_at = Instant(now + lease_s)
        line.share = valve.share

    async def close(self) -> None:
        """Callers go on; what is open ends with its lease."""

    def _share(self, line: _Line) -> int:
        if self._clock.now() >= line.ends_at:
            line.share = OPEN_WIDE.share
        return line.share

    def _flow(self, line: _Line) -> Flow:
        taken: list[float] = []
        for took_s in tuple(line.recent):
            insort(taken, took_s)
        with line.lock:
            traffic = Traffic(
                self._clock.now(),
                line.ended,
                line.failed,
                turned_away=line.turned_away,
                in_flight=line.started - line.ended,
            )
        if taken:
            p50_s, p95_s, p99_s = (taken[int(len(taken) * part)] for part in (0.5, 0.95, 0.99))
            mean_s = sum(taken) / len(taken)
            traffic = traffic._replace(p50_s=p50_s, p95_s=p95_s, p99_s=p99_s, mean_s=mean_s)
        return Flow(Valve(self._share(line)), traffic)
