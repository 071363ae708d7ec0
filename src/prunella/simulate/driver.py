"""Runs engines on virtual time: what the daemon's tasks and timers do, without waiting."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from random import Random

from prunella.core.cadence import interval_s
from prunella.core.guards import guards
from prunella.core.health import ProbeKey
from prunella.core.holds import in_force
from prunella.core.ledger import Entry, Holder, Veto
from prunella.core.model import ActionId, Epoch, Hold, InstanceId, Instant, ServiceId
from prunella.core.policy import FleetPolicy, Policy
from prunella.core.snapshot import Forced
from prunella.core.traffic import Flow
from prunella.errors import TransientError
from prunella.plugins import stores
from prunella.ports import Endpoint, Route, Store
from prunella.runtime.engine import Engine
from prunella.runtime.fleet import Fleet
from prunella.runtime.notices import Bus
from prunella.runtime.passage import Passage
from prunella.runtime.record import World
from prunella.simulate.world import Ailment, Effect, SimService
from prunella.testing.clock import SimClock
from prunella.testing.gateway import FakeGateway

_JITTER = 0.1
_READING_S = 5.0
_ONLY = ProbeKey(0)


def _route(service: SimService) -> Route:
    numbers = [InstanceId(str(number)) for number in range(service.instance_count)]
    return Route(service.id, None, endpoints=tuple(Endpoint(n, "", 0) for n in numbers))


class Simulation:
    """Services, engines and a script on one virtual clock. Same seed, same history.

    Attributes:
        effects: all that was really done, in order.
        observation_count: checks that went through the engines.
        entries: what the engines wanted noted in the ledger.
        gateway: in front of all services, if there is to be one.

    Args:
        without_guard: leave one guard out, to see that it is missed.
        behind_gateway: whether there is a gateway in front of the services.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        fleet: FleetPolicy | None = None,
        *,
        seed: int = 0,
        store: Store | None = None,
        without_guard: str = "",
        behind_gateway: bool = False,
    ) -> None:
        self.clock = SimClock()
        self.store: Store = store or stores()["memory"].open("memory://", False)  # noqa: FBT003
        self.policy = policy or Policy()
        self.fleet_policy = fleet or FleetPolicy()
        self.effects: list[Effect] = []
        self.services: dict[str, SimService] = {}
        self.engines: dict[str, Engine] = {}
        self.entries: list[Entry] = []
        self.observation_count = 0
        self.gateway = FakeGateway(self.clock, Random(seed))  # noqa: S311 - as below
        self.gateway.serves = lambda service, server: self.services[service].serves(int(server))
        self._passages: dict[ServiceId, Passage] = {}
        self._policies: dict[ServiceId, Policy] = {}
        self._random = Random(seed)  # noqa: S311 - reproducible on purpose
        self._events: list[tuple[float, int, Callable[[], object] | SimService | Engine]] = []
        self._order = count()
        self._chain = tuple(guard for guard in guards() if guard.name != without_guard)
        self._epoch = Epoch(0)
        self._generation = 0
        self._known_holds: tuple[Hold, ...] = ()
        self._due: dict[ServiceId, float] = {}
        self._behind_gateway = behind_gateway
        self._reading = False

    async def start(self, services: Sequence[str], **settings: object) -> None:
        """Begin to watch `services`, all healthy; `settings` are attributes of `SimService`."""
        for name in services:
            id_ = ServiceId(name)
            service = SimService(id_, self.clock, self._random, self.effects)
            for key, value in settings.items():
                setattr(service, key, value)
            self.services[id_] = service
        await self._boot()

    async def restart_prunella(self) -> None:
        """Forget everything in memory and come back from the store, as after kill -9."""
        await self._boot()

    async def _boot(self) -> None:
        self._generation += 1
        holder = Holder("sim", 1, str(self._generation), self.clock.boot, str(self._generation))
        if self._epoch:
            await self.store.release(epoch=self._epoch)
        epoch = self._epoch = await self.store.claim(holder, self.clock.stamp())
        self._fleet = Fleet(self.fleet_policy)
        world = World(
            self.clock,
            self.store,
            self._fleet,
            Bus(),
            self._holds,
            self.entries.append,
            lambda: epoch,
            self._chain,
        )
        self._events = [event for event in self._events if callable(event[2])]
        heapq.heapify(self._events)
        self.engines = {}
        self._due = {}
        self._passages = {}
        if self._behind_gateway:
            await self.gateway.route([_route(service) for service in self.services.values()])
            self._push(self.clock.now() + _READING_S, self._read_later)
        rows = {row.service: row for row in await self.store.load()}
        self._known_holds = tuple(await self.store.holds(self.clock.stamp()))
        for service in self.services.values():
            id_ = service.id
            policy = self._policies.get(id_, self.policy)
            passage = None
            if self._behind_gateway:
                passage = self._passages[id_] = Passage(id_, self.gateway, self.clock)
            engine = Engine(id_, id_, policy, [False], service, world, None, passage)
            self.engines[id_] = engine
            await engine.restore(rows.get(id_))
            engine.tell()
            first = self.clock.now() + policy.interval_s * self._random.random()
            self._push(first, service)
            self._push(self.clock.now(), engine)

    def at(self, when_s: float, what: Callable[[], object]) -> None:
        """Script: call `what` at `when_s` on the virtual clock."""
        self._push(when_s, what)

    def crash(self, name: str) -> None:
        """The process of a service exits, and its platform says so."""
        self.services[name].suffer(Ailment.CRASHED)
        self.tell(name)

    def deploy(self, name: str, revision: str) -> None:
        """Somebody deploys another version of a service, and its platform says so."""
        self.services[name].deploy(revision)
        self.tell(name)

    def tell(self, name: str) -> None:
        """The platform of a service says that something has happened."""
        engine = self.engines[name]
        engine.tell()
        self._push(self.clock.now(), engine)

    async def force(self, name: str, forced: Forced) -> ActionId | tuple[Veto, ...]:
        engine = self.engines[name]
        begun = await engine.force(forced)
        self._push(self.clock.now(), engine)
        return begun

    async def pause(self, name: str | None, owner: str = "somebody", reason: str = "") -> None:
        service = None if name is None else ServiceId(name)
        hold = Hold(service, owner, reason, self.clock.stamp())
        await self.store.place_hold(hold, epoch=self._epoch)
        self._known_holds = tuple(await self.store.holds(self.clock.stamp()))

    async def resume(self, name: str | None) -> None:
        service = None if name is None else ServiceId(name)
        await self.store.lift_holds(
            service, self.clock.stamp(), epoch=self._epoch, actor="somebody"
        )
        self._known_holds = tuple(await self.store.holds(self.clock.stamp()))
        if service is not None:
            await self.engines[service].release("somebody")

    def set_policy(self, name: str, policy: Policy) -> None:
        """Before `start`: a policy of its own for one service."""
        self._policies[ServiceId(name)] = policy

    async def run(self, until_s: float) -> None:
        """Let virtual time pass up to `until_s`."""
        clock = self.clock
        while self._events and self._events[0][0] <= until_s:
            due, _, what = heapq.heappop(self._events)
            clock.move_to(Instant(due))
            if isinstance(what, SimService):
                await self._check(what)
            elif isinstance(what, Engine):
                await self._drive(what)
            else:
                what()
                if self._reading:
                    await self._read()
        clock.move_to(Instant(until_s))

    def ask(self, name: str, every_s: float, until_s: float) -> list[bool]:
        """Callers ask a service through the gateway; the answer grows: whether each was served."""
        served: list[bool] = []

        def once() -> None:
            served.append(bool(self.gateway.ask(ServiceId(name))))
            if self.clock.now() + every_s < until_s:
                self._push(self.clock.now() + every_s, once)

        self._push(self.clock.now() + every_s, once)
        return served

    def _read_later(self) -> None:
        self._push(self.clock.now() + _READING_S, self._read_later)
        self._reading = True

    async def _read(self) -> None:
        """What the gateways of the runtime do for all services, at their interval."""
        self._reading = False
        flows: Mapping[ServiceId, Flow] = {}
        with suppress(TransientError):
            flows = await self.gateway.observe()
        for id_, passage in self._passages.items():
            flow = flows.get(id_)
            passage.take(flow)
            if self.engines[id_].take_flow(flow):
                await self._drive(self.engines[id_])

    async def _check(self, service: SimService) -> None:
        engine = self.engines[service.id]
        seen = await service.check()
        self.observation_count += 1
        if engine.observe(_ONLY, seen):
            await self._drive(engine)
        now = self.clock.now()
        wait_s = interval_s(
            engine.policy.interval_s,
            engine.policy,
            engine.phase,
            engine.diagnosis.health,
            engine.cadence_since,
            now,
        )
        wait_s = max(wait_s, seen.latency_s)
        spread = 1 + _JITTER * (2 * self._random.random() - 1)
        self._push(now + wait_s * spread, service)

    async def _drive(self, engine: Engine) -> None:
        if self.engines.get(engine.service) is not engine:
            return
        while True:
            next_at = await engine.advance()
            if next_at is None:
                return
            if next_at > self.clock.now():
                break
        if self._due.get(engine.service) != next_at:
            self._due[engine.service] = next_at
            self._push(next_at, engine)

    def _push(self, when_s: float, what: Callable[[], object] | SimService | Engine) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), what))

    @property
    def fleet(self) -> Fleet:
        return self._fleet

    def _holds(self, service: ServiceId) -> tuple[Hold, ...]:
        known = self._known_holds
        return in_force(known, service, self.clock.stamp()) if known else ()
