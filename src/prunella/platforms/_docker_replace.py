"""A container's place is taken by another one, and the old one is kept as the way back.

Docker cannot give a container another image, so a new one is made under a name of its own; then
the old one is stopped and renamed, the new one gets its name and is started. Each name is taken
or given in one step, so whoever comes after a crash reads from the names how far it went. A new
one that has never been started is removed and the old one put back, whatever the plan was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.platforms._docker_api import DockerApi, MissingError
from prunella.platforms._docker_body import Body, Json, successor
from prunella.platforms._docker_container import (
    ASIDE,
    COMING,
    REPLACES_LABEL,
    Container,
    read_container,
)


async def exchange(
    api: DockerApi, name: str, old: Container, image: str, labels: Mapping[str, str]
) -> None:
    """Have a container of `image` run in the place of `old`, which is stopped and kept aside.

    Raises:
        PermanentError: there is no such image; nothing was changed.
        ConflictError: `old` is not there any more.
        TransientError: it could not be done, and the old one is back in its place; it runs if it
            ran before.
    """
    images = f"images/{image}/json"
    try:
        await api.get(images)
    except MissingError as error:
        raise PermanentError(f"the image {image[:19]} is not there any more") from error
    raw = await _raw(api, old.id)
    if raw is None:
        raise ConflictError(f"the container {name} has been removed meanwhile")
    old_image: Json = await _or_none(api, f"images/{old.image}/json") or {}
    for leftover in (f"{name}{COMING}", f"{name}{ASIDE}"):
        await remove(api, leftover)
    body = successor(raw, old_image, image, {**labels, REPLACES_LABEL: old.id})
    new = await create(api, f"{name}{COMING}", body)
    try:
        await stop(api, old)
        await _rename(api, old.id, f"{name}{ASIDE}")
        await _rename(api, new, name)
        await start(api, new)
    except PrunellaError as error:
        await put_back(api, name, start_it=old.is_running)
        words = "it is back in its place" + (" and runs" if old.is_running else "")
        raise type(error)(f"{name} could not be replaced, {words}: {error}") from error


async def put_back(api: DockerApi, name: str, *, start_it: bool) -> None:
    """Undo a replacement that has not come to its end; nothing is done where there is none."""
    await remove(api, f"{name}{COMING}")
    aside = await inspect(api, f"{name}{ASIDE}")
    now = await inspect(api, name)
    if aside is not None and now is not None and _is_unborn(now, aside):
        await remove(api, now.id)
        now = None
    if aside is not None and now is None:
        await _rename(api, aside.id, name)
        now = aside
    if start_it and now is not None and not now.is_running:
        await start(api, now.id)


def _is_unborn(now: Container, aside: Container) -> bool:
    # A start that failed leaves no run either, whatever the Engine calls the state.
    return now.labels.get(REPLACES_LABEL) == aside.id and not now.is_running and now.never_ran


async def create(api: DockerApi, name: str, body: Body) -> str:
    """The id of a new container, not started; none is left behind when that fails.

    Raises:
        ConflictError: the name is taken.
        TransientError, PermanentError: as the Engine says.
    """
    try:
        made = await api.post("containers/create", body.create, name=name)
        for network, place in body.networks.items():
            joins = {"Container": made["Id"], "EndpointConfig": place}
            await api.post(f"networks/{network}/connect", joins)
        return str(made["Id"])
    except ConflictError:
        raise
    except (TransientError, PermanentError):
        # It may be there all the same, and whose it is its label says.
        left = await inspect(api, name)
        if left is not None and left.never_ran:
            await remove(api, left.id)
        raise


async def start(api: DockerApi, container: str) -> None:
    """Have it run; that it does already is as well.

    Raises: as `DockerApi.call`, and it does not run.
    """
    try:
        await api.post(f"containers/{container}/start")
    except (TransientError, PermanentError):
        now = await inspect(api, container)
        if now is None or not now.is_running:
            raise


async def stop(api: DockerApi, one: Container) -> None:
    """Have it end, in the time that it is given for that.

    Raises: as `DockerApi.call`, and it runs.
    """
    try:
        await api.post(f"containers/{one.id}/stop", extra_s=one.stop_timeout_s)
    except (TransientError, PermanentError):
        now = await inspect(api, one.id)
        if now is not None and now.is_running:
            raise


async def remove(api: DockerApi, container: str, *, volumes: bool = False) -> None:
    """Have none of that name or id, running or not. `volumes`: with those that have no name."""
    try:
        await api.call("DELETE", f"containers/{container}", {"force": True, "v": volumes})
    except MissingError:
        return
    except (TransientError, PermanentError):
        if await inspect(api, container) is not None:
            raise


async def inspect(api: DockerApi, container: str) -> Container | None:
    """The container of that name or id, if there is one."""
    raw = await _raw(api, container)
    return None if raw is None else read_container(raw)


async def _rename(api: DockerApi, container: str, name: str) -> None:
    try:
        await api.post(f"containers/{container}/rename", name=name)
    except (TransientError, PermanentError):
        now = await inspect(api, container)
        if now is None or now.plain_name != name:
            raise


async def _raw(api: DockerApi, container: str) -> Any:
    return await _or_none(api, f"containers/{container}/json")


async def _or_none(api: DockerApi, path: str) -> Any:
    try:
        return await api.get(path)
    except MissingError:
        return None
