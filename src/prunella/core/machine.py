"""Where healing stands for one service, as data: one table and one pure ``step``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Phase(StrEnum):
    WATCHING = "watching"
    ACTING = "acting"
    VERIFYING = "verifying"
    COOLING = "cooling"
    QUARANTINED = "quarantined"


class Event(StrEnum):
    CONFIRMED = "confirmed"  # a symptom, a remedy, and no guard against it
    FORCED = "forced"  # a person asked for it
    EXECUTED = "executed"
    ACTION_FAILED = "action_failed"
    INTERRUPTED = "interrupted"  # Prunella died in between and the effect is there: adopt it
    CANCELLED = "cancelled"  # somebody else changed the target meanwhile
    LOST = "lost"  # Prunella died in between and the effect is not there
    CONTINUED = "continued"  # what was done so far is proven: on to the next instance
    RECOVERED = "recovered"
    RELAPSED = "relapsed"  # no recovery by the deadline, or one that did not last
    COOLED = "cooled"
    EXHAUSTED = "exhausted"
    RELEASED = "released"


P, E = Phase, Event

TRANSITIONS: Mapping[tuple[Phase, Event], Phase] = MappingProxyType(
    {
        (P.WATCHING, E.CONFIRMED): P.ACTING,
        (P.WATCHING, E.FORCED): P.ACTING,
        (P.WATCHING, E.EXHAUSTED): P.QUARANTINED,
        (P.ACTING, E.EXECUTED): P.VERIFYING,
        (P.ACTING, E.ACTION_FAILED): P.COOLING,
        (P.ACTING, E.INTERRUPTED): P.VERIFYING,
        (P.ACTING, E.LOST): P.COOLING,
        (P.ACTING, E.CANCELLED): P.WATCHING,
        (P.VERIFYING, E.CONTINUED): P.ACTING,
        (P.VERIFYING, E.RECOVERED): P.WATCHING,
        (P.VERIFYING, E.RELAPSED): P.COOLING,
        (P.COOLING, E.COOLED): P.WATCHING,
        (P.COOLING, E.FORCED): P.ACTING,
        (P.QUARANTINED, E.FORCED): P.ACTING,
        (P.QUARANTINED, E.RELEASED): P.WATCHING,
    }
)


class IllegalTransition(Exception):
    """A defect in the caller: the table has no row for this phase and event."""


def step(phase: Phase, event: Event) -> Phase:
    """Return the next phase.

    Raises:
        IllegalTransition: no such row; never caught, always a defect.
    """
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise IllegalTransition(f"{phase} has no transition on {event}") from None
