"""Whether Docker can be reached from here, and what runs there that could be looked after."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from prunella.errors import PrunellaError
from prunella.platforms._docker_api import DockerApi, EngineSpec, MissingError, address_of
from prunella.platforms._docker_container import ASIDE, ORIGIN_LABEL, Container, read_container
from prunella.plugins import Draft
from prunella.ports import Clock

PROJECT_LABEL = "com.docker.compose.project"
SWARM_LABEL = "com.docker.swarm.service.id"

_PATIENCE_S = 3.0
_USUALLY_HTTP = frozenset({80, 3000, 5000, 8000, 8008, 8080, 8081, 8888, 9000, 9090})


@asynccontextmanager
async def default_api() -> AsyncGenerator[DockerApi]:
    """The Engine that is meant when a config names none."""
    api = DockerApi(address_of(EngineSpec.model_validate({"timeout": _PATIENCE_S})))
    try:
        yield api
    finally:
        await api.close()


async def reach(_clock: Clock, /) -> str:
    """Why the default Engine cannot be reached; empty when it can."""
    async with default_api() as api:
        try:
            await api.get("_ping")
        except PrunellaError as error:
            return str(error)
    return ""


async def running_containers(api: DockerApi) -> list[Container]:
    """All that run now, by name.

    Raises: as `DockerApi.call`.
    """
    found: list[Container] = []
    for row in await api.get("containers/json"):
        try:
            found.append(read_container(await api.get(f"containers/{row['Id']}/json")))
        except MissingError:
            continue  # it has ended meanwhile
    return sorted(found, key=lambda one: one.plain_name)


async def survey_containers(_clock: Clock, /) -> Sequence[Draft]:
    """The containers that no Compose and no Swarm looks after."""
    async with default_api() as api:
        found = await running_containers(api)
    ours = {PROJECT_LABEL, SWARM_LABEL, ORIGIN_LABEL}
    return tuple(
        Draft(
            one.plain_name,
            {"container": one.plain_name},
            published_probes(one),
            note=draft_note(one),
        )
        for one in found
        if not ours & one.labels.keys() and not one.plain_name.endswith(ASIDE)
    )


def published_probes(one: Container) -> tuple[Mapping[str, Any], ...]:
    """What its published ports are likely to answer to."""
    probes: list[Mapping[str, Any]] = []
    for inside, published in sorted(one.network_settings.ports.items()):
        number, _, protocol = inside.partition("/")
        outside = next((each.host_port for each in published or () if each.host_port), "")
        if protocol == "tcp" and outside.isdigit():
            probes.append(likely_probe(int(number), int(outside)))
    return tuple(probes)


def likely_probe(inside: int, outside: int) -> Mapping[str, Any]:
    if inside in _USUALLY_HTTP:
        return {"kind": "http", "url": f"http://127.0.0.1:{outside}/"}
    return {"kind": "tcp", "port": outside}


def draft_note(one: Container) -> str:
    notes: list[str] = []
    if one.state.health is not None:
        notes.append("Its HEALTHCHECK is evidence as well.")
    if one.restarts_itself:
        policy = one.host_config.restart_policy.name
        notes.append(f"Docker restarts it by itself (restart: {policy}), which counts.")
    return " ".join(notes)
