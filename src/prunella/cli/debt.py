"""``prunella debt``: what is still to be taken back. Works without a daemon too, from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from prunella.cli import _terminal
from prunella.cli._client import Client
from prunella.cli._options import Api, Json, OtherConfig, OtherStore
from prunella.cli._source import answer

if TYPE_CHECKING:
    from prunella.ports import Store

_COLUMNS = ("SERVICE", "REMEDY", "DUE", "EXTENDED", "ACTION")

Debts = list[dict[str, Any]]


def command(
    ctx: typer.Context,
    *,
    store: OtherStore = None,
    config: OtherConfig = None,
    as_json: Json = False,
    api: Api = None,
) -> None:
    """Show remedies that are still to be taken back, what is due first above."""
    debts = answer(ctx, api, (store, config), _asked, _read)
    if as_json:
        _terminal.say_json(debts)
    elif debts:
        _terminal.say_table(_COLUMNS, map(_row, debts))
    else:
        _terminal.say("nothing is to be taken back")


def _asked(client: Client) -> Debts:
    debts: Debts = client.get("/debts")["items"]
    return debts


async def _read(store: Store) -> Debts:
    from prunella.runtime.clock import SystemClock  # noqa: PLC0415 - slow
    from prunella.runtime.views import to_debts  # noqa: PLC0415

    now = SystemClock().stamp()
    return [debt.model_dump(mode="json") for debt in to_debts(await store.debts(now), now)]


def _row(debt: dict[str, Any]) -> tuple[str, ...]:
    return (
        debt["serviceId"],
        _remedy(debt),
        _terminal.moment(debt["due"]),
        str(debt["extendedCount"]),
        debt["actionId"],
    )


def _remedy(debt: dict[str, Any]) -> str:
    of = f" of {debt['instance']}" if debt.get("instance") else ""
    unit = " %" if debt["kind"] == "circuit-break" else ""
    return f"{debt['kind']}{of} {debt['before']} → {debt['granted']}{unit}"
