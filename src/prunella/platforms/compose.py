"""Platform ``compose``: the containers that Docker Compose has made for a service of a project."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import ClassVar

from pydantic import Field

from prunella.core.model import ActionKind, InstanceId
from prunella.errors import PermanentError
from prunella.platforms._docker_api import EngineSpec, address_of
from prunella.platforms._docker_container import (
    ASIDE,
    COMING,
    REPLICA_LABEL,
    SERVICE_LABEL,
    Container,
)
from prunella.platforms._docker_crew import Place
from prunella.platforms._docker_feed import Key
from prunella.platforms._docker_roster import Roster, Row
from prunella.platforms._docker_set import ContainerSet
from prunella.platforms._docker_survey import (
    PROJECT_LABEL,
    default_api,
    draft_note,
    published_probes,
    reach,
    running_containers,
)
from prunella.plugins import Draft, PlatformContext, PlatformPlugin
from prunella.ports import Clock

_SERVICE = "com.docker.compose.service"
_NUMBER = "com.docker.compose.container-number"
_ONE_OFF = "com.docker.compose.oneoff"
_PASSING = re.compile(
    r"[0-9a-f]{12}_"
)  # begins the name of one that Compose is to remove or rename
_MORE = 2  # replicas that a draft allows beyond those that run


class ComposeSpec(EngineSpec):
    """A service of a Compose project that is up. Its file is not read: its containers say all."""

    project: str = Field(min_length=1, description="The project, as `docker compose ls` calls it.")
    service: str = Field(min_length=1, description="The service, as the project's file calls it.")


class _Service:
    """The containers of one service, known by the labels that Compose gives them."""

    def __init__(self, project: str, service: str, watched_as: str) -> None:
        self._project = project
        self._service = service
        self.labels: Mapping[str, str] = {SERVICE_LABEL: watched_as}

    @property
    def keys(self) -> tuple[Key, ...]:
        return ((f"label {PROJECT_LABEL}", self._project),)

    def places(self, roster: Roster) -> list[Place]:
        by_number: dict[int, list[Row]] = {}
        for row in roster.find(*self.keys[0]):
            number = row.labels.get(_NUMBER, "")
            if self._is_ours(row) and number.isdigit():
                by_number.setdefault(int(number), []).append(row)
        places = [_place(roster, number, rows) for number, rows in sorted(by_number.items())]
        if not places:
            raise PermanentError(
                f"the project {self._project} has no container of a service {self._service}"
            )
        return places

    def unscalable(self, first: Container) -> str:
        if not re.search(r"[-_]\d+$", _base_name(first)):
            return "its container_name is fixed, so that there can be one only"
        return first.stands_alone

    def next_one(self, first: Container, number: int) -> tuple[str, Mapping[str, str]]:
        labels = {**self.labels, REPLICA_LABEL: str(number), _NUMBER: str(number)}
        return re.sub(r"\d+$", str(number), _base_name(first)), labels

    def _is_ours(self, row: Row) -> bool:
        return (
            row.labels.get(_SERVICE) == self._service
            and row.labels.get(_ONE_OFF, "False") == "False"
            and not row.name.endswith(COMING)
        )


def _base_name(one: Container) -> str:
    return one.plain_name.removesuffix(ASIDE)


def _place(roster: Roster, number: int, rows: Sequence[Row]) -> Place:
    """The one in that place; while somebody replaces it there are two, one of a passing name."""
    row = min(
        rows, key=lambda row: (row.name.endswith(ASIDE), bool(_PASSING.match(row.name)), row.name)
    )
    coming = roster.find("name", f"{row.base_name}{COMING}")
    return Place(InstanceId(str(number)), number, row, bool(coming) or row.name != row.base_name)


class ComposePlatform(ContainerSet):
    """All containers of the service, each with its number."""

    kind: ClassVar[str] = "compose"

    def __init__(self, spec: ComposeSpec, context: PlatformContext) -> None:
        crew = _Service(spec.project, spec.service, context.service)
        super().__init__(crew, address_of(spec), context)


async def _survey(_clock: Clock, /) -> Sequence[Draft]:
    async with default_api() as api:
        found = await running_containers(api)

    def names(one: Container) -> tuple[str, str]:
        return one.labels.get(PROJECT_LABEL, ""), one.labels.get(_SERVICE, "")

    drafts: list[Draft] = []
    for (project, service), containers in groupby(sorted(found, key=names), key=names):
        if project and service:
            first, *others = containers
            count = 1 + len(others)
            drafts.append(
                Draft(
                    f"{project}-{service}",
                    {"project": project, "service": service},
                    published_probes(first),
                    {} if first.stands_alone else {"min": count, "max": count + _MORE},
                    draft_note(first),
                )
            )
    return tuple(drafts)


PLUGIN = PlatformPlugin(
    "compose",
    ComposeSpec,
    ComposePlatform,
    can=(ActionKind.RESTART, ActionKind.SCALE_UP, ActionKind.SCALE_DOWN, ActionKind.ROLLBACK),
    reach=reach,
    survey=_survey,
)
