"""``prunella check``: is this configuration right, and if not, where."""

from __future__ import annotations

import typer

from prunella.cli import _terminal
from prunella.cli._options import File, Json


def command(file: File, *, as_json: Json = False) -> None:
    """Check a configuration; name every fault with its line and column."""
    from prunella.config import ConfigFaults, load  # noqa: PLC0415 - slow

    try:
        config = load(file)
    except ConfigFaults as error:
        if as_json:
            faults = [
                {"path": f.path, "line": f.line, "column": f.column, "message": f.message}
                for f in error.faults
            ]
            _terminal.say_json({"valid": False, "faults": faults})
        else:
            _terminal.complain(*(str(fault) for fault in error.faults))
        raise typer.Exit(2) from None
    services = [
        {
            "id": service.id,
            "platform": service.platform,
            "probes": [probe.kind for probe in service.probes],
            "heal": service.policy.mode.value,
        }
        for service in config.services.values()
    ]
    if as_json:
        _terminal.say_json({"valid": True, "services": services})
        return
    count = len(services)
    _terminal.say(f"{file}: valid, {count} service{'' if count == 1 else 's'}")
    for service in services:
        probes = ", ".join(service["probes"]) or "no probe"
        _terminal.say(
            f"  {service['id']}: {service['platform']}; {probes}; heal: {service['heal']}"
        )
