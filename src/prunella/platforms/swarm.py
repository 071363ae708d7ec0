"""Platform ``swarm``: a service of a Docker swarm, through one of its managers.

Swarm itself replaces tasks one by one, so that an action is one update of the service. Every
update names the version that it starts from, and where that is not the newest any more, what
somebody else has changed meanwhile wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    Instant,
    Scope,
    Status,
)
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.platforms._docker_api import EngineSpec, address_of, part
from prunella.platforms._docker_feed import feed_at, leave
from prunella.platforms._docker_survey import default_api, likely_probe
from prunella.platforms._facts import Teller
from prunella.platforms._swarm_feed import EVERY, SwarmFeed
from prunella.platforms._swarm_replicas import Replicas
from prunella.platforms._swarm_values import Service, Spec, Task, forced, rolled_back, scaled
from prunella.plugins import Draft, PlatformContext, PlatformPlugin
from prunella.ports import Clock, Remark

_SCALING = (ActionKind.SCALE_UP, ActionKind.SCALE_DOWN)
_CAN = (ActionKind.RESTART, *_SCALING, ActionKind.ROLLBACK)
_ALL: Mapping[ActionKind, Scope] = dict.fromkeys(_CAN, Scope.SERVICE)
_TRIES = 5  # Swarm itself counts a service's version up while it carries out an update
_LOOK_S = 0.1
_MORE = 2  # replicas that a draft allows beyond those that run


class SwarmSpec(EngineSpec):
    """A service that is deployed already, on the swarm that `host` is a manager of."""

    service: str = Field(
        min_length=1, description="Its name, as `docker service ls` shows it, or its id."
    )


class SwarmPlatform:
    """One service of a swarm."""

    kind: ClassVar[str] = "swarm"

    def __init__(self, spec: SwarmSpec, context: PlatformContext) -> None:
        self._name = spec.service
        self._address = address_of(spec)
        self._context = context
        self._feed: SwarmFeed | None = None
        self._teller = Teller(context)
        self._replicas = Replicas()
        self._acting = False
        self._is_global = False

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        if self._is_global:
            return {kind: scope for kind, scope in _ALL.items() if kind not in _SCALING}
        return _ALL

    async def observe(self) -> Status:
        """What the manager knows; it is asked only where that may have changed.

        Raises:
            TransientError: it cannot be reached, or has no leader.
            PermanentError: there is no such service, or it is no manager.
        """
        feed = await self._ready()
        await feed.look()
        now = self._status(feed)
        self._teller.take_in(now)
        return now

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:  # noqa: ARG002 - no fence
        """Update the service, and wait until its tasks are what they should be.

        Raises:
            ConflictError: somebody has scaled, deployed or rolled back meanwhile.
            PermanentError: another kind of action, no such instance.
            TransientError: the manager cannot be reached, or Swarm did not get to the end.
        """
        if action.kind not in self.capabilities:
            raise PermanentError(f"platform swarm cannot {action.kind}")
        feed = await self._ready()
        self._acting = True
        try:
            await feed.look(anew=True)
            match action.kind:
                case ActionKind.RESTART:
                    await self._restart(feed, action)
                case ActionKind.ROLLBACK:
                    await self._roll_back(feed, action)
                case _:
                    await self._scale(feed, action)
        finally:
            self._acting = False
        self._teller.catch_up(self._status(feed))

    async def examine(self) -> Sequence[Remark]:
        try:
            feed = await self._ready()
            service = feed.service(self._name)
        except PrunellaError as error:
            return (Remark(str(error), fault=True),)
        return tuple(Remark(words) for words in service.oddities())

    async def close(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            await leave(feed, self._on_news)

    async def _ready(self) -> SwarmFeed:
        if self._feed is None:
            self._feed = feed_at(SwarmFeed, self._address, self._context.clock)
            self._feed.listen([EVERY], self._on_news)
        await self._feed.ready()
        return self._feed

    def _on_news(self) -> None:
        if self._teller.told is None or self._acting or self._feed is None:
            return
        try:
            now = self._status(self._feed)
        except PermanentError:
            now = Status((), desired=0)
        self._teller.take_in(now)

    def _status(self, feed: SwarmFeed) -> Status:
        service = feed.service(self._name)
        self._is_global = service.replicas is None
        instances, desired = self._replicas.read(service, feed)
        images = [one.revision for one in instances]
        # A version is there when the first task runs it, not when somebody has asked for it.
        revision = service.image if service.image in images or not images else images[0]
        return Status(instances, desired, revision, service.identity)

    # Actions -----------------------------------------------------------------------------------

    async def _restart(self, feed: SwarmFeed, action: Action) -> None:
        service, status = feed.service(self._name), self._status(feed)
        present = [one.id for one in status.instances]
        if action.instance is not None and action.instance not in present:
            raise PermanentError(f"{self._context.service} has no instance {action.instance}")
        runs = {status.identity, *(one.identity for one in status.instances)}
        if action.identity and action.identity not in runs:
            return
        count = service.force_count + 1
        await self._update(
            feed,
            service,
            lambda now: forced(now.spec, count),
            lambda now: now.force_count >= count,
        )
        await self._rolled_out(feed, lambda task: task.spec.force_update >= count)

    async def _roll_back(self, feed: SwarmFeed, action: Action) -> None:
        image, service = action.revision, feed.service(self._name)
        assert image is not None
        if service.image != image:
            if action.before and service.image != action.before:
                raise ConflictError(f"somebody has deployed {service.image} meanwhile")
            if service.update_status.state.startswith("rollback"):
                raise PermanentError("Swarm has rolled it back already: an undo is not undone")
            await self._update(
                feed,
                service,
                lambda now: rolled_back(now, image),
                lambda now: now.image == image,
            )
        await self._rolled_out(feed, lambda task: task.image == image)

    async def _scale(self, feed: SwarmFeed, action: Action) -> None:
        replicas, service = action.replicas, feed.service(self._name)
        assert replicas is not None
        if service.replicas == replicas:
            return
        if action.before and action.before != str(service.replicas):
            raise ConflictError(f"there are to be {service.replicas} by now, not {action.before}")
        await self._update(
            feed,
            service,
            lambda now: scaled(now.spec, replicas),
            lambda now: now.replicas == replicas,
        )
        if action.kind is ActionKind.SCALE_DOWN:
            await self._until(feed, lambda _, running: len(running) <= replicas)

    async def _update(
        self,
        feed: SwarmFeed,
        service: Service,
        change: Callable[[Service], Spec],
        reached: Callable[[Service], bool],
    ) -> None:
        """One update on top of `service` as it was read, and never one on top of another's."""
        seen = service
        for _ in range(_TRIES):
            try:
                await feed.api.post(
                    f"services/{seen.id}/update",
                    change(seen.model_copy(deep=True)),
                    version=seen.version.index,
                )
            except (TransientError, PermanentError) as error:
                await feed.look(anew=True)
                seen = feed.service(self._name)
                if reached(seen):
                    return
                if not isinstance(error, ConflictError):
                    raise
                if seen.spec != service.spec:
                    raise ConflictError("somebody else has changed it meanwhile") from error
            else:
                await feed.look(anew=True)
                return
        raise TransientError("Swarm is busy with an earlier update of it")

    async def _rolled_out(self, feed: SwarmFeed, is_new: Callable[[Task], bool]) -> None:
        """Wait until all tasks that run are new ones, and there are as many as there should be."""

        def done(service: Service, running: Sequence[Task]) -> bool:
            enough = service.replicas if service.replicas is not None else 1
            return len(running) >= enough and all(map(is_new, running))

        await self._until(feed, done)

    async def _until(
        self, feed: SwarmFeed, done: Callable[[Service, Sequence[Task]], bool]
    ) -> None:
        """Wait until what runs is what should run, and it is as `done` says."""
        clock = self._context.clock
        give_up = clock.now() + self._patience_s(feed)
        while True:
            service = feed.service(self._name)
            tasks = feed.tasks(service)
            running = [task for task in tasks if task.status.state == "running"]
            if all(task.desired_state == "running" for task in running) and done(service, running):
                return
            update = service.update_status
            if update.state in ("paused", "rollback_started", "rollback_paused"):
                raise TransientError(f"Swarm did not get to the end: {update.message}")
            if clock.now() >= give_up:
                raise TransientError("Swarm has not got to the end in time")
            await clock.sleep_until(Instant(clock.now() + _LOOK_S))
            await feed.look(anew=True)

    def _patience_s(self, feed: SwarmFeed) -> float:
        call_s = self._address.timeout_s
        return call_s + feed.service(self._name).replacement_s(call_s)


async def _reach(_clock: Clock, /) -> str:
    async with default_api() as api:
        try:
            info = await api.get("info")
        except PrunellaError as error:
            return str(error)
    manages = part(info, "Swarm").get("ControlAvailable")
    return "" if manages else "this node is no manager of a swarm"


async def _survey(_clock: Clock, /) -> Sequence[Draft]:
    async with default_api() as api:
        services = [Service.model_validate(one) for one in await api.get("services")]
    return tuple(
        Draft(
            one.name,
            {"service": one.name},
            _probes(one),
            {"min": one.replicas, "max": one.replicas + _MORE} if one.replicas else {},
            " ".join(one.oddities()),
        )
        for one in sorted(services, key=lambda one: one.name)
    )


def _probes(service: Service) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        likely_probe(port.target_port, port.published_port)
        for port in service.ports
        if port.protocol == "tcp" and port.published_port
    )


PLUGIN = PlatformPlugin("swarm", SwarmSpec, SwarmPlatform, can=_CAN, reach=_reach, survey=_survey)
