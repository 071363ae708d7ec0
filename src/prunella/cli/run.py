"""``prunella run``: the daemon."""

from __future__ import annotations

from typing import Annotated

import typer

from prunella.cli import _terminal
from prunella.cli._options import File


def command(
    file: File,
    *,
    observe: Annotated[
        bool, typer.Option("--observe", help="Decide and record, but never act.")
    ] = False,
) -> None:
    """Watch and heal the services of a configuration."""
    from prunella import app  # noqa: PLC0415 - slow
    from prunella.config import ConfigFaults  # noqa: PLC0415

    try:
        code = app.run(file, observe=observe)
    except ConfigFaults as error:
        _terminal.complain(*(str(fault) for fault in error.faults))
        raise typer.Exit(2) from None
    raise typer.Exit(code)
