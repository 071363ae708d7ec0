"""Plugins that have something to say about themselves and their services, as configured.

Installed under the entry points ``prunella.platforms`` and ``prunella.releases`` they show what
commands and the daemon make of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from prunella.core.model import ActionKind, Epoch
from prunella.errors import TransientError
from prunella.plugins import Draft, PlatformContext, PlatformPlugin, ReleaseContext, ReleasePlugin
from prunella.ports import Clock, Remark
from prunella.spec import ReleaseSpec, Spec
from prunella.testing.platform import FakePlatform

UNREACHABLE = "nobody listens at /run/remarking.sock"


class RemarkingSpec(Spec):
    """What there is to say."""

    faults: tuple[str, ...] = Field(default=(), description="Remarks that are faults.")
    warnings: tuple[str, ...] = Field(default=(), description="Remarks that are none.")
    replicas: int = Field(default=1, ge=1, description="How many of them run.")


class RemarkingReleaseSpec(ReleaseSpec):
    """What there is to say."""

    faults: tuple[str, ...] = Field(default=(), description="Remarks that are faults.")
    warnings: tuple[str, ...] = Field(default=(), description="Remarks that are none.")


class RemarkingPlatform(FakePlatform):
    """Runs in memory, and says of itself what its spec says."""

    kind: ClassVar[str] = "remarking"

    def __init__(self, spec: RemarkingSpec, context: PlatformContext) -> None:
        super().__init__(
            context.service, context.clock, on_fact=context.on_fact, replicas=spec.replicas
        )
        self._remarks = _remarks(spec)

    async def examine(self) -> Sequence[Remark]:
        return self._remarks


class MutePlatform(RemarkingPlatform):
    """Never answers when it is examined."""

    kind: ClassVar[str] = "mute"

    async def examine(self) -> Sequence[Remark]:
        await asyncio.Event().wait()
        return ()


class RemarkingRelease:
    """Has one version for ever, and says of itself what its spec says."""

    kind: ClassVar[str] = "remarking"
    restarts: ClassVar[bool] = True

    def __init__(self, spec: RemarkingReleaseSpec, context: ReleaseContext) -> None:
        self._service = context.service
        self._remarks = _remarks(spec)

    async def observe(self) -> str:
        return "v1"

    async def switch(
        self,
        revision: str,
        /,
        *,
        before: str,  # noqa: ARG002 - it never does it
        reason: str,  # noqa: ARG002
        epoch: Epoch,  # noqa: ARG002
    ) -> None:
        raise TransientError(f"{self._service} stays at v1, and cannot have {revision}")

    async def close(self) -> None:
        pass

    async def examine(self) -> Sequence[Remark]:
        return self._remarks


def _remarks(spec: RemarkingSpec | RemarkingReleaseSpec) -> tuple[Remark, ...]:
    warnings = [Remark(words) for words in spec.warnings]
    return (*warnings, *[Remark(words, fault=True) for words in spec.faults])


async def _unreachable(_clock: Clock, /) -> str:
    return UNREACHABLE


async def _survey(_clock: Clock, /) -> Sequence[Draft]:
    """Services with names and values that are awkward to write down."""
    return [
        Draft("shop", {"warnings": ["off", "1.0", "# no comment", "a: b", "{port}", " é\n"]}),
        Draft("Shop", {}, note="the same name again,\nin capitals \x1b[31m"),
        Draft("//", {"replicas": 2}, scale={"min": 1, "max": 4}),
        Draft("x" * 80, {}, probes=[{"kind": "tcp", "port": 80}]),
        Draft("paint", {"colour": "red"}),
    ]


async def _mute(_clock: Clock, /) -> str:
    await asyncio.Event().wait()
    return ""


async def _blind(_clock: Clock, /) -> Sequence[Draft]:
    raise TransientError("what runs on mute cannot be told")


PLATFORM = PlatformPlugin(
    "remarking",
    RemarkingSpec,
    RemarkingPlatform,
    can=(ActionKind.RESTART, ActionKind.SCALE_UP),
    reach=_unreachable,
    survey=_survey,
)
MUTE = PlatformPlugin("mute", RemarkingSpec, MutePlatform, reach=_mute, survey=_blind)
RELEASE = ReleasePlugin("remarking", RemarkingReleaseSpec, RemarkingRelease)
