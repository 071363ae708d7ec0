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

from prunella.core.breaker import CIRCUIT, circuits
from prunella.core.fleet import FleetView
from prunella.core.health import Diagnosis
from prunella.core.ledger import LedgerView, Veto
from prunella.core.model import Action, ActionKind, Instant, Scope, Status
from prunella.core.policy import FleetPolicy, Policy
from prunella.core.traffic import Flow


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
    scope: Scope = Scope.INSTANCE
    flow: Flow | None = None

    @property
    def is_circuit(self) -> bool:
        """Whether this touches no instance, and only what a gateway lets through to them."""
        return self.action.kind in CIRCUIT

    @property
    def takes_back(self) -> bool:
        """Whether this ends a mitigation, or puts back one that was ended too early."""
        action = self.action
        if action.kind in (ActionKind.SCALE_DOWN, ActionKind.CIRCUIT_CLOSE):
            return True
        if action.kind is ActionKind.CIRCUIT_BREAK:
            return any(debt.instance == action.instance for debt in circuits(self.ledger.debts))
        return action.kind is ActionKind.SCALE_UP and any(
            debt.granted >= (action.replicas or 0) for debt in self.ledger.debts
        )

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
        sanity: its veto rules out this remedy alone: the next one is considered instead.
        remedies: it limits how often is repaired; it is not asked of circuits, nor of taking a
            remedy back.
    """

    name: str
    order: int
    judge: Callable[[Proposal], Veto | None]
    yields: bool = False
    exhausts: bool = False
    sanity: bool = False
    remedies: bool = False


@cache
def guards() -> tuple[Guard, ...]:
    """All guards in their order; every module of this package holds one as ``GUARD``."""
    found = [import_module(f"{__name__}.{module.name}").GUARD for module in iter_modules(__path__)]
    return tuple(sorted(found, key=lambda guard: (guard.order, guard.name)))
