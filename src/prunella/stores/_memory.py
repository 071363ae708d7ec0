"""What the store in memory keeps of an action, of a service, and of its holder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from prunella.core.ledger import Attempt, Finish, HealingRecord, Holder, Intent
from prunella.core.machine import Phase
from prunella.core.model import ActionId, Stamp
from prunella.core.time import rebase


@dataclass(slots=True)
class Move:
    """An action, and how it ended."""

    id: ActionId
    intent: Intent
    finish: Finish | None = None
    ended: Stamp | None = None

    def attempt(self, now: Stamp) -> Attempt:
        intent = self.intent
        return Attempt(
            intent.action.kind,
            rebase(intent.at, now),
            None if self.ended is None else rebase(self.ended, now),
            None if self.finish is None else self.finish.outcome,
            intent.actor,
            intent.incident,
            intent.action.instance,
        )

    def record(self) -> HealingRecord:
        intent, finish = self.intent, self.finish
        return HealingRecord(
            id=self.id,
            service=intent.action.service,
            action=intent.action.kind,
            reason=intent.reason,
            timestamp=intent.at.wall,
            success=None if finish is None else finish.outcome.is_success,
            recovery_time_ms=None if finish is None else finish.recovery_time_ms,
            downtime_ms=None if finish is None else finish.downtime_ms,
            outcome=None if finish is None else finish.outcome,
            detail="" if finish is None else finish.detail,
            symptom=intent.symptom,
            evidence=intent.evidence,
            incident=intent.incident,
            actor=intent.actor,
            instance=intent.action.instance,
            replicas=intent.action.replicas,
            revision=intent.action.revision,
            before=intent.action.before,
            share=intent.action.share,
        )


@dataclass(slots=True)
class Standing:
    """Where healing stands for one service; ``moved`` is the line of its newest move."""

    phase: Phase
    since: Stamp
    wake_at: Stamp | None
    reason: str
    moved: int
    restart_count: int = 0
    action_count: int = 0
    last_restart: datetime | None = None


@dataclass(slots=True)
class Tenure:
    """Who holds the store since when, and when it last said that it lives."""

    holder: Holder
    since: Stamp
    beat: Stamp
