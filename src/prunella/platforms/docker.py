"""Platform ``docker``: a container that a Docker Engine runs, and replicas of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from prunella.core.model import ActionKind, InstanceId
from prunella.errors import PermanentError
from prunella.platforms._docker_api import EngineSpec, address_of
from prunella.platforms._docker_container import (
    ASIDE,
    COMING,
    ORIGIN_LABEL,
    REPLICA_LABEL,
    SERVICE_LABEL,
    Container,
)
from prunella.platforms._docker_crew import Place
from prunella.platforms._docker_feed import Key
from prunella.platforms._docker_roster import Roster, Row
from prunella.platforms._docker_set import ContainerSet
from prunella.platforms._docker_survey import reach, survey_containers
from prunella.plugins import PlatformContext, PlatformPlugin

_SHORTEST_ID = 4  # characters of an id that are worth a search


class DockerSpec(EngineSpec):
    """A container that is there already, and that Docker was told how to run."""

    container: str = Field(
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$",
        description="Its name, or its id. A name is better: a container that is made anew, as for "
        "a rollback, keeps its name.",
    )


class SameAs:
    """One container that a person has made, and those that Prunella has made like it."""

    def __init__(self, container: str, service: str) -> None:
        self._wanted = container
        self.labels: Mapping[str, str] = {SERVICE_LABEL: service, ORIGIN_LABEL: container}

    @property
    def keys(self) -> tuple[Key, ...]:
        halfway = (("name", f"{self._wanted}{suffix}") for suffix in (ASIDE, COMING))
        return (("name", self._wanted), self._origin, *halfway)

    @property
    def _origin(self) -> Key:
        return (f"label {ORIGIN_LABEL}", self._wanted)

    def places(self, roster: Roster) -> list[Place]:
        numbers = {self._first(roster).base_name: 1}
        for row in self._ours(roster):
            if (number := row.labels.get(REPLICA_LABEL, "")).isdigit():
                numbers[row.base_name] = int(number)
        places = [_place(roster, name, number) for name, number in numbers.items()]
        return sorted(places, key=lambda place: place.number)

    def unscalable(self, first: Container) -> str:
        return first.stands_alone

    def next_one(self, first: Container, number: int) -> tuple[str, Mapping[str, str]]:
        name = f"{first.plain_name.removesuffix(ASIDE)}-prunella-{number}"
        return name, {**self.labels, REPLICA_LABEL: str(number)}

    def _first(self, roster: Roster) -> Row:
        for name in (self._wanted, f"{self._wanted}{ASIDE}"):
            for row in roster.find("name", name):
                return row
        for row in self._ours(roster):  # made in its place, where it was known by its id
            if REPLICA_LABEL not in row.labels:
                return row
        rows = roster.beginning_with(self._wanted) if len(self._wanted) >= _SHORTEST_ID else ()
        if len(rows) > 1:
            raise PermanentError(f"{len(rows)} containers have an id like {self._wanted}")
        if not rows:
            raise PermanentError(f"there is no container {self._wanted}")
        return rows[0]

    def _ours(self, roster: Roster) -> list[Row]:
        service = self.labels[SERVICE_LABEL]
        rows = roster.find(*self._origin)
        return [
            row
            for row in rows
            if row.labels.get(SERVICE_LABEL) == service and not row.name.endswith(COMING)
        ]


def _place(roster: Roster, name: str, number: int) -> Place:
    """Who has that name now; in the middle of a replacement, the old one."""
    coming = roster.find("name", f"{name}{COMING}")
    rows = roster.find("name", name) or roster.find("name", f"{name}{ASIDE}")
    return Place(InstanceId(name), number, rows[0], bool(coming) or rows[0].name != name)


class DockerPlatform(ContainerSet):
    """One container, and its replicas."""

    kind: ClassVar[str] = "docker"

    def __init__(self, spec: DockerSpec, context: PlatformContext) -> None:
        crew = SameAs(spec.container, context.service)
        super().__init__(crew, address_of(spec), context)


PLUGIN = PlatformPlugin(
    "docker",
    DockerSpec,
    DockerPlatform,
    can=(ActionKind.RESTART, ActionKind.SCALE_UP, ActionKind.SCALE_DOWN, ActionKind.ROLLBACK),
    reach=reach,
    survey=survey_containers,
)
