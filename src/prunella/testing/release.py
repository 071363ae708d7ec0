"""A source of releases in memory: versions that can be out of reach, or refuse to be deployed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from prunella.core.model import Epoch
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.ports import Remark


class FakeRelease:
    """Obeys the same rules as a real source, at once.

    Attributes:
        deployed: the version that is there; whoever sets it has deployed by hand.
        switch_count: how often `switch` has changed it.
        out_of_reach: nobody can tell what is deployed.
        broken: no switch can work.
    """

    kind: ClassVar[str] = "fake"
    restarts: ClassVar[bool] = True

    def __init__(self, deployed: str, versions: Collection[str] = ()) -> None:
        self.deployed = deployed
        self.switch_count = 0
        self.out_of_reach = False
        self.broken = False
        self._versions = frozenset({deployed, *versions})

    async def observe(self) -> str:
        if self.out_of_reach:
            raise TransientError("the source of releases does not answer")
        return self.deployed

    async def switch(self, revision: str, /, *, before: str, reason: str, epoch: Epoch) -> None:  # noqa: ARG002 - nobody reads why
        present = await self.observe()
        if present == revision:
            return
        if present != before:
            raise ConflictError(f"{present} is deployed by now")
        if revision not in self._versions:
            raise PermanentError(f"there is no version {revision!r}")
        if self.broken:
            raise TransientError("it cannot be deployed now")
        self.deployed = revision
        self.switch_count += 1

    async def examine(self) -> Sequence[Remark]:
        return (Remark("it does not answer", fault=True),) if self.out_of_reach else ()

    async def close(self) -> None:
        pass
