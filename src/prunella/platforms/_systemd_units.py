"""What a service manager knows of the units that are looked after: read once, then kept by signals.

One for each bus and event loop, shared by all services on it. A connection that has gone is opened
again after a growing pause, and everything is read anew: signals are not trusted to be complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from prunella.core.model import Instant
from prunella.errors import PermanentError, TransientError
from prunella.platforms._systemd_bus import Bus, LostError, Signal, name_at, path_of, plain
from prunella.platforms._systemd_state import PROPERTIES, UP, Unit, read
from prunella.ports import Clock

_WAIT_S = 30.0  # for some thousands of units to be read on a busy machine
_PING_S = 10.0
_FLICKER_S = 0.05
_FIRST_PAUSE_S = 0.05
_LAST_PAUSE_S = 5.0

Listener = Callable[[Unit | None, Unit], None]
"""Told of a change: how the unit was, None if it was not known, and how it is."""


class Units:
    """The units of one manager that somebody watches.

    They are watched by name, ``shop.service``, or by template, ``app@.service``, which stands for
    all of its instances that run or have failed, or have done so since.
    """

    _shared: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Units]]] = (
        WeakKeyDictionary()
    )

    def __init__(self, address: str, clock: Clock) -> None:
        self._address = address
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._watches: dict[str, _Watch] = {}
        self._known: dict[str, _Known] = {}  # by path
        self._order_count = 0
        self._ended: dict[str, str] = {}  # job to its result, while there are orders
        self._bus: Bus | None = None  # while what is known is true
        self._trouble: TransientError | PermanentError | None = None
        self._lost = ""  # why the connection is of no use any more
        self._nudge = asyncio.Event()
        self._news: asyncio.Future[None] = self._loop.create_future()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def shared(cls, address: str, clock: Clock) -> Units:
        """The one for this bus and this event loop; it ends with its last watch."""
        here = cls._shared.setdefault(asyncio.get_running_loop(), {})
        return here.setdefault(address, cls(address, clock))

    def watch(self, watched: str, listener: Listener) -> None:
        """Begin to know a unit, or the instances of a template."""
        self._watches.setdefault(watched, _Watch()).listeners.append(listener)
        self._nudge.set()
        if self._task is None:
            self._task = self._loop.create_task(self._run())
            self._task.add_done_callback(lambda _: self._wake())

    async def leave(self, watched: str, listener: Listener) -> None:
        """Take back one `watch`."""
        watch = self._watches[watched]
        watch.listeners.remove(listener)
        if watch.listeners:
            return
        del self._watches[watched]
        for known in watch.known:
            known.watches.remove(watch)
            if not known.watches:
                del self._known[known.path]
        if not self._watches and self._task is not None:
            self._shared[self._loop].pop(self._address)
            self._task.cancel()
            await asyncio.wait([self._task])

    async def units(self, watched: str, *, anew: bool = False) -> tuple[Unit, ...]:
        """The unit of that name, or the instances of that template.

        Args:
            anew: ask the manager now, in place of what it has told.

        Raises:
            TransientError: it cannot be told now.
            PermanentError: we may not ask.
        """
        watch = self._watches[watched]
        if anew:
            watch.read, watch.due = False, True
            self._nudge.set()
        if not watch.read:
            await self._until_read(watched, watch)
        self._raise(watch.trouble)
        return tuple(known.unit for known in watch.known if known.unit is not None)

    async def _until_read(self, watched: str, watch: _Watch) -> None:
        try:
            async with asyncio.timeout(_WAIT_S):
                while not watch.read:
                    self._raise(self._trouble)
                    watch.told.clear()
                    await watch.told.wait()
        except TimeoutError:
            raise TransientError(f"systemd has not told of {watched} in {_WAIT_S:g} s") from None

    async def order(self, method: str, name: str, timeout_s: float, *, reset: bool = False) -> str:
        """Have one job done.

        Args:
            reset: forget before it that the unit has failed, and how often it was started.

        Returns:
            The job's result, in systemd's words; empty: nothing was heard of its end, since it
            took too long or the connection was lost. It may have been done, or may be done yet.

        Raises:
            DeniedError: we have no right to do that.
            PermanentError, TransientError: it was refused, and nothing is done.
        """
        bus = self._open_bus()
        self._order_count += 1
        try:
            async with asyncio.timeout(timeout_s):
                job = await _place(bus, method, name, reset=reset)
                while job not in self._ended and bus.alive:
                    await asyncio.shield(self._news)
                return self._ended.get(job, "")
        except (LostError, TimeoutError):
            return ""
        finally:
            self._order_count -= 1
            if not self._order_count:
                self._ended.clear()

    async def forgive(self, name: str) -> None:
        """Have a unit that has failed be merely inactive. Raises as `order` does."""
        await self._open_bus().ask("ResetFailedUnit", "s", name)

    async def properties(self, name: str) -> Mapping[str, Any]:
        """All that the manager says of a unit, watched or not. Raises as `units` does."""
        return await self._open_bus().properties(path_of(name))

    def is_shared(self, watched: str) -> bool:
        """Whether somebody else watches it as well."""
        return len(self._watches[watched].listeners) > 1

    async def may_order(self) -> bool | None:
        """Whether we may order jobs in general; None: there is nobody who could say so."""
        return await self._open_bus().may_order()

    def _open_bus(self) -> Bus:
        if self._bus is None:
            raise TransientError(f"no connection to systemd: {self._trouble or 'not yet'}")
        return self._bus

    def _raise(self, trouble: TransientError | PermanentError | None) -> None:
        if self._task is not None and self._task.done():
            self._task.result()  # it never ends by itself: a defect
        if trouble is not None:
            raise type(trouble)(str(trouble))

    def _wake(self) -> None:
        for watch in self._watches.values():
            watch.told.set()

    def _tell(self) -> None:
        news, self._news = self._news, self._loop.create_future()
        news.set_result(None)

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        self._nudge.set()
        self._tell()

    async def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                bus = await Bus.open(self._address)
                try:
                    await self._serve(bus)
                finally:
                    pause_s = _FIRST_PAUSE_S if self._bus is bus else pause_s
                    self._bus = None
                    await bus.close()
            except (TransientError, PermanentError) as trouble:
                self._trouble = trouble
            for watch in self._watches.values():
                watch.read, watch.due = False, True
            self._wake()
            await self._clock.sleep_until(Instant(self._clock.now() + pause_s))
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    async def _serve(self, bus: Bus) -> None:
        """Keep what is known true for as long as the connection lives, then raise LostError."""
        self._lost = ""
        bus.when_gone(lambda: self._lose("the bus has hung up"))
        await bus.subscribe(self._hear)
        self._bus, self._trouble = bus, None
        while not self._lost:
            self._nudge.clear()
            for watched, watch in list(self._watches.items()):
                if watch.due:
                    await self._read(bus, watched, watch)
            try:
                async with asyncio.timeout(_PING_S):
                    await self._nudge.wait()
            except TimeoutError:
                await bus.ping()
        raise LostError(self._lost)

    async def _read(self, bus: Bus, watched: str, watch: _Watch) -> None:
        watch.due = False
        watch.trouble = None
        try:
            for path in await _paths(bus, watched, watch):
                properties = await bus.properties(path)
                if self._watches.get(watched) is not watch:
                    return  # nobody watches any more
                self._take(watch, properties)
        except LostError:
            raise
        except (TransientError, PermanentError) as trouble:
            watch.trouble = trouble  # of this one alone
        watch.read = not watch.due  # asked for again meanwhile: not this answer
        watch.told.set()

    def _take(self, watch: _Watch, properties: Mapping[str, Any]) -> None:
        name = properties["Id"]  # another one than was asked for, if that is an alias
        known = self._known.setdefault(path_of(name), _Known(name, path_of(name)))
        if watch not in known.watches:
            known.watches.append(watch)
            watch.known.append(known)
        known.see(properties)
        self._settle(known)

    def _hear(self, signal: Signal) -> None:
        match signal.member:
            case "PropertiesChanged":
                self._on_properties(signal.path, signal.body[1])
            case "JobRemoved" if self._order_count:
                self._ended[signal.body[1]] = signal.body[3]
                self._tell()
            case "Reloading" if not signal.body[0]:
                for watch in self._watches.values():
                    watch.due = True
                self._nudge.set()
            case "NameOwnerChanged" if signal.body[1]:
                self._lose("systemd was executed anew")
            case _:
                pass

    def _on_properties(self, path: str, changed: Mapping[str, Any]) -> None:
        known = self._known.get(path)
        if known is None:
            if "ActiveState" in changed and changed["ActiveState"].value != "inactive":
                self._meet(name_at(path))
            return
        known.hear(plain({key: changed[key] for key in PROPERTIES & changed.keys()}))
        if not known.is_changing:
            # Later: one change comes in several signals, and is judged when all have been heard.
            # A unit that systemd restarts is shown as failed for a moment.
            known.is_changing = True
            restarts = known.values.get("Restart") != "no"
            self._loop.call_later(_FLICKER_S if restarts else 0, self._judge, known)

    def _meet(self, name: str) -> None:
        """A unit has turned up that nobody has asked for: perhaps another instance."""
        head, at, tail = name.partition("@")
        watch = self._watches.get(f"{head}@.{tail.rpartition('.')[2]}") if at else None
        if watch is not None:
            watch.due = True
            self._nudge.set()

    def _judge(self, known: _Known) -> None:
        """Settle what signals have told; none of them tells of the control group."""
        known.is_changing = False
        if not known.watches:
            return  # nobody watches any more
        if known.values["MainPID"] and not known.values.get("ControlGroup"):
            known.watches[0].due = True
            self._nudge.set()
        else:
            self._settle(known)

    def _settle(self, known: _Known) -> None:
        before, known.unit = known.unit, read(known.name, known.values, asked=known.asked)
        if known.unit == before:
            return
        # Once each, also who watches it by its name and by its template.
        for listener in dict.fromkeys(one for watch in known.watches for one in watch.listeners):
            listener(before, known.unit)


@dataclass(eq=False, slots=True)
class _Known:
    """One unit: what has been told of it, and what that means.

    Attributes:
        is_changing: something was told that has still to be judged.
        asked: see ``Unit.asked``.
        own_job: the job that starts or reloads it now; that it ends meanwhile was not asked for.
    """

    name: str
    path: str
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    unit: Unit | None = None
    is_changing: bool = False
    asked: bool | None = None
    own_job: int = 0
    watches: list[_Watch] = field(default_factory=list["_Watch"])

    def hear(self, news: Mapping[str, Any]) -> None:
        """Take in what a signal tells of it, each step of a change in its turn."""
        before, job_before = self.values.get("ActiveState"), self.values.get("Job", (0,))[0]
        self.values |= news
        after, job = self.values["ActiveState"], self.values["Job"][0]
        if after in UP:
            self.asked = None
            if after != before:
                self.own_job = 0 if after == "active" else job  # what starts or reloads it
        elif before in UP:
            self.asked = job not in (0, self.own_job)
        elif after == "deactivating" and job not in (0, job_before):
            self.asked = True

    def see(self, properties: Mapping[str, Any]) -> None:
        """Take in all properties: systemd forgets a unit that is inactive, and we do not."""
        news = {key: properties[key] for key in PROPERTIES & properties.keys()}
        before, after = self.values.get("ActiveState"), news["ActiveState"]
        if before == after == "inactive" and not news["InvocationID"]:
            self.values["LoadState"] = news["LoadState"]
            return
        if not news["ControlGroup"] and self.values.get("ControlGroup"):
            del news["ControlGroup"]
        same = news["InvocationID"] == self.values.get("InvocationID")
        missed = before in UP and after in {"failed", "inactive"}
        self.hear(news)
        if missed or not same:
            self.asked = None  # a job may have come and gone since


@dataclass(eq=False, slots=True)
class _Watch:
    """One name or template that is watched.

    Attributes:
        due: it is to be read.
        read: it has been, on this connection: what is known of it is true.
        told: it was read just now, or cannot be.
        trouble: why it alone could not be read.
    """

    listeners: list[Listener] = field(default_factory=list[Listener])
    known: list[_Known] = field(default_factory=list["_Known"])
    due: bool = True
    read: bool = False
    told: asyncio.Event = field(default_factory=asyncio.Event)
    trouble: TransientError | PermanentError | None = None


async def _place(bus: Bus, method: str, name: str, *, reset: bool) -> str:
    job: str
    order = bus.ask(method, "ss", name, "replace")
    if reset:
        # Both are on their way before either is answered: we cannot end in between.
        _, (job,) = await asyncio.gather(bus.ask("ResetFailedUnit", "s", name), order)
    else:
        (job,) = await order
    return job


async def _paths(bus: Bus, watched: str, watch: _Watch) -> set[str]:
    if "@." not in watched:
        return {path_of(watched)}
    pattern = watched.replace("\\", r"\\").replace("@.", "@*.")
    (rows,) = await bus.ask("ListUnitsByPatterns", "asas", [], [pattern])
    # One that is inactive is not read: that would have systemd load it, and forget it again.
    there = {row[6] for row in rows if row[3] != "inactive"}
    return there | {
        known.path for known in watch.known if known.unit and known.unit.active != "inactive"
    }
