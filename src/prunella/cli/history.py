"""``prunella history``: what was done. Works without a daemon too, from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunella.cli import _terminal
from prunella.cli._client import Client
from prunella.cli._options import Api, Json, OnlyService, OtherConfig, OtherStore
from prunella.cli._source import answer

if TYPE_CHECKING:
    from prunella.ports import Store

_PAGE_COUNT = 1000
_COLUMNS = ("ID", "TIME", "SERVICE", "ACTION", "OUTCOME", "RECOVERY", "REASON")

Actions = list[dict[str, Any]]


def command(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 10,
    service: OnlyService = None,
    store: OtherStore = None,
    config: OtherConfig = None,
    as_json: Json = False,
    api: Api = None,
) -> None:
    """Show healing actions, newest first."""
    actions = answer(
        ctx,
        api,
        (store, config),
        lambda client: _asked(client, limit, service),
        lambda store: _read(store, limit, service),
    )
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


async def _read(store: Store, limit: int, service: str | None) -> Actions:
    from prunella.core.model import ServiceId  # noqa: PLC0415 - slow
    from prunella.runtime.views import to_action  # noqa: PLC0415

    actions: Actions = []
    before: int | None = None
    wanted = None if service is None else ServiceId(service)
    while len(actions) < limit:
        count = min(_PAGE_COUNT, limit - len(actions))
        page = await store.history(count, service=wanted, before=before)
        actions += [to_action(record).model_dump(mode="json") for record in page.items]
        before = page.next
        if before is None:
            break
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
