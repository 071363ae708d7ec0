"""What the shell needs from the world: one Protocol per role, a few methods each.

Implementations are plugins, one file each (``plugins.py``). Methods raise ``TransientError`` or
``PermanentError`` for expected trouble; anything else that escapes them is a defect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from prunella.core.ledger import (
    Entry,
    EntryKind,
    Finish,
    Holder,
    Intent,
    LedgerView,
    Mark,
    Page,
    ServiceRow,
    Step,
    Veto,
)
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Debt,
    Epoch,
    Fact,
    Hold,
    InstanceId,
    Instant,
    Observation,
    Scope,
    ServiceId,
    Stamp,
    Status,
)
from prunella.core.traffic import Flow, Valve


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
    reached returns at once, so that asking twice does nothing the second time. Where neither the
    target nor what the action starts from is found (another identity, number or version), it
    raises ``ConflictError`` or, for a run that is another one already, returns: somebody else
    has acted, and their change wins. One that fails leaves no partial effect behind.

    What it can do to this very service, and in which pieces, is in ``capabilities``.
    """

    kind: ClassVar[str]

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]: ...
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


@runtime_checkable
class SupportsCompletion(Protocol):
    """A platform that keeps a way back until an action has been verified.

    ``complete`` is called after success, perhaps more than once: what was kept may go.
    """

    async def complete(self, action: Action, /, *, epoch: Epoch) -> None: ...


