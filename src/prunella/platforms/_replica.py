"""One replica of a service: which run it is in, and how it gets into the next one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prunella.core.model import Fact, FactKind, Instance, InstanceId, InstanceState, Instant
from prunella.errors import PrunellaError, TransientError
from prunella.platforms._child import Child, Launch, end_survivors
from prunella.platforms._logs import log_size_bytes, rotate
from prunella.platforms._ports import Ports, give_back, keep
from prunella.platforms._proc import (
    Identity,
    Marked,
    Search,
    marked_processes,
    session_members,
    variable,
)
from prunella.platforms._records import Record, Records
from prunella.ports import Clock, FactListener

RUN_VARIABLE = "PRUNELLA_RUN"
PORT_VARIABLE = "PRUNELLA_PORT"

_ADDRESS = "127.0.0.1"
_UNBORN_S = 0.01  # an exec takes far less, on a disk that answers
_UNBORN_LOOKS = 50


@dataclass(frozen=True, slots=True)
class Terms:
    """How every replica of one service is run.

    Attributes:
        launch: what to start, for a replica's number, the number of its run, and its port.
        marker: ``NAME=value`` in the environment of a replica's children and of nothing else.
        ports: those that a replica may have; None: they have none.
    """

    launch: Callable[[int, int, int], Launch]
    marker: Callable[[int], str]
    log: Callable[[int], str]
    stop_signal: signal.Signals
    stop_timeout_s: float
    log_size_bytes: int
    log_keep: int
    records: Records
    ports: Ports | None
    clock: Clock
    on_fact: FactListener


class Replica:
    """A replica with at most one living run, whoever asks for one and however often."""

    def __init__(self, number: int, terms: Terms) -> None:
        self.id = InstanceId(str(number))
        self._number = number
        self._terms = terms
        self._lock = asyncio.Lock()
        self._child: Child | None = None
        self._dead: Child | None = None  # ended, and what it left behind is not known yet
        self._identity: Identity | None = None
        self._survivors: tuple[Identity, ...] = ()
        self._run = 0
        self._port = 0
        self._state: InstanceState | None = None  # not looked at yet
        self._detail = ""
        self._ending = False

    def instance(self) -> Instance:
        """What is known now, without looking.

        Raises:
            TransientError: `ensure` has not looked yet.
        """
        if self._state is None:
            raise TransientError(f"replica {self.id} has not been looked at yet")
        identity = "" if self._identity is None else str(self._identity)
        pids = (self._child.identity.pid,) if self._child is not None else ()
        return Instance(
            self.id,
            self._state,
            identity,
            self._detail,
            pids,
            address=_ADDRESS,
            port=self._port,
        )

    async def ensure(self) -> str:
        """Adopt the living run, or start one unless the last one died by itself in this boot.

        Returns:
            What was done, in words; empty when there was nothing to do.

        Raises:
            TransientError: it cannot be told what runs, so nothing was started.
        """
        async with self._lock:
            if self._child is not None or self._state is InstanceState.EXITED:
                return ""
            return await self._adopt() or await self._take_up()

    async def begin(self) -> None:
        """Bring up a replica that is wanted from now on; a run that lives already is adopted.

        Raises:
            PermanentError: the command cannot be executed.
            TransientError: it cannot be started now.
        """
        async with self._lock:
            if not await self._adopt():
                await self._end()
                await self._start()

    async def restart(self, identity: str) -> None:
        """Replace the run with that identity, or whatever is there if it is empty.

        Raises:
            PermanentError: the command cannot be executed.
            TransientError: it cannot be ended or started now, or was not looked at yet.
        """
        async with self._lock:
            now = self.instance()
            if identity and now.state is InstanceState.RUNNING and now.identity != identity:
                return
            await self._end()
            await self._start()

    async def stop(self) -> None:
        """End the run, if there is one, and remember that it was our wish.

        Raises:
            TransientError: it is there in spite of SIGKILL.
        """
        async with self._lock:
            if self._state is None:
                await self._adopt()
            await self._end()
            self._state = InstanceState.STOPPED
            self._detail = self._record(stopped=True)

    async def retire(self) -> str:
        """End a replica that is no longer wanted, and forget it; what was done, in words.

        Raises:
            TransientError: it is there in spite of SIGKILL, or cannot be forgotten.
        """
        async with self._lock:
            if self._state is None:
                await self._adopt()
            await self._end()
            self._terms.records.forget(self._number)
            self.release()
        return f"stopped {self.id}, which is one too many"

    def release(self) -> None:
        """Let go of the run without touching it."""
        if self._child is not None:
            self._child.release()
            self._child = None
        self._state = None
        give_back(self._port)

    async def bound_log(self) -> None:
        """Rotate the log if it has grown too large; trouble with it is told in the detail."""
        path = Path(self._terms.log(self._number))
        try:
            if log_size_bytes(path) > self._terms.log_size_bytes:
                await asyncio.to_thread(rotate, path, self._terms.log_keep)
        except OSError as error:
            self._detail = f"log not rotated: {error.strerror}"

    async def _adopt(self) -> str:
        """Find the living run and what a dead one left behind; what was adopted, in words."""
        boot = self._terms.clock.boot
        record = self._terms.records.read(self._number)
        if record is not None:
            self._identity, self._run = record.identity, record.run
            self._hold(record.port)
            if record.identity.boot == boot and self._watch(record.identity):
                return f"adopted {self.id} (pid {record.identity.pid})"
        # Started right before Prunella was killed, so that nothing was written: it knows itself.
        marked = await self._find_marked()
        for newer in (one for one in marked if one.leads and one.run > self._run):
            if self._watch(newer.identity):
                self._run = newer.run
                self._hold(self._port_of(newer.identity))
                self._detail = self._record(stopped=False)
                return f"adopted {self.id} (pid {newer.identity.pid}), which was not recorded"
        self._survivors = self._left_behind(marked)
        return ""

    def _hold(self, port: int) -> None:
        self._port = port
        keep(port)

    def _port_of(self, identity: Identity) -> int:
        given = variable(identity.pid, PORT_VARIABLE)
        return int(given) if self._terms.ports is not None and given.isdigit() else 0

    async def _find_marked(self) -> tuple[Marked, ...]:
        clock = self._terms.clock
        search = self._search()
        for _ in range(_UNBORN_LOOKS):
            if not search.unborn:
                break
            await clock.sleep_until(Instant(clock.now() + _UNBORN_S))
            search = self._search()
        return search.marked

    def _search(self) -> Search:
        boot = self._terms.clock.boot
        return marked_processes(self._terms.marker(self._number), RUN_VARIABLE, boot)

    def _left_behind(self, marked: tuple[Marked, ...]) -> tuple[Identity, ...]:
        # Those of a recorded run by its session: what has left that session did so on purpose.
        session = None if self._identity is None else self._identity.pid
        return tuple(
            one.identity
            for one in marked
            if not one.leads and (one.session == session or one.run > self._run)
        )

    def _still_there(self) -> tuple[Identity, ...]:
        known = () if self._identity is None else session_members(self._identity)
        return known or self._left_behind(self._search().marked)

    def _watch(self, identity: Identity) -> bool:
        self._child = Child.adopt(identity, self._on_exit)
        if self._child is None:
            return False
        self._identity = identity
        self._state, self._detail = InstanceState.RUNNING, ""
        return True

    async def _take_up(self) -> str:
        record = self._terms.records.read(self._number)
        ran = record is not None and record.identity.boot == self._terms.clock.boot
        if record is not None and ran and not record.stopped:
            self._say_exited("exited while nobody watched")
            return f"found {self.id} dead (was pid {record.identity.pid})"
        try:
            await self._end()
            await self._start()
        except PrunellaError as error:
            self._say_exited(str(error))
            return f"could not start {self.id}: {error}"
        assert self._identity is not None
        return f"started {self.id} (pid {self._identity.pid})"

    async def _start(self) -> None:
        run, terms = self._run + 1, self._terms
        try:
            if terms.ports is not None:
                self._port = terms.ports.take(self._port, terms.marker(self._number))
            launch = terms.launch(self._number, run, self._port)
            child = Child.spawn(launch, terms.clock.boot, self._on_exit)
        except PrunellaError as error:
            self._state, self._detail = InstanceState.EXITED, str(error)
            raise
        self._child, self._identity, self._run = child, child.identity, run
        self._state = InstanceState.RUNNING
        self._detail = self._record(stopped=False)
        await self.bound_log()

    async def _end(self) -> None:
        if self._child is not None:
            self._ending = True
            try:
                await self._child.stop(self._terms.stop_signal, self._terms.stop_timeout_s)
            finally:
                self._ending = False
        if self._dead is not None:
            self._survivors = await self._dead.survivors()
            self._dead = None
        if self._survivors:
            await end_survivors(self._survivors, self._still_there)
            self._survivors = ()

    def _record(self, *, stopped: bool) -> str:
        if self._identity is None:
            return ""
        record = Record(self._identity, self._run, stopped, self._port)
        return self._terms.records.write(self._number, record)

    def _on_exit(self, child: Child) -> None:
        self._child, self._dead = None, child
        if self._ending:
            self._state, self._detail = InstanceState.EXITED, "ended by Prunella"
        else:
            self._say_exited(child.end)

    def _say_exited(self, detail: str) -> None:
        self._state, self._detail = InstanceState.EXITED, detail
        self._terms.on_fact(Fact(FactKind.EXITED, self.id, self._terms.clock.now(), detail))
