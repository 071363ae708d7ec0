"""What was decided, and what was deliberately not done."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from prunella.api.bridge import Healing, on_healing_loop
from prunella.api.shapes import Listing, Paging
from prunella.wire import DecisionRecord

ROUTER = APIRouter(prefix="/api/v1", tags=["decisions"])


@ROUTER.get("/decisions")
async def decisions(healing: Healing, page: Annotated[Paging, Query()]) -> Listing[DecisionRecord]:
    """Decisions and vetoes, newest first."""
    items, cursor = await on_healing_loop(
        healing, healing.decisions(page.service, limit=page.limit, before=page.before)
    )
    return Listing(items=items, next=cursor)
