"""A store in one SQLite file, ``sqlite:///path``: durable, for one daemon on one machine.

This module is read whenever plugins are looked for; the library behind it only when a store is
opened, so that commands which need none start fast.
"""

from __future__ import annotations

from prunella.plugins import StorePlugin
from prunella.ports import Store


def open_store(url: str, readonly: bool, /) -> Store:  # noqa: FBT001 - the plugin's shape
    """Open the file that `url` names, creating or migrating it unless `readonly`.

    Raises:
        StoreError: it must not be used; it has been left as it was.
    """
    from prunella.stores._sqlite import opening  # noqa: PLC0415 - imports a database library

    return opening.open_store(url, readonly=readonly)


PLUGIN = StorePlugin(kind="sqlite", open=open_store)
