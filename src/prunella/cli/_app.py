"""The command with all its subcommands: the modules of this package without an underscore."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated

import typer

import prunella.cli
from prunella.cli._complete import DEFAULT_API


def build() -> typer.Typer:
    app = typer.Typer(
        name="prunella",
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help, which needs no library to draw it
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_prunella)
    for module in iter_modules(prunella.cli.__path__):
        if not module.name.startswith("_"):
            command = import_module(f"prunella.cli.{module.name}").command
            app.command(module.name)(command)
    return app


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - the shape of an option's callback
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow

        typer.echo(f"prunella {version('prunella')}")
        raise typer.Exit


def _prunella(
    ctx: typer.Context,
    *,
    api: Annotated[
        str,
        typer.Option(envvar="PRUNELLA_API", metavar="URL", help="Where the daemon's API listens."),
    ] = DEFAULT_API,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say it and exit."),
    ] = False,
) -> None:
    """Watches services, heals them, proves it, remembers it."""
    ctx.obj = api
