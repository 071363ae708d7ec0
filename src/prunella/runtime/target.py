"""What an action reaches: the platform of one service and its source of releases, as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from prunella.config import ServiceConfig
from prunella.core.breaker import CIRCUIT
from prunella.core.model import Action, ActionKind, Epoch, Run, Scope, ServiceId, Status
from prunella.core.policy import Policy
from prunella.core.traffic import Flow
from prunella.errors import PermanentError, TransientError
from prunella.plugins import PlatformContext, ReleaseContext, platforms, releases
from prunella.ports import (
    Clock,
    FactListener,
    Platform,
    Release,
    SupportsCompletion,
    SupportsDoubt,
    SupportsTestimony,
)
from prunella.runtime.editions import Editions
from prunella.runtime.passage import Passage

_log = structlog.get_logger("prunella.target")
_SCALING = (ActionKind.SCALE_UP, ActionKind.SCALE_DOWN)


def build(
    service: ServiceConfig, clock: Clock, state_dir: Path, on_fact: FactListener
) -> tuple[Platform, Release | None]:
    """What runs a service, and where its releases come from; neither has looked at it yet."""
    folder = state_dir / "services" / service.id
    platform = platforms()[service.platform].build(
        service.platform_spec, PlatformContext(service.id, clock, folder, on_fact)
    )
    if service.release_kind is None:
        return platform, None
    context = ReleaseContext(service.id, clock, folder)
    return platform, releases()[service.release_kind].build(service.release_spec, context)


class Target:
    """A service to act on. With a release source, what is deployed is what that one says.

    Attributes:
        trouble: why its platform cannot tell now what is there; empty: it can.
    """

    __slots__ = (
        "_edition",
        "_editions",
        "_platform",
        "_policy",
        "_release",
        "_service",
        "passage",
        "trouble",
    )

    def __init__(
        self,
        service: ServiceId,
        platform: Platform,
        release: Release | None,
        passage: Passage | None,
        policy: Policy,
    ) -> None:
        self._service = service
        self._platform = platform
        self._release = release
        self._policy = policy
        self._editions = Editions()
        self._edition: str | None = None  # what the platform called its version last
        self.passage = passage
        self.trouble = ""

    @property
    def name(self) -> str:
        return self._platform.kind

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        """What can be done to the service, and in which pieces."""
        found = dict(self._platform.capabilities)
        if self._policy.scale_max == 0:
            for kind in _SCALING:
                found.pop(kind, None)
        if self._release is not None:
            restart = found.get(ActionKind.RESTART)
            if not self._release.restarts:
                found[ActionKind.ROLLBACK] = Scope.SERVICE
            elif restart is not None:
                found[ActionKind.ROLLBACK] = restart
        if self.passage is not None:
            found |= dict.fromkeys(CIRCUIT, Scope.SERVICE)
        return found

    @property
    def flow(self) -> Flow | None:
        """What the gateway lets through, as it was read last; None also where there is none."""
        return None if self.passage is None else self.passage.flow

    def doubt(self) -> None:
        """Have a source of releases asked anew that is not asked each time."""
        if isinstance(self._release, SupportsDoubt):
            self._release.doubt()

    async def observe(self) -> Status | None:
        """What is there now; None when that cannot be told.

        A source of releases that cannot tell leaves the version open, and only that: what has
        died is restarted although a repository elsewhere cannot be reached.
        """
        try:
            status = await self._platform.observe()
        except (TransientError, PermanentError) as error:
            if str(error) != self.trouble:
                _log.warning("platform-unreadable", service=self._service, error=str(error))
            self.trouble = str(error)
            return None
        self.trouble = ""
        release, before, self._edition = self._release, self._edition, status.revision
        if release is None:
            return status
        if status.revision != before:
            self.doubt()
        try:
            version = await release.observe()
        except (TransientError, PermanentError) as error:
            _log.warning("release-unreadable", service=self._service, error=str(error))
            return status._replace(revision=None)
        found = self._editions.translate(status, version, restarts=release.restarts)
        whole = release.whole if isinstance(release, SupportsDoubt) else True
        return found._replace(whole=whole)

    async def carry_out(
        self, action: Action, piece: Run | None, /, *, reason: str, epoch: Epoch
    ) -> None:
        """Do one piece of an action: one run of it, or all of it where it has no pieces.

        Raises: as ``Platform.execute``, ``Release.switch`` and ``Gateway.turn``.
        """
        if action.kind in CIRCUIT:
            assert self.passage is not None, "what has no gateway is not capable of it"
            await self.passage.turn(action, epoch=epoch)
            return
        if action.kind is ActionKind.ROLLBACK and self._release is not None:
            assert action.revision is not None, "a rollback without a target is vetoed"
            await self._release.switch(
                action.revision, before=action.before, reason=reason, epoch=epoch
            )
            if not self._release.restarts:
                return
            action = replace(action, kind=ActionKind.RESTART)
        if piece is not None:
            action = replace(action, instance=piece.instance, identity=piece.identity)
        await self._platform.execute(replace(action, runs=()), epoch=epoch)

    async def testimony(self, action: Action) -> str:
        """What the instance looks like that is about to be replaced; empty: nobody can tell."""
        if not isinstance(self._platform, SupportsTestimony):
            return ""
        return await self._platform.testimony(action.instance)

    async def complete(self, action: Action, /, *, epoch: Epoch) -> None:
        """Let go of what was kept as a way back; trouble with it is told, and left to people."""
        if not isinstance(self._platform, SupportsCompletion):
            return
        try:
            await self._platform.complete(action, epoch=epoch)
        except (TransientError, PermanentError) as error:
            _log.warning("not-completed", service=self._service, error=str(error))
