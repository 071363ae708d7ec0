"""The containers of one service, as a platform: what ``docker`` and ``compose`` have in common.

They differ in which containers belong to a service and in how one more is called; that is in
their ``Crew``. Here is observing from the shared roster, and the facts; ``Acts`` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlsplit

from prunella.core.model import Action, ActionKind, Epoch, Scope, Status
from prunella.errors import PermanentError, PrunellaError, TransientError
from prunella.platforms._docker_acts import Acts
from prunella.platforms._docker_api import Address, MissingError
from prunella.platforms._docker_container import ASIDE, Container, instance_of
from prunella.platforms._docker_crew import Crew, Found, Place, judge_place
from prunella.platforms._docker_feed import feed_at, leave
from prunella.platforms._docker_replace import remove
from prunella.platforms._docker_roster import Roster
from prunella.platforms._facts import Teller
from prunella.plugins import PlatformContext
from prunella.ports import Remark

_ALL: Mapping[ActionKind, Scope] = {
    ActionKind.RESTART: Scope.INSTANCE,
    ActionKind.SCALE_UP: Scope.SERVICE,
    ActionKind.SCALE_DOWN: Scope.SERVICE,
    ActionKind.ROLLBACK: Scope.INSTANCE,
}


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
        context = self._context
        acts = Acts(roster, self._crew, context.clock, context.service, self._answered)
        self._acting = True
        try:
            match action.kind:
                case ActionKind.RESTART:
                    for place in self._chosen(roster, action):
                        await acts.restart(place, action.identity)
                case ActionKind.ROLLBACK:
                    for place in self._chosen(roster, action):
                        await acts.roll_back(place, action)
                case _:
                    await acts.scale(action)
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

    async def _look(self) -> list[Found]:
        roster = await self._ready()
        found: list[Found] = []
        for place in self._crew.places(roster):
            roster.listen([("id", place.row.id)], self._on_news)  # whatever it is called later
            try:
                one = await roster.look(place.row.id)
            except MissingError as error:
                raise TransientError(f"{place.row.name} is being removed") from error
            found.append(Found(place, one, judge_place(roster, place, one)))
        self._first = found[0].container
        return found

    def _status(self, found: Sequence[Found]) -> Status:
        instances = tuple(
            instance_of(place.instance, one, ending, self._machine) for place, one, ending in found
        )
        newest = max(found, key=lambda each: each.container.created)
        return Status(instances, desired=len(instances), revision=newest.container.image)

    def _chosen(self, roster: Roster, action: Action) -> list[Place]:
        places = self._crew.places(roster)
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
        found: list[Found] = []
        for place in places:
            one = roster.known(place.row.id)
            if one is None:
                return None
            found.append(Found(place, one, judge_place(roster, place, one)))
        return self._status(found)
