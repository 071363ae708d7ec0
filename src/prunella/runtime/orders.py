"""What people may order of one instance: to heal now, to pause, to go on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Protocol

from prunella.core.guards import guards
from prunella.core.model import ActionId, ActionKind, Epoch, Hold, Instant, ServiceId, Stamp
from prunella.core.snapshot import Forced
from prunella.errors import HealingRefusedError, UnknownWordError
from prunella.runtime.answers import Answers
from prunella.runtime.views import to_hold
from prunella.wire import HealingAction, HoldRecord


class Tenure(Protocol):
    """The right to act, held outside the store."""

    def require(self) -> None:
        """Raises: StaleEpochError: it has ended, by our own clock if not by any other sign."""
        ...


class Orders(Answers):
    """The ordering half of ``SelfHealingOrchestrator``, which owns all that it works with."""

    _tenure: Tenure | None
    _waiters: dict[ActionId, list[asyncio.Future[None]]]

    async def force_heal(
        self,
        service_id: str,
        *,
        action: str | None = None,
        reason: str = "",
        override: Collection[str] = (),
        actor: str = "python",
        wait: bool = True,
    ) -> HealingAction:
        """Heal now, whatever automation thinks; verified and recorded like any other.

        Args:
            override: names of guards to pass beyond those that yield to a person anyway.
            wait: until the outcome is known; else answer as soon as the intent is durable.

        Raises: UnknownServiceError; UnknownWordError for an action or a guard that there is not;
            HealingRefusedError with the vetoes.
        """
        ward = self._ward(service_id)
        begun = await ward.force(_order(actor, reason, action, override))
        if not isinstance(begun, int):
            vetoes = {veto.guard: veto.reason for veto in begun}
            raise HealingRefusedError("; ".join(vetoes.values()), vetoes)
        if wait and ward.engine.running is not None and ward.engine.running.id == begun:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(begun, []).append(waiter)
            await waiter
        found = await self.get_healing_action(begun)
        assert found is not None, "an intent that was written can be read"
        return found

    async def pause(
        self, service_id: str | None, *, for_s: float | None = None, reason: str = "", owner: str
    ) -> HoldRecord:
        """Hold all automatic action, on one service or on everything, for a time or until told."""
        service = None if service_id is None else self._ward(service_id).config.id
        return await self.place_hold(service, for_s=for_s, reason=reason, owner=owner)

    async def place_hold(
        self, service: ServiceId | None, *, for_s: float | None, reason: str, owner: str
    ) -> HoldRecord:
        """As ``pause``, also for a service that is not watched yet."""
        now = self._clock.stamp()
        expires = None
        if for_s is not None:
            wall = now.wall + timedelta(seconds=for_s)
            expires = Stamp(wall, Instant(now.instant + for_s), now.boot)
        hold = Hold(service, owner, reason, now, expires)
        await self._require_store().place_hold(hold, epoch=self._epoch())
        await self._hold_changed()
        return to_hold(hold)

    async def lift_hold(self, service: ServiceId, *, owner: str) -> None:
        """End the hold of one owner, who no longer wants it."""
        await self._require_store().lift_holds(
            service, self._clock.stamp(), epoch=self._epoch(), actor=owner, owner=owner
        )
        await self._hold_changed()

    async def resume(self, service_id: str | None, *, actor: str) -> int:
        """End holds, and the quarantine of the named service. Returns how many were ended."""
        service = None if service_id is None else self._ward(service_id).config.id
        lifted = await self._require_store().lift_holds(
            service, self._clock.stamp(), epoch=self._epoch(), actor=actor
        )
        await self._hold_changed()
        if service is not None and await self._wards[service].release(actor):
            lifted += 1
        return lifted

    def _action_ended(self, action: ActionId) -> None:
        for waiter in self._waiters.pop(action, []):
            if not waiter.done():
                waiter.set_result(None)

    async def _hold_changed(self) -> None:
        self._holds = tuple(await self._require_store().holds(self._clock.stamp()))
        for ward in self._wards.values():
            ward.wake()

    def _epoch(self) -> Epoch:
        """For every write, so that none is begun after our right to it has ended.

        Raises: StaleEpochError.
        """
        if self._tenure is not None:
            self._tenure.require()
        return self._lease.epoch


def _order(actor: str, reason: str, action: str | None, override: Collection[str]) -> Forced:
    """A person's order. Raises: UnknownWordError for an action or a guard that there is not."""
    kind = None if action is None else ActionKind(_known("action", action, ActionKind))
    names = [guard.name for guard in guards()]
    passed = frozenset(_known("guard", name, names) for name in override)
    return Forced(actor, reason or f"asked for by {actor}", kind, passed)


def _known(what: str, word: str, words: Iterable[str]) -> str:
    known = list(words)
    if word not in known:
        raise UnknownWordError(f"no {what} {word!r}; there are: {', '.join(known)}")
    return word
