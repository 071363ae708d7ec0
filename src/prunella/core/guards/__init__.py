"""The guards: one file each, one pure question each, asked right before every effect.

A guard is named for what it keeps. It answers None, or a ``Veto`` with a reason in plain words and
the moment at which it will no longer object, where it knows one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple

from prunella.core.fleet import FleetView
from prunella.core.health import Diagnosis
from prunella.core.ledger import LedgerView, Veto
from prunella.core.model import Action, Instant, Status
from prunella.core.policy import FleetPolicy, Policy


class Proposal(NamedTuple):
    """An action, and everything by which it may be judged."""

    action: Action
    policy: Policy
    fleet_policy: FleetPolicy
    diagnosis: Diagnosis
    status: Status | None
    ledger: LedgerView
    fleet: FleetView
    grace_until: Instant
    now: Instant

    @property
    def factual(self) -> bool:
        """Whether the symptom is known for certain rather than inferred from samples."""
        return self.diagnosis.symptom is not None and self.diagnosis.symptom.factual


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard.

    Attributes:
        order: guards are asked, and their vetoes listed, from low to high.
        yields: a person's forced heal passes without naming it.
        exhausts: its veto means that trying again is over: quarantine.
    """

    name: str
    order: int
    judge: Callable[[Proposal], Veto | None]
    yields: bool = False
    exhausts: bool = False


@cache
def guards() -> tuple[Guard, ...]:
    """All guards in their order; every module of this package holds one as ``GUARD``."""
    found = [import_module(f"{__name__}.{module.name}").GUARD for module in iter_modules(__path__)]
    return tuple(sorted(found, key=lambda guard: (guard.order, guard.name)))
