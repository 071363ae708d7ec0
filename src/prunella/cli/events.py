"""``prunella events``: what happens, as it happens."""

from __future__ import annotations

import typer

from prunella.cli import _terminal
from prunella.cli._client import NoDaemonError, connect
from prunella.cli._options import Api, Json, OnlyService


def command(
    ctx: typer.Context, *, service: OnlyService = None, as_json: Json = False, api: Api = None
) -> None:
    """Follow what happens, one line each, until interrupted."""
    for event in connect(ctx, api).events(service):
        if as_json:
            _terminal.say_json(event, indent=None)
        elif "topic" not in event:
            _terminal.complain(f"{event.get('count', '?')} events were lost: reading was too slow")
        else:
            data = event["data"].items()
            words = [f"{key}={value}" for key, value in data if value not in (None, "")]
            start = [
                _terminal.moment(event["timestamp"]),
                event["topic"],
                event["serviceId"] or "-",
            ]
            _terminal.say("  ".join([*start, *words]), flush=True)
    raise NoDaemonError("the daemon has ended")
