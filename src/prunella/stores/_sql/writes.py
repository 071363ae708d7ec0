"""Every change of the database. Each runs within a transaction that its caller commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import ColumnElement, Connection, bindparam, delete, insert, select, update

from prunella.core.holds import is_live
from prunella.core.ledger import Entry, Finish, Holder, Intent, LedgerView, Mark, Step, Veto
from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Epoch,
    Hold,
    IncidentId,
    InstanceId,
    Outcome,
    ServiceId,
    Stamp,
)
from prunella.errors import StaleEpochError
from prunella.stores import _lines as lines
from prunella.stores import _rules as rules
from prunella.stores._sql import deployments, owed, reads, rows
from prunella.stores._sql.prepared import Prepared
from prunella.stores._sql.schema import (
    actions,
    compacting,
    debts,
    holder,
    holds,
    ledger,
    services,
    versions,
)

_EPOCH = Prepared(select(holder.c.epoch, holder.c.holder))
_LINE = Prepared(insert(ledger).returning(ledger.c.seq))
_ACTION = Prepared(insert(actions))
_FINISH = Prepared(
    update(actions).where(
        actions.c.id == bindparam("of"),
        actions.c.service == bindparam("on"),
        actions.c.outcome.is_(None),
    )
)
_SERVICE = Prepared(insert(services))
_OF = update(services).where(services.c.service == bindparam("of"))
_STAND = Prepared(_OF)
_ACT = Prepared(
    _OF.values(
        action_count=services.c.action_count + 1,
        restart_count=services.c.restart_count + bindparam("restarts"),
    )
)


class LeaseHeldError(Exception):
    """The index of running actions has refused a second one: roll back, then say which."""


class RehearsalError(Exception):
    """Undoes the transaction in which an intent was rehearsed."""


def claim(connection: Connection, name: str, claimant: Holder, now: Stamp, *, force: bool) -> Epoch:
    """Raises: StoreInUseError: the present holder lives; `name` is the store's, for people."""
    row = reads.held(connection)
    since, beat = rows.of_stamp("since", now), rows.of_stamp("beat", now)
    if row is None:
        first = {"id": 1, "epoch": 1, **rows.of_holder(claimant), **since, **beat}
        connection.execute(insert(holder), first)
        return Epoch(1)
    if row["holder"] is not None and not force:
        present = rows.holder(row)
        if rules.holder_lives(present, rows.stamp("beat", row), claimant, now):
            raise rules.in_use(name, present, rows.stamp("since", row))
    epoch = Epoch(row["epoch"] + 1)
    connection.execute(
        update(holder), {"epoch": epoch, **rows.of_holder(claimant), **since, **beat}
    )
    return epoch


def require(connection: Connection, name: str, epoch: Epoch) -> None:
    """Raises: StaleEpochError: `epoch` is not the present holder's."""
    held = _EPOCH.rows(connection)
    if not held or held[0]["holder"] is None or held[0]["epoch"] != epoch:
        raise StaleEpochError(f"epoch {epoch} of the store {name} has ended")


def beat(connection: Connection, now: Stamp) -> None:
    connection.execute(update(holder), rows.of_stamp("beat", now))


def release(connection: Connection) -> None:
    connection.execute(update(holder).values(holder=None))


def append(connection: Connection, entry: Entry, epoch: Epoch) -> int:
    """Write one line; returns its sequence number."""
    (line,) = _LINE.rows(connection, rows.of_entry(entry, epoch))
    seq: int = line["seq"]
    return seq


def note(connection: Connection, entries: Sequence[Entry], epoch: Epoch) -> None:
    connection.execute(insert(ledger), [rows.of_entry(entry, epoch) for entry in entries])


def begin(
    connection: Connection,
    intent: Intent,
    admit: Callable[[LedgerView], Sequence[Veto]],
    now: Stamp,
    epoch: Epoch,
) -> ActionId | tuple[Veto, ...]:
    """Raises: LeaseHeldError: an action runs on the service, and `admit` did not mind."""
    service = intent.action.service
    if vetoes := tuple(admit(reads.view(connection, service, now))):
        return vetoes
    seq = append(connection, lines.of_intent(intent), epoch)
    try:
        _ACTION.run(connection, rows.of_intent(seq, intent))
    except connection.dialect.loaded_dbapi.IntegrityError as error:
        raise LeaseHeldError(service) from error
    if intent.ended is None:
        _act(connection, seq, intent)
        _owe(connection, ActionId(seq), intent, epoch)
    return ActionId(seq)


def rehearse(connection: Connection, now: Stamp, epoch: Epoch) -> None:
    """Write an action and its end, and have all of it undone.

    What statements need is made when they come for the first time, and takes longer than thirty
    of them do afterwards. So the first real fault is not the first to need it.

    Raises: RehearsalError: always.
    """
    action = Action(ActionKind.RESTART, ServiceId(""))
    intent = Intent(action, IncidentId(""), "", None, "", now, None, Event.CONFIRMED)
    begun = begin(connection, intent, lambda _: (), now, epoch)
    if isinstance(begun, int):
        finish = Finish(begun, Outcome.CANCELLED)
        step = Step(action.service, Event.RECOVERED, Phase.WATCHING, now, "", finish=finish)
        advance(connection, step, epoch)
    raise RehearsalError


def lease_veto(connection: Connection, service: ServiceId) -> Veto | None:
    """Why a second action was refused; None if the first one has ended meanwhile."""
    row = reads.running(connection, service)
    if row is None:
        return None
    kind, at = ActionKind(row["kind"]), rows.moment(row["at_wall"])
    return rules.lease_veto(service, ActionId(row["id"]), kind, at)


