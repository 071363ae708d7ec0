"""Healing actions: those that were, and one on demand."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response
from pydantic import Field

from prunella.api.bridge import Healing, on_healing_loop
from prunella.api.shapes import Cursor, Input, Listing, Name, Paging, Refusal, Text
from prunella.wire import HealingAction

ROUTER = APIRouter(prefix="/api/v1", tags=["healing"])


class Heal(Input):
    """How to heal. With ``wait`` the answer comes when the outcome is known, else at once (202)."""

    action: Name | None = None
    reason: Text = ""
    override: list[Name] = Field(default_factory=list[Name], max_length=32)
    wait: bool = True
    actor: Name = "api"


@ROUTER.get("/healing-actions")
async def healing_actions(
    healing: Healing, page: Annotated[Paging, Query()]
) -> Listing[HealingAction]:
    """What was done, newest first."""
    items, cursor = await on_healing_loop(
        healing, healing.healing_page(page.limit, service=page.service, before=page.before)
    )
    return Listing(items=items, next=cursor)


@ROUTER.get("/healing-actions/{action}")
async def healing_action(action: Annotated[Cursor, Path()], healing: Healing) -> HealingAction:
    """One action."""
    found = await on_healing_loop(healing, healing.get_healing_action(action))
    if found is None:
        raise HTTPException(404, f"no healing action {action}")
    return found


@ROUTER.post(
    "/services/{service}/heal",
    responses={202: {"model": HealingAction}, 409: {"model": Refusal}},
)
async def heal(service: str, body: Heal, healing: Healing, response: Response) -> HealingAction:
    """Heal now, whatever the cool-down and the budget say; other guards may refuse (409)."""
    forced = healing.force_heal(
        service,
        action=body.action,
        reason=body.reason,
        override=frozenset(body.override),
        actor=body.actor,
        wait=body.wait,
    )
    done = await on_healing_loop(healing, forced, within_s=None)
    if done.success is None:
        response.status_code = 202
    return done
