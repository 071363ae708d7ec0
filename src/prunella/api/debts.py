"""Remedies that are still to be taken back."""

from __future__ import annotations

from fastapi import APIRouter

from prunella.api.bridge import Healing, on_healing_loop
from prunella.api.shapes import Listing
from prunella.wire import DebtRecord

ROUTER = APIRouter(prefix="/api/v1", tags=["healing"])


@ROUTER.get("/debts")
async def debts(healing: Healing) -> Listing[DebtRecord]:
    """All of them; what is due first comes first."""
    return Listing(items=await on_healing_loop(healing, healing.debts()))
