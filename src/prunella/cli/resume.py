"""``prunella resume``: lift holds, release from quarantine."""

from __future__ import annotations

from urllib.parse import urlencode

import typer

from prunella.cli import _terminal
from prunella.cli._actor import actor
from prunella.cli._client import connect, hold_path
from prunella.cli._options import Api, Json, ServiceOrAll


def command(
    ctx: typer.Context,
    service: ServiceOrAll = None,
    *,
    as_json: Json = False,
    api: Api = None,
) -> None:
    """Lift a pause or a quarantine.

    Without SERVICE only the pause of the whole instance ends; services that were paused or
    quarantined one by one stay so.
    """
    query = urlencode({"owner": actor()})
    lifted = connect(ctx, api).send("DELETE", f"{hold_path(service)}?{query}")
    if as_json:
        _terminal.say_json(lifted)
        return
    what = service or "the whole instance"
    count = lifted["lifted"]
    words = "holds and quarantines" if count != 1 else "hold or quarantine"
    _terminal.say(f"{what}: {count} {words} lifted" if count else f"{what} was not paused")
