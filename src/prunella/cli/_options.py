"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunella.cli import _complete

# The global option once more, for those who write it after the command.
Api = Annotated[
    str | None,
    typer.Option("--api", metavar="URL", help="Where the daemon's API listens.", hidden=True),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Service = Annotated[
    str,
    typer.Argument(metavar="SERVICE", help="The service's id.", autocompletion=_complete.services),
]
ServiceOrAll = Annotated[
    str | None,
    typer.Argument(
        metavar="[SERVICE]",
        help="The service's id; without it, the whole instance.",
        autocompletion=_complete.services,
    ),
]
OnlyService = Annotated[
    str | None,
    typer.Option(
        "--service",
        metavar="ID",
        help="Of this service only.",
        autocompletion=_complete.services,
    ),
]
OtherStore = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="Read this store instead of asking a daemon."),
]
OtherConfig = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Read the store that this file names."),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The configuration, YAML.")]
