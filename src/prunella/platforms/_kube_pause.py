"""The sync of Argo CD or Flux, paused under a lease while a version is rolled back.

All that is needed to resume it stands in an annotation of the keeper, so that whoever looks after
the workload then does it: once the keeper wants something else than what was rolled back from, or
the lease is over. What a person has set meanwhile stays as they want it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog

from prunella.core.model import Action, Instant, ServiceId
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.kube.kinds import Json, Struct
from prunella.kube.workloads import Key, Workload
from prunella.platforms._kube_keepers import (
    Keeper,
    automation,
    deployed,
    is_as_paused,
    is_syncing,
    keeper_of,
    part,
    pausing,
    restorer,
    resuming,
    wanted,
)
from prunella.platforms._kube_roster import Roster
from prunella.ports import Clock

PAUSED_SYNC = "prunella.dev/paused-sync"
EVERY_S = 60.0
LEASE_S = 24 * 3600.0
_TRIES = 3
_log = structlog.get_logger("prunella.kubernetes")


class Note(Struct, frozen=True):
    """Our annotation.

    Attributes:
        service: whose rollback it was paused for.
        revision: what was rolled back from.
        wanted: what the keeper had deployed then.
        until: end of the lease.
        was: the field that pauses it, as it was; None: it was not there.
    """

    service: str
    reason: str
    revision: str
    wanted: str
    until: datetime
    was: Any = None


class SyncPause:
    """Pauses and resumes what keeps one workload.

    Attributes:
        objection: why that cannot be paused; empty: it can, or nothing has to be.
    """

    def __init__(
        self, roster: Roster, key: Key, service: ServiceId, clock: Clock, argo: str
    ) -> None:
        self.objection = "it is not known yet whether its sync can be paused"
        self._roster = roster
        self._cluster = roster.cluster
        self._key = key
        self._service = service
        self._clock = clock
        self._argo = argo
        self._due = clock.now()

    @property
    def is_due(self) -> bool:
        return self._clock.now() >= self._due

    async def attend(self, workload: Workload) -> None:
        """See whether it can be paused, and resume it where it is time for that.

        Never raises for expected trouble: it is tried again in a minute.
        """
        self._due = Instant(self._clock.now() + EVERY_S)
        try:
            whole = await self.examine(workload)
            keeper = keeper_of(workload.metadata, self._argo)
            if whole is not None and keeper is not None:
                await self._resume_in_time(keeper, whole, workload)
        except PrunellaError as error:
            _log.warning("sync not looked after", service=self._service, error=str(error))

    async def examine(self, workload: Workload) -> Json | None:
        """Find out whether it can be paused; changes nothing.

        Returns: the keeper as it stands; None: there is none, or it cannot be had.

        Raises: TransientError: that cannot be told.
        """
        keeper = keeper_of(workload.metadata, self._argo)
        try:
            whole = None if keeper is None else await self._seen(keeper)
        except PermanentError as error:
            self.objection = f"its sync cannot be paused: {error}"
            return None
        self.objection = ""
        return whole

    async def _seen(self, keeper: Keeper) -> Json:
        """Raises: PermanentError: it could not be paused."""
        whole = await self._cluster.get(keeper.kind, keeper.name, keeper.namespace)
        if not await self._roster.allowed("patch", keeper.kind, keeper.namespace):
            what = f"{keeper.kind.plural} in namespace {keeper.namespace}"
            raise PermanentError(f"we may not patch {what}")
        if above := restorer(keeper, whole):
            raise PermanentError(f"{above} looks after {keeper} and would undo that")
        await wanted(self._cluster, keeper, whole)
        return whole

    async def begin(self, workload: Workload, action: Action) -> None:
        """Pause it; where it does not sync by itself, there is nothing to pause.

        Raises:
            ConflictError: it has been paused before, and is to deploy something else by now.
            TransientError, PermanentError: it could not be paused.
        """
        keeper = keeper_of(workload.metadata, self._argo)
        if keeper is None:
            return
        for _ in range(_TRIES):
            whole = await self._cluster.get(keeper.kind, keeper.name, keeper.namespace)
            field, before = automation(keeper, whole), _note(keeper, whole)
            is_paused = before is not None and is_as_paused(keeper, field)
            if not is_paused and not is_syncing(keeper, field):
                return
            now = await wanted(self._cluster, keeper, whole)
            if before is not None and is_paused:
                if now == before.wanted:
                    return  # from an earlier rollback, perhaps of another of its workloads
                self._due = self._clock.now()
                raise ConflictError(f"{keeper} is to deploy something else by now")
            note = Note(
                service=self._service,
                reason=f"prunella: rolled back from {action.before} to {action.revision}",
                revision=action.before,
                wanted=deployed(keeper, whole, now),
                until=self._clock.wall() + timedelta(seconds=LEASE_S),
                was=field,
            )
            mark = msgspec.json.encode(note).decode()
            try:
                await self._change(keeper, whole, mark, pausing(keeper))
            except ConflictError:
                continue  # its status moves all the time; what matters is read anew
            _log.info("sync paused", service=self._service, keeper=str(keeper), reason=note.reason)
            return
        raise TransientError(f"{keeper} changes faster than it can be paused")

    async def give_up(self, workload: Workload, action: Action) -> None:
        """Resume at once what was paused for a rollback, if that has not been done.

        Never raises for expected trouble: `attend` makes up for it.
        """
        keeper = keeper_of(workload.metadata, self._argo)
        if keeper is None:
            return
        self._due = self._clock.now()
        try:
            now = await self._roster.read(self._key)
            whole = await self._cluster.get(keeper.kind, keeper.name, keeper.namespace)
            note = _note(keeper, whole)
            ours = note if note is not None and self._is_for(note, action.before) else None
            if ours is not None and now.revision != action.revision:
                await self._resume(keeper, whole, ours, "it was not rolled back")
        except PrunellaError as error:
            _log.warning("sync not looked after", service=self._service, error=str(error))

    def _is_for(self, note: Note, revision: str) -> bool:
        return (note.service, note.revision) == (self._service, revision)

    async def _resume_in_time(self, keeper: Keeper, whole: Json, workload: Workload) -> None:
        note = _note(keeper, whole)
        if note is None:
            return
        if not is_as_paused(keeper, automation(keeper, whole)):
            await self._resume(keeper, whole, note, "somebody has set it otherwise")
        elif await wanted(self._cluster, keeper, whole) != note.wanted:
            await self._resume(keeper, whole, note, "it is to deploy something else by now")
        elif self._is_for(note, workload.revision):
            await self._resume(keeper, whole, note, "what was rolled back from is there again")
        elif self._clock.wall() >= note.until:
            _log.warning(
                "the lease of a paused sync is over: what was rolled back from will come back",
                service=self._service,
                keeper=str(keeper),
                revision=note.revision,
            )
            await self._resume(keeper, whole, note, "its lease is over")

    async def _resume(self, keeper: Keeper, whole: Json, note: Note, why: str) -> None:
        """Put it back as it was; where somebody has set it since, only our annotation goes."""
        is_ours = is_as_paused(keeper, automation(keeper, whole))
        await self._change(keeper, whole, None, resuming(keeper, note.was) if is_ours else {})
        _log.info("sync resumed", service=self._service, keeper=str(keeper), reason=why)

    async def _change(self, keeper: Keeper, whole: Json, mark: str | None, spec: Any) -> None:
        """Raises: ConflictError: it is not as it was read any more."""
        version = whole["metadata"]["resourceVersion"]
        body = {
            "metadata": {"resourceVersion": version, "annotations": {PAUSED_SYNC: mark}},
            **({"spec": spec} if spec else {}),
        }
        await self._cluster.patch(keeper.kind, keeper.name, keeper.namespace, body)


def _note(keeper: Keeper, whole: Json) -> Note | None:
    """Raises: PermanentError: somebody has made it unreadable."""
    text = part(whole, "metadata", "annotations").get(PAUSED_SYNC)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Note)
    except msgspec.DecodeError as error:
        raise PermanentError(
            f"annotation {PAUSED_SYNC} of {keeper} cannot be read ({error}): resume it by hand "
            "and remove the annotation"
        ) from error
