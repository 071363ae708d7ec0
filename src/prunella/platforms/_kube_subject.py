"""The workload that something is done to, as it is known without I/O, and waiting for it.

Each effect is one call, with what it starts from in the same call. After a refusal the object is
read anew. What has been reached already is done; what somebody else has changed meanwhile stays
as they want it; and where only the rest of it has moved, it is tried again, `TRIES` times.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from prunella.core.model import Instant
from prunella.errors import TransientError
from prunella.kube.kinds import Kind
from prunella.kube.shared import SharedCluster
from prunella.kube.workloads import KINDS, Key, Workload
from prunella.platforms._kube_roster import Roster
from prunella.platforms._kube_view import View, Views
from prunella.ports import Clock

TRIES = 3
_LOOK_S = 0.03  # between looks at what the watches have told


@dataclass(frozen=True, slots=True)
class Subject:
    """One workload.

    Attributes:
        patience_s: how long a pod may take to start.
    """

    roster: Roster
    key: Key
    views: Views
    clock: Clock
    patience_s: float

    @property
    def cluster(self) -> SharedCluster:
        return self.roster.cluster

    @property
    def kind(self) -> Kind:
        return KINDS[self.key.kind]

    def look(self) -> View:
        return self.views.look(self.roster, self.clock.wall())

    async def until(self, done: Callable[[View], bool], limit_s: float) -> None:
        give_up = self.clock.now() + limit_s
        was_overdue = True  # that an earlier version was overdue may still be written there
        while not done(view := self.look()):
            overdue = view.workload.is_noticed and view.workload.is_overdue
            was_overdue = was_overdue and overdue
            if (overdue and not was_overdue) or self.clock.now() >= give_up:
                raise TransientError(f"{self.key} has not got to the end of it in time")
            await self.pause()

    async def pause(self) -> None:
        """Let the watches tell more; a server that is away meanwhile may well come back."""
        await self.clock.sleep_until(Instant(self.clock.now() + _LOOK_S))
        with contextlib.suppress(TransientError):
            await self.roster.ready(self.key.kind)

    async def read(self) -> Workload:
        return await self.roster.read(self.key)
