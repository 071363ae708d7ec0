"""``prunella check``: is this configuration right, and if not, where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunella.cli import _terminal
from prunella.cli._options import File, Json

if TYPE_CHECKING:
    from prunella.config import Config, Fault


def command(
    file: File,
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no platform, gateway or source of releases.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a configuration; name every fault with its line and column.

    Platforms, gateways and sources of releases are asked whether they can do their work. Ends with
    0, also after warnings, or with 2.
    """
    from prunella.config import ConfigFaults, load  # noqa: PLC0415 - slow

    services: list[dict[str, Any]] = []
    warnings: Sequence[Fault] = ()
    try:
        config = load(file)
    except ConfigFaults as error:
        faults: Sequence[Fault] = error.faults
    else:
        services = _services(config)
        faults, warnings = ((), ()) if offline else _examined(config, file)
    if as_json:
        told = {
            "valid": not faults,
            "faults": [asdict(fault) for fault in faults],
            "warnings": [asdict(warning) for warning in warnings],
            "services": services,
        }
        _terminal.say_json(told)
    else:
        _terminal.complain(*map(str, faults))
        _terminal.complain(*(str(replace(w, message=f"warning: {w.message}")) for w in warnings))
    if faults:
        raise typer.Exit(2)
    if not as_json:
        _terminal.say(f"{file}: valid, {len(services)} service{'s' * (len(services) != 1)}")
        for service in services:
            probes = ", ".join(service["probes"]) or "no probe"
            _terminal.say(
                f"  {service['id']}: {service['platform']}; {probes}; heal: {service['heal']}"
            )


def _services(config: Config) -> list[dict[str, Any]]:
    return [
        {
            "id": service.id,
            "platform": service.platform,
            "probes": [probe.kind for probe in service.probes],
            "heal": service.policy.mode.value,
        }
        for service in config.services.values()
    ]


def _examined(config: Config, file: Path) -> tuple[list[Fault], list[Fault]]:
    """Faults and warnings that no file shows, in the order of the file."""
    import asyncio  # noqa: PLC0415 - slow

    from prunella.config import Fault  # noqa: PLC0415
    from prunella.runtime.examination import examine_all, examine_gateways  # noqa: PLC0415

    _terminal.keep_log_out()
    with _terminal.counting("examining services", len(config.services)) as examined:
        found = asyncio.run(examine_all(config.services.values(), config.state_dir, examined))
    faults: list[Fault] = []
    warnings: list[Fault] = []
    for name, remarks in asyncio.run(examine_gateways(config)).items():
        place = config.gateway_places[name]
        for remark in remarks:
            told = Fault(str(file), place.line, place.column, remark.message)
            (faults if remark.fault else warnings).append(told)
    for service, places in config.places.items():
        for remark, of_release in found[service]:
            place = places.release if of_release else places.platform
            told = Fault(str(file), place.line, place.column, remark.message)
            (faults if remark.fault else warnings).append(told)
    return faults, warnings
