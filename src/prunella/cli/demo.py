"""``prunella demo``: something to see at once."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    *,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Leave the services up when all are well again; Ctrl-C ends it."
        ),
    ] = False,
) -> None:
    """Break small services and watch how they are restarted, scaled, rolled back and shielded."""
    from prunella.demo import demo as play  # noqa: PLC0415 - slow

    raise typer.Exit(play(keep=keep))
