"""Where an answer comes from: the daemon or, without one, the store that it writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from prunella.cli import _terminal
from prunella.cli._client import Client, NoDaemonError, connect
from prunella.errors import StoreError

if TYPE_CHECKING:
    from prunella.ports import Store

T = TypeVar("T")


def answer(
    ctx: typer.Context,
    api: str | None,
    named: tuple[str | None, Path | None],
    ask: Callable[[Client], T],
    read: Callable[[Store], Awaitable[T]],
) -> T:
    """What the daemon says, or what stands in the store when none answers.

    Args:
        named: a store's URL, or a configuration that names one: then no daemon is asked.
        ask: puts the question to a daemon.
        read: finds the same in a store, which is open for reading only.
    """
    store, config = named
    if store is not None or config is not None:
        return _read(store or _store_of(config), read)
    try:
        return ask(connect(ctx, api))
    except NoDaemonError as error:
        here = Path("prunella.yaml")
        try:
            return _read(_store_of(here if here.exists() else None), read)
        except StoreError as unread:
            raise NoDaemonError(f"{error}\n{unread}") from unread


def _store_of(config: Path | None) -> str:
    """The URL of the store that a configuration names, or of the usual one."""
    from prunella.config import ConfigFaults, load, state_folder  # noqa: PLC0415 - slow

    if config is None:
        return f"sqlite:///{state_folder() / 'prunella.db'}"
    try:
        return load(config).store
    except ConfigFaults as error:
        _terminal.complain(*(str(fault) for fault in error.faults))
        raise typer.Exit(2) from None


def _read(url: str, read: Callable[[Store], Awaitable[T]]) -> T:
    import asyncio  # noqa: PLC0415 - slow

    from prunella.plugins import open_store  # noqa: PLC0415

    async def within() -> T:
        store = open_store(url, readonly=True)
        try:
            return await read(store)
        finally:
            await store.close()

    return asyncio.run(within())
