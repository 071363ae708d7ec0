"""``prunella schema``: for editors that complete and check as one writes."""

from __future__ import annotations

from typing import Annotated

import typer

from prunella.cli import _terminal


def command(
    *,
    crds: Annotated[
        bool,
        typer.Option("--crds", help="Print the Kubernetes CustomResourceDefinitions instead."),
    ] = False,
) -> None:
    """Print the JSON Schema of the configuration."""
    if crds:
        from prunella.operator.objects import definitions  # noqa: PLC0415 - slow

        typer.echo(definitions(), nl=False)
        return
    from prunella.config import json_schema  # noqa: PLC0415 - slow

    _terminal.say_json(json_schema())
