"""The containers of one service, as a platform: what ``docker`` and ``compose`` have in common.

They differ in which containers belong to a service and in how one more is called; that is in
their ``Crew``. The rest is here: observing from the shared roster, facts, and the actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import ClassVar, NamedTuple, Protocol
from urllib.parse import urlsplit

from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    InstanceId,
    InstanceState,
    Instant,
    Scope,
    Status,
)
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.platforms._docker_api import Address, MissingError
from prunella.platforms._docker_body import replica
from prunella.platforms._docker_container import (
    ASIDE,
    REPLACES_LABEL,
    REPLICA_LABEL,
    Container,
    Culprit,
    Ending,
    instance_of,
)
from prunella.platforms._docker_facts import Teller
from prunella.platforms._docker_feed import Key, feed_at, leave
from prunella.platforms._docker_replace import (
    create,
    exchange,
    inspect,
    put_back,
    remove,
    start,
    stop,
)
from prunella.platforms._docker_roster import Roster, Row
from prunella.plugins import PlatformContext
from prunella.ports import Remark

_ALL: Mapping[ActionKind, Scope] = {
    ActionKind.RESTART: Scope.INSTANCE,
    ActionKind.SCALE_UP: Scope.SERVICE,
    ActionKind.SCALE_DOWN: Scope.SERVICE,
    ActionKind.ROLLBACK: Scope.INSTANCE,
}
_DOCKERS_TURN_S = 1.0  # how long Docker may take to restart what it restarts by itself
_LOOK_AGAIN_S = 0.02


class Place(NamedTuple):
    """One replica: its id and number, and the container that fills it now."""

    instance: InstanceId
    number: int
    row: Row
    halfway: bool = False  # a replacement of it has not come to its end


class Crew(Protocol):
    """Which containers belong to a service."""

    @property
    def keys(self) -> tuple[Key, ...]:
        """What they can be known by, for the roster."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """What a container gets that Prunella makes in the place of one of them."""
        ...

    def places(self, roster: Roster) -> list[Place]:
        """All replicas there are, by number.

        Raises:
            PermanentError: there is none, or it cannot be told which are meant.
        """
        ...

    def unscalable(self, first: Container) -> str:
        """Why there can be no other one like `first`; empty when there can."""
        ...

    def next_one(self, first: Container, number: int) -> tuple[str, Mapping[str, str]]:
        """The name and the labels of one more replica."""
        ...


class _Found(NamedTuple):
    place: Place
    container: Container
    ending: Ending


class ContainerSet:
    """The containers of a crew, observed through the shared roster and healed one by one."""

    kind: ClassVar[str]

    def __init__(self, crew: Crew, address: Address, context: PlatformContext) -> None:
        self._crew = crew
        self._address = address
        self._machine = "" if address.is_local else urlsplit(address.host).hostname or ""
        self._context = context
        self._roster: Roster | None = None
        self._teller = Teller(context)
        self._answered: Status | None = None  # what decisions rest on
        self._acting = False
        self._first: Container | None = None

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        if self._first is None:
            return _ALL
        lacking = set[ActionKind]()
        if self._crew.unscalable(self._first):
            lacking |= {ActionKind.SCALE_UP, ActionKind.SCALE_DOWN}
        if self._first.host_config.auto_remove:
            lacking.add(ActionKind.ROLLBACK)
        return {kind: scope for kind, scope in _ALL.items() if kind not in lacking}

    async def observe(self) -> Status:
        """What is known of the containers; the Engine is asked only for what has changed.

        Raises:
            TransientError: the Engine cannot be reached.
            PermanentError: there is no such container, or we may not ask.
        """
        now = self._status(await self._look())
        self._teller.take_in(now)
        self._answered = now
        return now

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:  # noqa: ARG002 - no fence
        """Carry out one action on one container, or scale the service.

        Raises:
            ConflictError: somebody has stopped, removed, scaled or deployed it meanwhile.
            PermanentError: another kind of action, no such instance, no such image.
            TransientError: the Engine cannot be reached, or did not do it.
        """
        if action.kind not in self.capabilities:
            raise PermanentError(f"platform {self.kind} cannot {action.kind}")
        roster = await self._ready()
        self._acting = True
        try:
            match action.kind:
                case ActionKind.RESTART:
                    for place in await self._chosen(action):
                        await self._restart(roster, place, action.identity)
                case ActionKind.ROLLBACK:
                    for place in await self._chosen(action):
                        await self._roll_back(roster, place, action)
                case _:
                    await self._scale(roster, action)
        finally:
            self._acting = False
            if (now := self._known(roster)) is not None:
                self._teller.catch_up(now)

    async def complete(self, action: Action, /, *, epoch: Epoch) -> None:  # noqa: ARG002 - as above
        """Remove the containers that were kept as the way back."""
        roster = await self._ready()
        for place in self._crew.places(roster):
            if not place.halfway:
                await remove(roster.api, f"{place.row.name}{ASIDE}")

    async def examine(self) -> Sequence[Remark]:
        try:
            found = await self._look()
        except PrunellaError as error:
            return (Remark(str(error), fault=True),)
        remarks: list[Remark] = []
        first = found[0].container
        if any(one.container.restarts_itself for one in found):
            policy = first.host_config.restart_policy.name
            remarks.append(
                Remark(
                    f"restart: {policy}: Docker restarts it by itself as well. Its restarts count "
                    'in the budget; `restart: "no"` leaves them to Prunella alone.'
                )
            )
        if first.host_config.auto_remove:
            remarks.append(
                Remark("--rm: Docker removes it when it ends, so that it cannot be started again.")
            )
        if reason := self._crew.unscalable(first):
            remarks.append(Remark(f"It cannot be scaled: {reason}."))
        return tuple(remarks)

    async def close(self) -> None:
        roster, self._roster = self._roster, None
        if roster is not None:
            await leave(roster, self._on_news)

    # What is there -----------------------------------------------------------------------------

    async def _ready(self) -> Roster:
        if self._roster is None:
            self._roster = feed_at(Roster, self._address, self._context.clock)
            self._roster.listen(self._crew.keys, self._on_news)
        await self._roster.ready()
        return self._roster

    async def _look(self) -> list[_Found]:
        roster = await self._ready()
        found: list[_Found] = []
        for place in self._crew.places(roster):
            roster.listen([("id", place.row.id)], self._on_news)  # whatever it is called later
            try:
                one = await roster.look(place.row.id)
            except MissingError as error:
                raise TransientError(f"{place.row.name} is being removed") from error
            found.append(_Found(place, one, self._judge(roster, place, one)))
        self._first = found[0].container
        return found

    def _judge(self, roster: Roster, place: Place, one: Container) -> Ending:
        ending = roster.judge(one)
        if place.halfway and ending.state is InstanceState.STOPPED:
            return Ending(InstanceState.EXITED, "it was to be replaced, which was interrupted")
        return ending

    def _status(self, found: Sequence[_Found]) -> Status:
        instances = tuple(
            instance_of(place.instance, one, ending, self._machine) for place, one, ending in found
        )
        newest = max(found, key=lambda each: each.container.created)
        return Status(instances, desired=len(instances), revision=newest.container.image)

    async def _chosen(self, action: Action) -> list[Place]:
        places = self._crew.places(await self._ready())
        chosen = [place for place in places if action.instance in (None, place.instance)]
        if not chosen:
            raise PermanentError(f"{self._context.service} has no instance {action.instance}")
        return chosen

    def _on_news(self) -> None:
        """Something is new about our containers: say what, unless it is our own doing."""
        if self._teller.told is not None and not self._acting and self._roster is not None:
            now = self._known(self._roster)
            if now is not None:
                self._teller.take_in(now)

    def _known(self, roster: Roster) -> Status | None:
        """The status as far as it was looked at; None: some of it was not, and will be told."""
        try:
            places = self._crew.places(roster)
        except PermanentError:
            return Status((), desired=0)
        found: list[_Found] = []
        for place in places:
            one = roster.known(place.row.id)
            if one is None:
                return None
            found.append(_Found(place, one, self._judge(roster, place, one)))
        return self._status(found)

    # Actions -----------------------------------------------------------------------------------

    async def _restart(self, roster: Roster, place: Place, identity: str) -> None:
        api, one = roster.api, await roster.look(place.row.id, anew=True)
        if identity and one.is_running and one.identity != identity:
            return
        self._respect(roster, place, one)
        if place.halfway:
            await self._put_back(roster, place)
        if one.state.status == "restarting" and await self._left_to_docker(roster, one):
            return
        roster.blame(one, Culprit.PRUNELLA)
        if one.state.status == "paused":
            await api.post(f"containers/{one.id}/unpause")
        # What has ended is started, not restarted: if it runs by then, nothing happens to it.
        alive = one.state.status in ("running", "restarting", "paused")
        try:
            await api.post(
                f"containers/{one.id}/{'restart' if alive else 'start'}", extra_s=one.stop_timeout_s
            )
        except (TransientError, PermanentError):
            now = await self._look_after(roster, place, one)
            if not now.is_running or now.identity == one.identity:
                raise
        else:
            now = await self._look_after(roster, place, one)
            if now.identity == one.identity:
                raise TransientError(f"Docker did not start {place.row.name}")

    async def _look_after(self, roster: Roster, place: Place, one: Container) -> Container:
        try:
            return await roster.look(one.id, anew=True)
        except MissingError as error:
            raise ConflictError(f"{place.row.name} has been removed meanwhile") from error

    async def _left_to_docker(self, roster: Roster, one: Container) -> bool:
        """Whether Docker, which is about to restart it by itself, has done so in a moment."""
        clock = self._context.clock
        until = clock.now() + _DOCKERS_TURN_S
        while clock.now() < until:
            await clock.sleep_until(Instant(clock.now() + _LOOK_AGAIN_S))
            now = await roster.look(one.id, anew=True)
            if now.is_running and now.identity != one.identity:
                return True
        return False

    async def _roll_back(self, roster: Roster, place: Place, action: Action) -> None:
        assert action.revision is not None
        one = await roster.look(place.row.id, anew=True)
        unborn = one.never_ran and REPLACES_LABEL in one.labels
        if place.halfway or unborn:
            await self._put_back(roster, place)
            (place,) = await self._chosen(replace(action, instance=place.instance))
            one = await roster.look(place.row.id, anew=True)
        if one.image == action.revision:
            return
        if action.before and one.image != action.before:
            raise ConflictError(f"{place.row.name} runs yet another image by now")
        self._respect(roster, place, one)
        roster.blame(one, Culprit.PRUNELLA)
        try:
            await exchange(
                roster.api, place.row.name, one, action.revision, labels=self._crew.labels
            )
        finally:
            await self._see(roster, one.id, place.row.name)

    async def _put_back(self, roster: Roster, place: Place) -> None:
        name = place.row.name.removesuffix(ASIDE)
        await put_back(roster.api, name, start_it=False)
        old = await inspect(roster.api, name)
        if old is not None:
            old = await roster.look(old.id, anew=True)
            if not old.is_running:
                roster.blame(old, Culprit.PRUNELLA)  # in an earlier life, perhaps

    async def _see(self, roster: Roster, *containers: str) -> None:
        """Know them by their new names, before their events have come."""
        for container in containers:
            one = await inspect(roster.api, container)
            if one is not None:
                await roster.look(one.id, anew=True)

    def _respect(self, roster: Roster, place: Place, one: Container) -> None:
        """Somebody's wish that has come since the decision wins over it."""
        before = () if self._answered is None else self._answered.instances
        was = next((i.state for i in before if i.id == place.instance), InstanceState.STOPPED)
        now = self._judge(roster, place, one).state
        if now is InstanceState.STOPPED and was is not InstanceState.STOPPED:
            raise ConflictError(f"somebody has stopped {place.row.name} meanwhile")

    async def _scale(self, roster: Roster, action: Action) -> None:
        assert action.replicas is not None
        places = self._crew.places(roster)
        if len(places) == action.replicas:
            return
        if action.before and action.before != str(len(places)):
            raise ConflictError(f"there are {len(places)} by now, and not {action.before}")
        if action.replicas > len(places):
            await self._add(roster, places, action.replicas)
        else:
            await self._take_away(roster, places, len(places) - max(1, action.replicas))

    async def _add(self, roster: Roster, places: Sequence[Place], replicas: int) -> None:
        api = roster.api
        first = await roster.look(places[0].row.id, anew=True)
        if reason := self._crew.unscalable(first):
            raise PermanentError(f"{self._context.service} cannot be scaled: {reason}")
        raw = await api.get(f"containers/{first.id}/json")
        image = await api.get(f"images/{first.image}/json")
        taken = {place.number for place in places}
        free = (number for number in range(1, replicas + 1) if number not in taken)
        made: list[str] = []
        try:
            for number in islice(free, replicas - len(places)):
                name, labels = self._crew.next_one(first, number)
                made.append(await create(api, name, replica(raw, image, labels)))
                await start(api, made[-1])
        except PrunellaError:
            for one in made:
                await remove(api, one, volumes=True)
                roster.forget(one)
            raise
        await self._see(roster, *made)

    async def _take_away(self, roster: Roster, places: Sequence[Place], count: int) -> None:
        """The newest ones first, and those that Prunella has made before all others."""
        newest = sorted(
            places[1:], key=lambda p: (REPLICA_LABEL in p.row.labels, p.number), reverse=True
        )
        for place in newest[:count]:
            one = await roster.look(place.row.id, anew=True)
            roster.blame(one, Culprit.PRUNELLA)
            await stop(roster.api, one)
            await remove(roster.api, one.id, volumes=True)
            roster.forget(one.id)
