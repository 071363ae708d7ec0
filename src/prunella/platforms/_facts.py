"""Facts, from what a service looked like before and what it looks like now."""

from __future__ import annotations

from prunella.core.model import Fact, FactKind, Instance, InstanceId, InstanceState, Status
from prunella.plugins import PlatformContext


class Teller:
    """Tells each difference once, whether an event or a question has brought it to light."""

    def __init__(self, context: PlatformContext) -> None:
        self._context = context
        self.told: Status | None = None  # what is known to whom the facts are told

    def take_in(self, now: Status) -> None:
        """What is there now; what differs is told, unless it is the first look."""
        before = {one.id: one for one in (self.told or now).instances}
        self.told = now
        for one in now.instances:
            kind = _what_happened(before.pop(one.id, None), one)
            if kind is not None:
                self._tell(kind, one.id, one.detail)
        for gone in before:
            self._tell(FactKind.CHANGED, gone, "it was removed")

    def catch_up(self, now: Status) -> None:
        """After an action: what it brought about is no news. An exit since is."""
        before = {one.id: one for one in (self.told or now).instances}
        self.told = now
        for one in now.instances:
            if _what_happened(before.get(one.id), one) is FactKind.EXITED:
                self._tell(FactKind.EXITED, one.id, one.detail)

    def _tell(self, kind: FactKind, instance: InstanceId, detail: str) -> None:
        self._context.on_fact(Fact(kind, instance, self._context.clock.now(), detail))


def _what_happened(before: Instance | None, now: Instance) -> FactKind | None:
    """None: nothing that anybody needs to know."""
    same_run = before is not None and before.identity == now.identity
    if before is not None and same_run and before.state is now.state:
        return FactKind.VERDICT if before.verdict is not now.verdict else None
    if now.state is InstanceState.EXITED:
        return FactKind.EXITED
    if before is None or before.revision != now.revision or now.state is InstanceState.STOPPED:
        return FactKind.CHANGED
    return FactKind.STARTED
