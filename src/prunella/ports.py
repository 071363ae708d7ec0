"""What the shell needs from the world: one Protocol per role, a few methods each.

Implementations are plugins, one file each (``plugins.py``). Methods raise ``TransientError`` or
``PermanentError`` for expected trouble; anything else that escapes them is a defect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import ClassVar, Protocol, runtime_checkable

from prunella.core.ledger import (
    Entry,
    EntryKind,
    Finish,
    Holder,
    Intent,
    LedgerView,
    Page,
    ServiceRow,
    Step,
    Veto,
)
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Epoch,
    Fact,
    Hold,
    Instant,
    Observation,
    ServiceId,
    Stamp,
    Status,
)


class Clock(Protocol):
    """All time there is. Control uses ``now``; ``wall`` is for people and for other boots."""

    @property
    def boot(self) -> str:
        """Identity of this boot of the machine: instants of another boot are not comparable."""
        ...

    def now(self) -> Instant: ...
    def wall(self) -> datetime: ...
    def stamp(self) -> Stamp: ...
    async def sleep_until(self, at: Instant, /) -> None: ...


class Probe(Protocol):
    """Measures one service once per call.

    ``check`` ends by its own deadline, never raises for anything the target does, and answers
    INCONCLUSIVE for trouble of its own (no descriptors, no route, no resolver).
    """

    kind: ClassVar[str]

    async def check(self) -> Observation: ...
    async def close(self) -> None: ...


class Platform(Protocol):
    """Runs one service. One object per service, built from that service's config.

    ``observe`` raises ``TransientError`` when it cannot tell: an error is not an empty set.
    ``execute`` carries out one action and returns when the effect is there or has been refused;
    that the command worked is not success, verification is. An action whose target is already
    reached returns at once. What it may do is in ``capabilities``.
    """

    kind: ClassVar[str]

    @property
    def capabilities(self) -> frozenset[ActionKind]: ...
    async def observe(self) -> Status: ...
    async def execute(self, action: Action, /, *, epoch: Epoch) -> None: ...
    async def close(self) -> None:
        """Let go of the service without touching it."""
        ...


@runtime_checkable
class SupportsLifecycle(Protocol):
    """A platform whose services live under Prunella itself.

    ``ensure`` brings up what should run and is not known to have run in this boot, and adopts
    what runs already; it returns a word for each for the ledger. A replica that was up in this
    boot and has died is left as it is: that is a fault, and faults are healed, with guards.
    ``shutdown`` applies the service's ``on_exit``; ``stop`` takes the service down for good.
    """

    async def ensure(self) -> Sequence[str]: ...
    async def shutdown(self) -> None: ...
    async def stop(self) -> None: ...


class Store(Protocol):
    """Durable memory. Every write carries the epoch and raises ``StaleEpochError`` if it is old.

    A method that has returned has made its writes durable (fsync), except ``note``, which may
    gather entries for up to 0.2 s. A full or failing disk raises ``TransientError`` and changes
    nothing; a store that cannot be trusted raises ``StoreError`` when it is opened.
    """

    async def claim(self, holder: Holder, now: Stamp, /) -> Epoch:
        """Become the only writer, with an epoch higher than any before.

        Raises: StoreInUseError naming the present holder, if that one still lives.
        """
        ...

    async def beat(self, now: Stamp, /, *, epoch: Epoch) -> None:
        """Say that the holder lives."""
        ...

    async def release(self, *, epoch: Epoch) -> None:
        """Give the store up at a clean end."""
        ...

    async def load(self, /) -> Sequence[ServiceRow]:
        """Where healing stands for every service that ever left WATCHING."""
        ...

    async def view(self, service: ServiceId, now: Stamp, /) -> LedgerView: ...

    async def begin(
        self,
        intent: Intent,
        admit: Callable[[LedgerView], Sequence[Veto]],
        now: Stamp,
        /,
        *,
        epoch: Epoch,
    ) -> ActionId | Sequence[Veto]:
        """Judge and write an intent in one transaction: its id, or the vetoes and no trace.

        At most one action runs per service: an index refuses a second one (guard ``lease``)
        whatever `admit` says. Unless ``intent.observed``, the service's phase becomes ACTING.
        """
        ...

    async def advance(self, step: Step, /, *, epoch: Epoch) -> None: ...

    async def note(self, entries: Sequence[Entry], /, *, epoch: Epoch) -> None: ...

    async def place_hold(self, hold: Hold, /, *, epoch: Epoch) -> None:
        """Put a hold in force; it replaces one of the same owner on the same service."""
        ...

    async def lift_holds(
        self, service: ServiceId | None, now: Stamp, /, *, epoch: Epoch, actor: str
    ) -> int:
        """End all holds placed on exactly `service` (None: on the whole instance)."""
        ...

    async def holds(self, now: Stamp, /) -> Sequence[Hold]: ...

    async def history(
        self, limit: int, /, *, service: ServiceId | None = None, before: int | None = None
    ) -> Page:
        """Newest first by sequence; `before` is a cursor from an earlier page."""
        ...

    async def action(self, action: ActionId, /) -> Finish | None:
        """How an action ended; None while it runs."""
        ...

    async def entries(
        self,
        limit: int,
        /,
        *,
        service: ServiceId | None = None,
        kinds: frozenset[EntryKind] = frozenset(),
        before: int | None = None,
    ) -> Sequence[Entry]:
        """Ledger lines, newest first; no kinds means all."""
        ...

    async def compact(self, keep_from: Stamp, /, *, epoch: Epoch) -> int:
        """Forget what is older and no longer needed; returns how many lines went.

        Running actions, live holds, the newest move of each service and the last 4 h stay.
        """
        ...

    async def close(self) -> None: ...


FactListener = Callable[[Fact], None]
