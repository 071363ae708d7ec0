"""What the API needs of the orchestrator, so that it can be tried without one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Protocol

from prometheus_client import Metric

from prunella.runtime.notices import Notice
from prunella.wire import (
    DebtRecord,
    DecisionRecord,
    Explanation,
    HealingAction,
    HoldRecord,
    ServiceHealth,
    SystemHealth,
)


class Orchestrator(Protocol):
    """Plain methods may be called from any thread; coroutines run on ``loop`` only.

    Methods that name a service raise ``UnknownServiceError``; ``force_heal`` raises
    ``HealingRefusedError`` when guards refuse.
    """

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    def get_system_health(self) -> SystemHealth: ...
    def get_service_health(self, service_id: str) -> ServiceHealth: ...
    def not_ready(self) -> list[str]: ...
    def metrics(self) -> Iterable[Metric]: ...

    def on(self, event: str, callback: Callable[[Notice], Awaitable[object]]) -> Callable[[], None]:
        """Subscribe to one event or, with ``"*"``, to all; on the healing loop only."""
        ...

    async def healing_page(
        self, limit: int, *, service: str | None = None, before: int | None = None
    ) -> tuple[list[HealingAction], int | None]: ...

    async def get_healing_action(self, action_id: int) -> HealingAction | None: ...

    async def force_heal(
        self,
        service_id: str,
        *,
        action: str | None = None,
        reason: str = "",
        override: Collection[str] = (),
        actor: str = "python",
        wait: bool = True,
    ) -> HealingAction: ...

    async def pause(
        self, service_id: str | None, *, for_s: float | None = None, reason: str = "", owner: str
    ) -> HoldRecord: ...

    async def resume(self, service_id: str | None, *, actor: str) -> int: ...
    async def list_holds(self) -> list[HoldRecord]: ...
    async def debts(self) -> list[DebtRecord]: ...

    async def decisions(
        self, service_id: str | None, *, limit: int = 20, before: int | None = None
    ) -> tuple[list[DecisionRecord], int | None]: ...

    async def why(self, service_id: str) -> Explanation: ...
