"""What is done to the containers of one service: restarts, rollbacks, more and fewer of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from prunella.core.model import Action, InstanceState, Instant, ServiceId, Status
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.platforms._docker_api import MissingError
from prunella.platforms._docker_body import replica
from prunella.platforms._docker_container import (
    REPLACES_LABEL,
    REPLICA_LABEL,
    Container,
    Culprit,
)
from prunella.platforms._docker_crew import Crew, Place, judge_place
from prunella.platforms._docker_replace import (
    create,
    exchange,
    inspect,
    put_back,
    remove,
    start,
    stop,
)
from prunella.platforms._docker_roster import Roster
from prunella.ports import Clock

_DOCKERS_TURN_S = 1.0  # how long Docker may take to restart what it restarts by itself
_LOOK_AGAIN_S = 0.02


class Acts:
    """Carries out one action.

    Args:
        decided_on: what the decision rests on; somebody's wish that has come since wins over it.
    """

    def __init__(
        self,
        roster: Roster,
        crew: Crew,
        clock: Clock,
        service: ServiceId,
        decided_on: Status | None,
    ) -> None:
        self._roster = roster
        self._crew = crew
        self._clock = clock
        self._service = service
        self._decided_on = decided_on

    async def restart(self, place: Place, identity: str) -> None:
        api, one = self._roster.api, await self._look_at(place)
        if identity and one.is_running and one.identity != identity:
            return
        self._respect(place, one)
        if place.halfway:
            await self._put_back(place)
        if one.state.status == "restarting" and await self._left_to_docker(one):
            return
        self._roster.blame(one, Culprit.PRUNELLA)
        if one.state.status == "paused":
            await api.post(f"containers/{one.id}/unpause")
        # What has ended is started, not restarted: if it runs by then, nothing happens to it.
        alive = one.state.status in ("running", "restarting", "paused")
        try:
            await api.post(
                f"containers/{one.id}/{'restart' if alive else 'start'}", extra_s=one.stop_timeout_s
            )
        except (TransientError, PermanentError):
            now = await self._look_at(place)
            if now.is_running and now.identity != one.identity:
                return
            if now.is_running:
                self._roster.absolve(one)
            raise
        else:
            now = await self._look_at(place)
            if now.identity == one.identity:
                raise TransientError(f"Docker did not start {place.row.name}")

    async def _look_at(self, place: Place) -> Container:
        try:
            return await self._roster.look(place.row.id, anew=True)
        except MissingError as error:
            raise ConflictError(f"{place.row.name} has been removed meanwhile") from error

    async def _left_to_docker(self, one: Container) -> bool:
        """Whether Docker, which is about to restart it by itself, has done so in a moment."""
        clock = self._clock
        until = clock.now() + _DOCKERS_TURN_S
        while clock.now() < until:
            await clock.sleep_until(Instant(clock.now() + _LOOK_AGAIN_S))
            now = await self._roster.look(one.id, anew=True)
            if now.is_running and now.identity != one.identity:
                return True
        return False

    async def roll_back(self, place: Place, action: Action) -> None:
        assert action.revision is not None
        one = await self._look_at(place)
        unborn = one.never_ran and REPLACES_LABEL in one.labels
        if place.halfway or unborn:
            await self._put_back(place)
            places = self._crew.places(self._roster)
            place = next(one for one in places if one.instance == place.instance)
            one = await self._look_at(place)
        if one.image == action.revision:
            return
        if action.before and one.image != action.before:
            raise ConflictError(f"{place.row.name} runs yet another image by now")
        self._respect(place, one)
        self._roster.blame(one, Culprit.PRUNELLA)
        try:
            await exchange(
                self._roster.api, place.row.name, one, action.revision, labels=self._crew.labels
            )
        finally:
            await self._see(one.id, place.row.name)

    async def _put_back(self, place: Place) -> None:
        name = place.row.base_name
        await put_back(self._roster.api, name, start_it=False)
        old = await inspect(self._roster.api, name)
        if old is not None:
            old = await self._roster.look(old.id, anew=True)
            if not old.is_running:
                self._roster.blame(old, Culprit.PRUNELLA)  # in an earlier life, perhaps

    async def _see(self, *containers: str) -> None:
        """Know them by their new names, before their events have come."""
        for container in containers:
            one = await inspect(self._roster.api, container)
            if one is not None:
                await self._roster.look(one.id, anew=True)

    def _respect(self, place: Place, one: Container) -> None:
        """Somebody's wish that has come since the decision wins over it."""
        before = () if self._decided_on is None else self._decided_on.instances
        was = next((i.state for i in before if i.id == place.instance), InstanceState.STOPPED)
        now = judge_place(self._roster, place, one).state
        if now is InstanceState.STOPPED and was is not InstanceState.STOPPED:
            raise ConflictError(f"somebody has stopped {place.row.name} meanwhile")

    async def scale(self, action: Action) -> None:
        assert action.replicas is not None
        places = await self._present()
        if len(places) == action.replicas:
            return
        if action.before and action.before != str(len(places)):
            raise ConflictError(f"there are {len(places)} by now, and not {action.before}")
        if action.replicas > len(places):
            await self._add(places, action.replicas)
        else:
            await self._take_away(places, len(places) - max(1, action.replicas))

    async def _present(self) -> list[Place]:
        """The replicas there are now: that one of them has gone may still be on its way to us."""
        for place in self._crew.places(self._roster):
            with suppress(MissingError):
                await self._roster.look(place.row.id, anew=True)
        return self._crew.places(self._roster)

    async def _add(self, places: Sequence[Place], replicas: int) -> None:
        api = self._roster.api
        first = await self._roster.look(places[0].row.id, anew=True)
        if reason := self._crew.unscalable(first):
            raise PermanentError(f"{self._service} cannot be scaled: {reason}")
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
                self._roster.forget(one)
            raise
        await self._see(*made)

    async def _take_away(self, places: Sequence[Place], count: int) -> None:
        """The newest ones first, and those that Prunella has made before all others."""
        newest = sorted(
            places[1:], key=lambda p: (REPLICA_LABEL in p.row.labels, p.number), reverse=True
        )
        for place in newest[:count]:
            one = await self._look_at(place)
            self._roster.blame(one, Culprit.PRUNELLA)
            await stop(self._roster.api, one)
            await remove(self._roster.api, one.id, volumes=True)
            self._roster.forget(one.id)
