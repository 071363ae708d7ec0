"""What every store decides in the same way: who holds it, what is live, what may be forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from prunella.core.ledger import Attempt, Grant, Holder, Mark, Veto
from prunella.core.model import (
    ActionId,
    ActionKind,
    Debt,
    Instant,
    ServiceId,
    Stamp,
    Version,
)
from prunella.core.time import age_s, rebase, remaining_s
from prunella.errors import PermanentError, StoreInUseError

KEPT_S = 4 * 3600.0  # guards look back so far: never forgotten, always in a view
HOLDER_TTL_S = 10.0  # a holder on another host whose last beat is older has died
VIEW_CHUNK = 16  # attempts that are judged old together before the search for more ends
VERSIONS_COUNT = 32  # deployments of one service that are kept


def process_lives(pid: int, started: str) -> bool:
    """Whether the process that had `pid` and this kernel start time still runs.

    A zombie has ended: nobody has asked how yet. Another start time is another process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The name (field 2) is in brackets and may hold blanks and brackets of its own.
    fields = stat.rpartition(")")[2].split()
    return fields[0] not in {"Z", "X"} and fields[19] == started


def holder_lives(present: Holder, beat: Stamp, claimant: Holder, now: Stamp) -> bool:
    """Whether `present` may still write, as far as `claimant` can know."""
    if present.id == claimant.id:
        return False  # claiming again: the earlier epoch ends with this
    if present.host != claimant.host:
        return age_s(beat, now) < HOLDER_TTL_S
    if present.boot != claimant.boot:
        return False
    return process_lives(present.pid, present.started)


def in_use(name: str, present: Holder, since: Stamp) -> StoreInUseError:
    where = f" (API {present.address})" if present.address else ""
    return StoreInUseError(
        f"store {name} is held by prunella pid {present.pid} on {present.host}{where} "
        f"since {_readable(since.wall)}: stop that one, or give this one a store of its own"
    )


def _readable(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds")


def lease_veto(service: ServiceId, running: ActionId, kind: ActionKind, at: datetime) -> Veto:
    return Veto("lease", f"{kind} {running} of {service} runs since {_readable(at)}")


def not_running(action: ActionId, service: ServiceId) -> PermanentError:
    return PermanentError(f"action {action} of {service} does not run: it cannot end")


def unknown_action(action: ActionId) -> PermanentError:
    return PermanentError(f"no action {action}: there was none, or it is older than what is kept")


def attempts(chunks: Iterable[Sequence[Attempt]], now: Instant) -> Iterator[Attempt]:
    """Those of the last 4 h and any that runs, from chunks of them newest first.

    Stamps of other boots may be out of order, so one old action does not end the search; a whole
    chunk of old ones does.
    """
    for chunk in chunks:
        young = [one for one in chunk if one.outcome is None or now - one.at <= KEPT_S]
        if not young:
            return
        yield from young


def later(one: Stamp, other: Stamp) -> Stamp:
    """The later of two moments."""
    return other if age_s(one, other) > 0 else one


def is_old(then: Stamp, keep_from: Stamp, now: Stamp) -> bool:
    """Whether a line of `then` may be forgotten: before `keep_from` and over 4 h old."""
    return age_s(then, keep_from) > 0 and age_s(then, now) > KEPT_S


class Deployment(NamedTuple):
    """A version as it is stored; ``Version`` is how it is read. ``seq``: its ledger line."""

    seq: int
    revision: str
    deployed: Stamp
    actor: str
    soaked: Stamp | None = None
    evidence: str = ""


def is_news(mark: Mark, newest: Deployment | None) -> bool:
    """Whether `mark` says what the `newest` deployment of its service does not."""
    if newest is None or newest.revision != mark.revision:
        return not mark.soaked
    return mark.soaked and newest.soaked is None


def surplus(deployments: Sequence[Deployment]) -> Deployment | None:
    """Which of them, newest first, is one too many: the oldest that is not the last soaked one."""
    if len(deployments) <= VERSIONS_COUNT:
        return None
    last_soaked = next((one for one in deployments if one.soaked), None)
    return deployments[-2] if deployments[-1] is last_soaked else deployments[-1]


def version(deployment: Deployment, now: Stamp) -> Version:
    soaked = deployment.soaked
    return Version(
        deployment.revision,
        rebase(deployment.deployed, now),
        deployment.actor,
        None if soaked is None else rebase(soaked, now),
        deployment.evidence,
    )


def renewed(grant: Grant, earlier: Grant | None) -> Grant:
    """`grant` in place of an `earlier` one: what there was before the first of them comes back."""
    if earlier is None:
        return grant
    return replace(grant, before=min(grant.before, earlier.before))


def debt(kind: ActionKind, action: ActionId, grant: Grant, now: Stamp) -> Debt:
    due_at = Instant(now.instant + remaining_s(grant.due, now))
    return Debt(
        kind, action, grant.before, grant.granted, due_at, grant.extended_count, grant.instance
    )
