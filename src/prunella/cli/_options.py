"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_API = "http://127.0.0.1:7110"

# The global option once more, for those who write it after the command.
Api = Annotated[
    str | None,
    typer.Option("--api", metavar="URL", help="Where the daemon's API listens.", hidden=True),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Service = Annotated[str, typer.Argument(metavar="SERVICE", help="The service's id.")]
ServiceOrAll = Annotated[
    str | None,
    typer.Argument(metavar="[SERVICE]", help="The service's id; without it, the whole instance."),
]
OnlyService = Annotated[
    str | None, typer.Option("--service", metavar="ID", help="Of this service only.")
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
