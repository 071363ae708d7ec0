"""From the API's thread to the healing loop and back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request

from prunella.api.port import Orchestrator
from prunella.errors import TransientError

T = TypeVar("T")

ANSWER_S = 10.0  # a healing loop that needs longer is stalled


async def _orchestrator(request: Request) -> Orchestrator:
    return cast("Orchestrator", request.app.state.orchestrator)


Healing = Annotated[Orchestrator, Depends(_orchestrator)]


async def on_healing_loop(
    healing: Orchestrator, work: Coroutine[Any, Any, T], *, within_s: float | None = ANSWER_S
) -> T:
    """Run `work` where healing runs, and wait for it here.

    Raises:
        TransientError: the healing loop has ended, or did not answer in time.
    """
    loop = healing.loop
    if loop.is_closed():
        work.close()
        raise TransientError("healing has ended")
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        async with asyncio.timeout(within_s):
            return await asyncio.wrap_future(future)
    except TimeoutError as error:
        raise TransientError(f"the healing loop did not answer within {within_s:g} s") from error
