"""``prunella pause``: hold healing, with an owner and a reason."""

from __future__ import annotations

from typing import Annotated

import typer

from prunella.cli import _terminal
from prunella.cli._actor import actor
from prunella.cli._client import connect, hold_path
from prunella.cli._options import Api, Json, ServiceOrAll
from prunella.cli.why import hold_line


def command(
    ctx: typer.Context,
    service: ServiceOrAll = None,
    *,
    lasting: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", help="Such as 30m or 1h; until resumed if not."),
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="For those who wonder.")] = "",
    as_json: Json = False,
    api: Api = None,
) -> None:
    """Pause healing of a service, or of everything. Watching goes on."""
    body: dict[str, str | int] = {"owner": actor(), "reason": reason}
    if lasting is not None:
        body["for"] = int(lasting) if lasting.isdecimal() else lasting
    hold = connect(ctx, api).send("PUT", hold_path(service), body)
    if as_json:
        _terminal.say_json(hold)
    else:
        _terminal.say(hold_line(hold))
