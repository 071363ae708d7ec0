"""Platform ``systemd``: service units of the system or of a user, through D-Bus.

One connection serves all units of a bus. systemd tells of every change, so that observing asks it
nothing. What an action rests on is read anew right before it, and what has come of it after; the
job of somebody else on the same unit wins over ours.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    Fact,
    FactKind,
    Instance,
    InstanceId,
    InstanceState,
    Instant,
    Scope,
    Status,
)
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.platforms._cgroup import group_pids
from prunella.platforms._systemd_bus import DeniedError, address_of
from prunella.platforms._systemd_downed import Downed
from prunella.platforms._systemd_state import NUMBERED, Unit
from prunella.platforms._systemd_survey import permit, reach, remarks, survey
from prunella.platforms._systemd_units import Units
from prunella.plugins import PlatformContext, PlatformPlugin
from prunella.ports import Remark
from prunella.spec import Duration, Spec

_RESTART = {ActionKind.RESTART: Scope.INSTANCE}
_SCALE = {ActionKind.SCALE_UP: Scope.SERVICE, ActionKind.SCALE_DOWN: Scope.SERVICE}
_AGAIN_S = 0.1  # between looks at a job whose end was not heard of
_SUFFIX = re.compile(r"\.(service|socket|timer|path|target|slice|scope|mount|device|swap)$")
_UNIT = re.compile(r"(?=.{9,255}$)[A-Za-z0-9:_.\\-][A-Za-z0-9:_.\\@-]*\.service")
_BUS = re.compile(r"system|user|(unix:(path|abstract)|tcp:host)=.+")
_NOT_UP = {
    "done": "its conditions do not hold",
    "failed": "",
    "dependency": "a unit that it requires did not start",
    "skipped": "its conditions do not hold",
    "timeout": "it took longer than its JobTimeoutSec=",
}


def _unit_name(value: str) -> str:
    name = value if _SUFFIX.search(value) else f"{value}.service"
    if not _UNIT.fullmatch(name):
        raise ValueError("expected the name of one service unit, such as shop.service")
    return name


def _bus_name(value: str) -> str:
    if not _BUS.fullmatch(value):
        raise ValueError("expected system, user, or an address such as unix:path=/run/bus")
    return value


class SystemdSpec(Spec):
    """A service that systemd runs."""

    unit: Annotated[str, AfterValidator(_unit_name)] = Field(
        description="Name of the service unit. A template, `app@.service`, or a numbered instance "
        "of it, `app@1.service`, stands for all numbered instances that are there; such a service "
        "can be scaled."
    )
    bus: Annotated[str, AfterValidator(_bus_name)] = Field(
        default="system",
        description="Whose systemd: that of the `system`, that of the `user` that Prunella runs "
        "as, or the address of a bus.",
    )
    timeout: Duration = Field(
        default=90.0,
        description="How long a start or a stop is waited for; systemd may go on with it.",
    )


class SystemdPlatform:
    """One unit, or all numbered instances of a template."""

    kind: ClassVar[str] = "systemd"

    def __init__(self, spec: SystemdSpec, context: PlatformContext) -> None:
        self._spec = spec
        self._context = context
        numbered = NUMBERED.fullmatch(spec.unit)
        self._head = numbered["head"] if numbered else ""  # of a template; empty: it is none
        self._own = "" if numbered and not numbered["number"] else spec.unit
        template = [f"{self._head}@.service"] if self._head else []
        self._watched = (*template, *([self._own] if self._own else []))
        self._downed = Downed(context.state_dir)
        self._units: Units | None = None
        self._told: dict[str, InstanceState] | None = None  # what was observed last
        self._ours: set[str] = set()  # what happens to these now is our own doing

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        return _RESTART | _SCALE if self._head else _RESTART

    async def observe(self) -> Status:
        """What systemd has told so far.

        Raises:
            TransientError: there is no connection to it now.
            PermanentError: we may not ask, or there is no such unit.
        """
        units = await self._look()
        self._told = {unit.name: self._state(unit) for unit in units}
        for name, state in self._told.items():
            if state is InstanceState.RUNNING:
                self._downed.drop(name)
        wanted = [unit for unit in units if not self._head or self._is_there(unit)]
        return Status(tuple(self._instance(unit) for unit in units), desired=len(wanted))

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:  # noqa: ARG002 - no fence
        """Restart one instance or all of them one after the other, or set their number.

        Raises:
            ConflictError: somebody else has stopped it or changed the number meanwhile.
            PermanentError: another kind of action, no such instance, or no right to do it.
            TransientError: it did not start or stop, or systemd cannot be asked now.
        """
        if action.kind not in self.capabilities:
            raise PermanentError(f"platform systemd cannot {action.kind}")
        units = await self._look(anew=True)
        if action.kind is not ActionKind.RESTART:
            await self._scale(action, [unit for unit in units if self._is_there(unit)])
            return
        chosen = [unit for unit in units if action.instance in (None, unit.name)]
        if not chosen:
            raise PermanentError(f"{self._context.service} has no instance {action.instance}")
        for unit in chosen:
            await self._restart(unit, action.identity)

    async def close(self) -> None:
        units, self._units = self._units, None
        if units is not None:
            for watched in self._watched:
                await units.leave(watched, self._on_change)

    async def examine(self) -> Sequence[Remark]:
        """What speaks against looking after this unit; asked of systemd, changing nothing."""
        name = self._own or self._name(1)
        try:
            units = await self._look()
            found = await remarks(self._open(), self._spec.bus, name, units)
        except (TransientError, PermanentError) as trouble:
            return (Remark(str(trouble), fault=True),)
        if any(self._open().is_shared(watched) for watched in self._watched):
            return (Remark(f"another service looks after {name} as well", fault=True), *found)
        return found

    async def _restart(self, before: Unit, identity: str) -> None:
        name = before.name
        state = self._state(before)
        if state is InstanceState.RUNNING and identity not in ("", before.run):
            return
        if state is InstanceState.STOPPED and before.job:
            # Somebody's stop, or the first half of a restart: not ours to replace.
            raise TransientError(
                f"{name} is being stopped or restarted, and systemd is still at it"
            )
        known = (self._told or {}).get(name, state)
        if state is InstanceState.STOPPED and known is not InstanceState.STOPPED:
            raise ConflictError(f"{name} was stopped by somebody else meanwhile")
        reset = before.result == "start-limit-hit"
        with self._doing(name):
            result, after = await self._order("RestartUnit", name, reset=reset)
        if after is None or after.run == before.run or result not in ("", "done"):
            if state is not InstanceState.STOPPED and result in _NOT_UP:
                self._downed.add(name, before.run)
            raise _failure(name, "start", result, after)

    async def _scale(self, action: Action, present: Sequence[Unit]) -> None:
        if action.replicas is None or len(present) == action.replicas:
            return
        if str(len(present)) != action.before:
            raise ConflictError(
                f"there are {len(present)} instances now, not {action.before}: "
                "somebody else has changed their number"
            )
        if len(present) > action.replicas:
            for unit in present[action.replicas :][::-1]:
                await self._take_away(unit.name)
            return
        first = max((_number(unit) for unit in present), default=0) + 1
        names = [self._name(first + n) for n in range(action.replicas - len(present))]
        for name in names:
            try:
                await self._add(name)
            except (TransientError, PermanentError):
                for added in names[: names.index(name) + 1]:
                    await self._take_away(added)
                raise

    async def _add(self, name: str) -> None:
        with self._doing(name):
            result, after = await self._order("StartUnit", name)
        if after is None or after.state is not InstanceState.RUNNING or result not in ("", "done"):
            raise _failure(name, "start", result, after)

    async def _take_away(self, name: str) -> None:
        self._downed.drop(name)
        with self._doing(name):
            result, after = await self._order("StopUnit", name)
            if after is not None and after.state is InstanceState.EXITED:
                # It had failed before, and would count for as long as systemd remembers that.
                await self._open().forgive(name)
                await self._look(anew=True)
                after = None
        if after is not None and self._is_there(after):
            raise _failure(name, "stop", result, after)

    async def _order(
        self, method: str, name: str, *, reset: bool = False
    ) -> tuple[str, Unit | None]:
        """Have a job done and look what has come of it, also where no end of it was heard of.

        Returns:
            The job's result, empty if that is not known, and the unit; None: it has gone.
        """
        clock, timeout_s = self._context.clock, self._spec.timeout
        until = clock.now() + timeout_s
        try:
            result = await self._open().order(method, name, timeout_s, reset=reset)
        except DeniedError as error:
            raise PermanentError(permit(name, str(error))) from error
        while True:
            late = clock.now() >= until
            try:
                units = await self._look(anew=True)
            except TransientError:
                if late:
                    raise
            else:
                after = next((unit for unit in units if unit.name == name), None)
                if result or late or after is None or not after.job:
                    return result, after
            await clock.sleep_until(Instant(clock.now() + _AGAIN_S))

    @contextmanager
    def _doing(self, name: str) -> Generator[None]:
        self._ours.add(name)
        try:
            yield
        finally:
            self._ours.discard(name)

    async def _look(self, *, anew: bool = False) -> list[Unit]:
        """The unit, or the instances that are there in the order of their numbers."""
        found: dict[str, Unit] = {}
        for watched in self._watched:
            for unit in await self._open().units(watched, anew=anew):
                if watched == self._own or (NUMBERED.fullmatch(unit.name) and self._is_there(unit)):
                    found[unit.name] = unit
        for unit in found.values():
            if unit.load == "not-found" and not unit.run:
                raise PermanentError(f"systemd knows no unit {unit.name}")
        return sorted(found.values(), key=_number) if self._head else list(found.values())

    def _state(self, unit: Unit) -> InstanceState:
        downed = unit.state is InstanceState.STOPPED and self._downed.has(unit.name, unit.run)
        return InstanceState.EXITED if downed else unit.state

    def _is_there(self, unit: Unit) -> bool:
        return self._state(unit) is not InstanceState.STOPPED

    def _instance(self, unit: Unit) -> Instance:
        pids, state = group_pids(unit.group), self._state(unit)
        return Instance(
            InstanceId(unit.name),
            state,
            unit.run,
            unit.detail if state is unit.state else "a restart has not brought it up again",
            pids if len(pids) < 2 else _main_first(pids, unit.main_pid),
            restart_count=unit.restart_count,
            is_restarting=unit.is_restarting,
        )

    def _open(self) -> Units:
        if self._units is None:
            self._units = Units.shared(address_of(self._spec.bus), self._context.clock)
            for watched in self._watched:
                self._units.watch(watched, self._on_change)
        return self._units

    def _name(self, number: int) -> str:
        return f"{self._head}@{number}.service"

    def _on_change(self, before: Unit | None, after: Unit) -> None:
        if after.name in self._ours or self._told is None:
            return
        was = None if before is None else before.state
        another = before is None or before.run != after.run
        match after.state:
            case InstanceState.EXITED if was is not after.state or another:
                self._say(FactKind.EXITED, after)
            case InstanceState.RUNNING if was is not after.state or another:
                self._say(FactKind.STARTED, after)
            case InstanceState.STOPPED if was is not after.state:
                self._say(FactKind.CHANGED, after)
            case _:
                pass

    def _say(self, kind: FactKind, unit: Unit) -> None:
        now = self._context.clock.now()
        self._context.on_fact(Fact(kind, InstanceId(unit.name), now, unit.detail))


def _main_first(pids: tuple[int, ...], main_pid: int) -> tuple[int, ...]:
    return tuple(sorted(pids, key=lambda pid: (pid != main_pid, pid)))


def _number(unit: Unit) -> int:
    numbered = NUMBERED.fullmatch(unit.name)
    return int(numbered["number"] or 0) if numbered else 0


def _failure(name: str, verb: str, result: str, after: Unit | None) -> Exception:
    """Why a job did not do what it was to do."""
    if result == "canceled":
        return ConflictError(f"somebody else's job on {name} has taken the place of ours")
    if not result and after is not None and after.job:
        return TransientError(f"{name} did not {verb} in time; systemd is still at it")
    if not result:
        return TransientError(f"{name} did not {verb}: the order was lost on its way to systemd")
    detail = after.detail if after is not None else ""
    return TransientError(f"{name} did not {verb}: {_NOT_UP.get(result) or detail or result}")


PLUGIN = PlatformPlugin(
    "systemd",
    SystemdSpec,
    SystemdPlatform,
    can=(*_RESTART, *_SCALE),
    reach=reach,
    survey=survey,
)
