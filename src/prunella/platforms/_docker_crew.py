"""Who belongs to a service on Docker, and in which state each of them is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from prunella.core.model import InstanceId, InstanceState
from prunella.platforms._docker_container import Container, Ending
from prunella.platforms._docker_feed import Key
from prunella.platforms._docker_roster import Roster, Row


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


class Found(NamedTuple):
    """A replica as it was found."""

    place: Place
    container: Container
    ending: Ending


def judge_place(roster: Roster, place: Place, one: Container) -> Ending:
    """As the roster knows it; but what we have stopped in order to replace it is no wish."""
    ending = roster.judge(one)
    if place.halfway and ending.state is InstanceState.STOPPED:
        return Ending(InstanceState.EXITED, "it was to be replaced, which was interrupted")
    return ending