@runtime_checkable
class SupportsTestimony(Protocol):
    """A platform that can say what an instance looks like right before it is replaced.

    ``testimony`` is asked before a hung instance is restarted, since the restart destroys what
    there is to see: where its threads wait, the last lines of its output. It ends within a second
    or so, answers at most a few KiB, and empty when there is nothing to tell; it does not raise.
    """

    async def testimony(self, instance: InstanceId | None, /) -> str: ...


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that a person should know about a service's configuration.

    Attributes:
        fault: it cannot work like this; else it works, and may not do what was meant.
        about: the only remedy that it concerns; None: it is not about a single one.
    """

    message: str
    fault: bool = False
    about: ActionKind | None = None


@runtime_checkable
class SupportsExamination(Protocol):
    """A platform, a release source or a gateway that can be asked whether it can do its work.

    ``examine`` looks and changes nothing: no socket, no permission, an unknown container, an
    owner that restarts it already. What it finds is an answer; it does not raise for it.
    """

    async def examine(self) -> Sequence[Remark]: ...


class Release(Protocol):
    """What a service can be rolled back to, where its platform does not know.

    ``observe`` answers the version that is deployed now and raises ``TransientError`` when it
    cannot tell. ``switch`` deploys another one and returns when it is in place; where neither
    that one nor `before` is deployed it raises ``ConflictError``. One that fails leaves what is
    deployed as it was. Running instances are not touched.

    Attributes:
        restarts: whether instances must be restarted to run what was deployed; else something
            outside carries it out by itself.
    """

    kind: ClassVar[str]
    restarts: ClassVar[bool]

    async def observe(self) -> str: ...
    async def switch(self, revision: str, /, *, before: str, reason: str, epoch: Epoch) -> None: ...
    async def close(self) -> None: ...


@runtime_checkable
class SupportsDoubt(Protocol):
    """A source of releases that is not asked each time, and may know half of an answer.

    ``doubt`` is called when something speaks for another version: the next `observe` asks anew.

    Attributes:
        whole: whether all of the version that was told last is in place, as far as can be known:
            else it is on its way, or got stuck on it.
    """

    @property
    def whole(self) -> bool: ...
    def doubt(self) -> None: ...


class Endpoint(NamedTuple):
    """Where one instance of a service answers."""

    name: InstanceId
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Route:
    """A service behind a gateway: what the gateway has to know of it.

    Attributes:
        spec: the service's ``gateway`` section, of the plugin's ``route``.
        body: what callers read while the circuit is open.
        fallback: where their requests go instead, in the gateway's terms; empty: nowhere, they
            are answered with 503, ``Retry-After`` and the body.
        endpoints: of its running instances, as far as its platform knows them; empty: it does not.
    """

    service: ServiceId
    spec: Any
    body: str = ""
    fallback: str = ""
    endpoints: tuple[Endpoint, ...] = ()


class Gateway(Protocol):
    """Stands in front of services, and lets their requests through or not. One for all of them.

    It keeps serving, and ends what was set by itself where it can, when Prunella is gone.
    Nothing is asked of it for each request.

    Attributes:
        shares: whether it can let a part of the requests through; else only all or none.
        shuts: whether it can keep requests from one server among several.
    """

    kind: ClassVar[str]
    shares: bool
    shuts: bool

    async def route(self, routes: Sequence[Route], /) -> None:
        """Take up which services it stands in front of, in place of what it was told before.

        A gateway that finds its servers by itself only remembers them. Valves stay as they are.

        Raises: TransientError, PermanentError: it cannot, and everything is as before.
        """
        ...

    async def observe(self) -> Mapping[ServiceId, Flow]:
        """All its services in one reading; one that it does not know (any more) is left out.

        Raises: TransientError: it cannot tell, or what it tells makes no sense.
        """
        ...

    async def turn(
        self, service: ServiceId, valve: Valve, /, *, before: Valve, lease_s: float, epoch: Epoch
    ) -> None:
        """Set a valve; returns when new requests meet it. No request fails of the turning itself.

        Only what differs between `before` and `valve` is touched. What is so already is left as
        it is, except that the lease begins anew.

        Args:
            before: what it is turned from.
            lease_s: after this time all is let through again, with or without us, where the
                gateway can do that.

        Raises:
            ConflictError: neither `before` nor `valve` is found where they differ: somebody else
                has changed it, and their change wins.
            TransientError, PermanentError: it could not be done, and everything is as before.
        """
        ...

    async def close(self) -> None:
        """Let go of it without touching it."""
        ...


class Store(Protocol):
    """Durable memory. Every write carries the epoch and raises ``StaleEpochError`` if it is old.

    A method that has returned has made its writes durable (fsync), except ``note``, which may
    gather entries for up to 0.2 s. A full or failing disk raises ``TransientError`` and changes
    nothing; a store that cannot be trusted raises ``StoreError`` when it is opened.
    """

    async def claim(self, holder: Holder, now: Stamp, /, *, force: bool = False) -> Epoch:
        """Become the only writer, with an epoch higher than any before.

        Args:
            force: even if the present holder lives: something else says that it must not write.

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
        whatever `admit` says. Unless ``intent.ended``, the service's phase becomes ACTING, and
        a grant of the intent becomes the service's debt of that kind.
        """
        ...

    async def advance(self, step: Step, /, *, epoch: Epoch) -> None: ...

    async def mark(self, mark: Mark, /, *, epoch: Epoch) -> None:
        """Remember a deployment, or that the newest one of that version has soaked.

        A mark of the version that is the newest deployment already changes nothing, and so does
        a soak of a version that is not deployed.
        """
        ...

    async def settle(
        self,
        service: ServiceId,
        kind: ActionKind,
        now: Stamp,
        /,
        *,
        epoch: Epoch,
        reason: str,
        instance: InstanceId | None = None,
    ) -> None:
        """Strike out a debt: what was granted has been taken back. None there: nothing to do.

        Args:
            instance: whose debt it is; None: the service's.
        """
        ...

    async def debts(self, now: Stamp, /) -> Mapping[ServiceId, Sequence[Debt]]:
        """All that is still to be taken back, by service."""
        ...

    async def note(self, entries: Sequence[Entry], /, *, epoch: Epoch) -> None: ...

    async def place_hold(self, hold: Hold, /, *, epoch: Epoch) -> None:
        """Put a hold in force; it replaces one of the same owner on the same service."""
        ...

    async def lift_holds(
        self,
        service: ServiceId | None,
        now: Stamp,
        /,
        *,
        epoch: Epoch,
        actor: str,
        owner: str | None = None,
    ) -> int:
        """End all holds placed on exactly `service` (None: on the whole instance).

        Args:
            owner: only the one of this owner.
        """
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
