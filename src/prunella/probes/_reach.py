"""One question to whichever address of a name answers. For probes that speak HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from prunella.core.model import Cause
from prunella.probes._exchange import Exchange
from prunella.probes._names import Names
from prunella.probes._wire import Tls, Trouble

E = TypeVar("E", bound=Exchange)


async def reach(
    begin: Callable[[], E], names: Names, request: bytes, tls: Tls | None, deadline: float
) -> E | Trouble:
    """Ask the addresses in turn until one of them answers or fails for good.

    Args:
        begin: makes an exchange for each address.
        names: the addresses; the one that answers is tried first the next time.
        request: what to send.
        tls: encrypt; None: do not.
        deadline: in the loop's time; everything ends by then.
    """
    loop = asyncio.get_running_loop()
    addresses = names.known()
    if not addresses:
        found = await names.look_up(deadline - loop.time())
        if isinstance(found, Trouble):
            return found
        addresses = found
    trouble = None
    left = len(addresses)
    for address in addresses if left == 1 else tuple(addresses):
        exchange = begin()
        connect_s = None if left == 1 else (deadline - loop.time()) / left
        left -= 1
        exchange.open(address, request, deadline, tls=tls, connect_s=connect_s)
        await settled(exchange)
        trouble = exchange.trouble
        if trouble is None:
            names.prefer(address)
            return exchange
        if exchange.answered or trouble.cause is Cause.ERROR or loop.time() >= deadline:
            break
    assert trouble is not None
    return trouble


async def settled(exchange: Exchange) -> None:
    """Wait for the verdict; who is cancelled meanwhile hangs up."""
    try:
        await exchange.settled
    except asyncio.CancelledError:
        exchange.close()
        raise
