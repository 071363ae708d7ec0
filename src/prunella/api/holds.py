"""Pauses, of one service or of the whole instance."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from prunella.api.bridge import Healing, on_healing_loop
from prunella.api.shapes import Input, Listing, Name, Text
from prunella.spec import Duration
from prunella.wire import HoldRecord, Wire

ROUTER = APIRouter(prefix="/api/v1/holds", tags=["holds"])


class Pause(Input):
    """A pause: until ``for`` has passed (seconds, or "1h"), or until it is lifted."""

    for_s: Duration | None = Field(None, alias="for")
    reason: Text = ""
    owner: Name = "api"


class Lifted(Wire):
    """How many holds were lifted and quarantines released."""

    lifted: int


Actor = Annotated[Name, Query()]


async def _pause(healing: Healing, service: str | None, body: Pause) -> HoldRecord:
    hold = healing.pause(service, for_s=body.for_s, reason=body.reason, owner=body.owner)
    return await on_healing_loop(healing, hold)


async def _resume(healing: Healing, service: str | None, actor: str) -> Lifted:
    return Lifted(lifted=await on_healing_loop(healing, healing.resume(service, actor=actor)))


@ROUTER.get("")
async def holds(healing: Healing) -> Listing[HoldRecord]:
    """All holds in force."""
    return Listing(items=await on_healing_loop(healing, healing.list_holds()))


@ROUTER.put("")
async def pause_all(body: Pause, healing: Healing) -> HoldRecord:
    """Pause healing everywhere."""
    return await _pause(healing, None, body)


@ROUTER.put("/{service}")
async def pause_service(service: str, body: Pause, healing: Healing) -> HoldRecord:
    """Pause healing of one service."""
    return await _pause(healing, service, body)


@ROUTER.delete("")
async def resume_all(healing: Healing, owner: Actor = "api") -> Lifted:
    """Lift the holds on the whole instance."""
    return await _resume(healing, None, owner)


@ROUTER.delete("/{service}")
async def resume_service(service: str, healing: Healing, owner: Actor = "api") -> Lifted:
    """Lift the holds on one service, and release it from quarantine."""
    return await _resume(healing, service, owner)
