"""``prunella history``: what was done. Works without a daemon too, from the store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from prunella.cli import _terminal
from prunella.cli._client import Client, NoDaemonError, connect
from prunella.cli._options import Api, Json, OnlyService
from prunella.errors import StoreError

_PAGE_COUNT = 1000
_COLUMNS = ("ID", "TIME", "SERVICE", "ACTION", "OUTCOME", "RECOVERY", "REASON")

Actions = list[dict[str, Any]]


def command(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 10,
    service: OnlyService = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Read this store instead of asking a daemon.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="Read the store that this file names."),
    ] = None,
    as_json: Json = False,
    api: Api = None,
) -> None:
    """Show healing actions, newest first."""
    if store is not None or config is not None:
        actions = _stored(store or _store_of(config), limit, service)
    else:
        try:
            actions = _asked(connect(ctx, api), limit, service)
        except NoDaemonError as error:
            actions = _without_daemon(error, limit, service)
    if as_json:
        _terminal.say_json(actions)
    elif actions:
        _terminal.say_table(_COLUMNS, map(_row, actions))
    else:
        _terminal.say("nothing was healed yet")


def _asked(client: Client, limit: int, service: str | None) -> Actions:
    actions: Actions = []
    before: int | None = None
    while len(actions) < limit:
        count = min(_PAGE_COUNT, limit - len(actions))
        page = client.get("/healing-actions", limit=count, service=service, before=before)
        actions += page["items"]
        before = page["next"]
        if before is None:
            break
    return actions


def _without_daemon(error: NoDaemonError, limit: int, service: str | None) -> Actions:
    here = Path("prunella.yaml")
    try:
        return _stored(_store_of(here if here.exists() else None), limit, service)
    except StoreError as unread:
        raise NoDaemonError(f"{error}\n{unread}") from unread


def _store_of(config: Path | None) -> str:
    """The URL of the store that a configuration names, or of the usual one."""
    from prunella.config import ConfigFaults, load, state_folder  # noqa: PLC0415 - slow

    if config is None:
        return f"sqlite:///{state_folder() / 'prunella.db'}"
    try:
        return load(config).store
    except ConfigFaults as error:
        _terminal.complain(*(str(fault) for fault in error.faults))
        raise typer.Exit(2) from None


def _stored(url: str, limit: int, service: str | None) -> Actions:
    """From the store itself, read-only: beside a daemon that holds it, or without one."""
    import asyncio  # noqa: PLC0415 - slow

    from prunella.plugins import stores  # noqa: PLC0415

    scheme = url.partition("://")[0]
    if scheme not in stores():
        known = ", ".join(f"{kind}://" for kind in sorted(stores()))
        raise StoreError(f"no store of the kind {scheme!r} is installed, expected one of: {known}")
    return asyncio.run(_read(url, scheme, limit, service))


async def _read(url: str, scheme: str, limit: int, service: str | None) -> Actions:
    from prunella.core.model import ServiceId  # noqa: PLC0415 - slow
    from prunella.plugins import stores  # noqa: PLC0415
    from prunella.runtime.views import to_action  # noqa: PLC0415

    store = stores()[scheme].open(url, True)  # noqa: FBT003 - the plugin's shape
    actions: Actions = []
    before: int | None = None
    wanted = None if service is None else ServiceId(service)
    try:
        while len(actions) < limit:
            count = min(_PAGE_COUNT, limit - len(actions))
            page = await store.history(count, service=wanted, before=before)
            actions += [to_action(record).model_dump(mode="json") for record in page.items]
            before = page.next
            if before is None:
                break
    finally:
        await store.close()
    return actions


def _row(action: dict[str, Any]) -> tuple[str, ...]:
    return (
        action["id"],
        _terminal.moment(action["timestamp"]),
        action["serviceId"],
        _terminal.deed(action),
        _terminal.outcome(action),
        _terminal.milliseconds(action["recoveryTime"]),
        action["reason"],
    )