def _act(connection: Connection, seq: int, intent: Intent) -> None:
    standing: rows.Values = {
        "phase": Phase.ACTING.value,
        **rows.of_stamp("since", intent.at),
        **rows.of_stamp("wake", None),
        "reason": rows.text(intent.reason),
        "moved": seq,
    }
    restarts = int(intent.action.kind is ActionKind.RESTART)
    if restarts:
        standing["last_restart"] = rows.microseconds(intent.at.wall)
    service = intent.action.service
    changed = _ACT.run(connection, {"of": service, "restarts": restarts, **standing})
    if not changed.rowcount:
        _first_stand(connection, service, standing, restarts=restarts, acted=1)


def _owe(connection: Connection, action: ActionId, intent: Intent, epoch: Epoch) -> None:
    if intent.grant is None:
        return
    service, kind = intent.action.service, intent.action.kind
    granted = owed.put(connection, service, kind, action, intent.grant)
    append(connection, lines.of_grant(action, intent, granted), epoch)


def _first_stand(
    connection: Connection,
    service: ServiceId,
    standing: rows.Values,
    *,
    restarts: int = 0,
    acted: int = 0,
) -> None:
    row = {"service": service, **standing, "restart_count": restarts, "action_count": acted}
    _SERVICE.run(connection, row)


def advance(connection: Connection, step: Step, epoch: Epoch) -> None:
    """Raises: PermanentError: the step ends an action that does not run."""
    outcome = lines.of_outcome(step)
    if step.finish and outcome:
        ending = rows.of_finish(step.finish, step.at)
        which = {"of": step.finish.action, "on": step.service}
        if not _FINISH.run(connection, {**which, **ending}).rowcount:
            raise rules.not_running(step.finish.action, step.service)
        append(connection, outcome, epoch)
    standing: rows.Values = {
        "phase": step.phase.value,
        **rows.of_stamp("since", step.at),
        **rows.of_stamp("wake", step.wake_at),
        "reason": rows.text(step.reason),
        "moved": append(connection, lines.of_step(step), epoch),
    }
    if not _STAND.run(connection, {"of": step.service, **standing}).rowcount:
        _first_stand(connection, step.service, standing)


def mark(connection: Connection, news: Mark, epoch: Epoch) -> None:
    news = replace(news, revision=rows.text(news.revision))
    newest = deployments.newest(connection, news.service)
    if not rules.is_news(news, newest):
        return
    seq = append(connection, lines.of_mark(news), epoch)
    if newest and news.soaked:
        deployments.soak(connection, newest, news)
    else:
        deployments.add(connection, seq, news)


def settle(
    connection: Connection,
    service: ServiceId,
    kind: ActionKind,
    instance: InstanceId | None,
    now: Stamp,
    reason: str,
    epoch: Epoch,
) -> None:
    if struck := owed.strike(connection, service, kind, instance):
        action, grant = struck
        line = lines.of_settlement(service, kind, action, grant, now, reason)
        append(connection, line, epoch)


def place_hold(connection: Connection, hold: Hold, epoch: Epoch) -> None:
    same = holds.c.owner == rows.text(hold.owner)
    connection.execute(delete(holds).where(_placed_on(hold.service), same))
    seq = append(connection, lines.of_hold(hold), epoch)
    connection.execute(insert(holds), rows.of_hold(seq, hold))


def lift_holds(
    connection: Connection,
    service: ServiceId | None,
    now: Stamp,
    actor: str,
    epoch: Epoch,
    owner: str | None,
) -> int:
    live = [
        hold
        for hold in reads.live_holds(connection, now)
        if hold.service == service and owner in (None, hold.owner)
    ]
    gone = delete(holds).where(_placed_on(service))
    if owner is not None:
        gone = gone.where(holds.c.owner == rows.text(owner))
    connection.execute(gone)
    for hold in live:
        append(connection, lines.of_lift(service, hold, now, actor), epoch)
    return len(live)


def _placed_on(service: ServiceId | None) -> ColumnElement[bool]:
    return holds.c.service.is_(None) if service is None else holds.c.service == service


def forget_holds(connection: Connection, now: Stamp) -> None:
    """Let go of the holds that have expired."""
    placed = connection.execute(select(holds)).mappings().all()
    expired = [row["id"] for row in placed if not is_live(rows.hold(row), now)]
    if expired:
        connection.execute(delete(holds).where(holds.c.id.in_(expired)))


def forget_lines(connection: Connection, old: Sequence[int]) -> int:
    """Delete those of the `old` lines that nothing needs; returns how many went."""
    needed = (
        select(actions.c.id).where(actions.c.outcome.is_(None)),
        select(services.c.moved),
        select(holds.c.id),
        select(versions.c.id),
        select(debts.c.action),
    )
    unneeded = [ledger.c.seq.not_in(needing) for needing in needed]
    # A trigger refuses to delete from the ledger unless this row is there.
    connection.execute(insert(compacting), {"id": 1})
    gone = connection.execute(delete(ledger).where(ledger.c.seq.in_(old), *unneeded)).rowcount
    connection.execute(delete(compacting))
    return gone


def forget_actions(connection: Connection, old: Sequence[int]) -> int:
    """Delete those of the `old` actions that have ended and left no debt; returns how many went."""
    ended = actions.c.outcome.is_not(None)
    settled = actions.c.id.not_in(select(debts.c.action))
    unneeded = delete(actions).where(actions.c.id.in_(old), ended, settled)
    return connection.execute(unneeded).rowcount
