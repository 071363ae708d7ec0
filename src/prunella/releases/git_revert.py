"""Releases ``git-revert``: a deployment repository whose changes something else carries out."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from prunella.core.model import Epoch, Instant
from prunella.errors import PrunellaError, TransientError
from prunella.plugins import ReleaseContext, ReleasePlugin
from prunella.ports import Remark
from prunella.releases._clone import Clone, Head
from prunella.releases._git import masked
from prunella.releases._trouble import judge
from prunella.spec import Duration, ReleaseSpec

_PUSHES = 3  # tries, while others push at the same time or the source refuses
_PAUSE_S = 0.5  # between them, growing
_PATIENCE_S = 5.0  # for an answer, before what is asked now is answered without it


def _place(value: object) -> object:
    """A path for what is not a URL or ``host:path``, so that it starts at the config file."""
    if isinstance(value, str) and value and ":" not in value.partition("/")[0]:
        return Path(value)
    return value


def _inside(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = [part for part in value.split("/") if part not in ("", ".")]
    if value.startswith("/") or ".." in parts:
        raise ValueError("expected a folder inside of the repository, such as apps/shop")
    return "/".join(parts)


class GitRevertSpec(ReleaseSpec):
    """A branch of a deployment repository, and who puts it back."""

    repository: Annotated[Path | str, BeforeValidator(_place)] = Field(
        description="The repository that commits are pushed to: a URL, or a path."
    )
    ref: str = Field(
        pattern=r"^[^-\s~^:?*\\\[][^\s~^:?*\\\[]*$", description="The branch that is deployed."
    )
    path: Annotated[str, BeforeValidator(_inside)] = Field(
        default="",
        description="The folder in the repository that this service is deployed from. Default: "
        "all of it.",
    )
    author: str = Field(
        default="Prunella <prunella@localhost>",
        pattern=r"^[^<>\s][^<>\n]* <[^<>\s]+>$",
        description="Who the commits are by.",
    )
    interval: Duration = Field(
        default=30.0, description="The repository is asked for news at most this often."
    )
    timeout: Duration = Field(
        default=60.0, description="One exchange with the repository that takes longer is ended."
    )


class GitRevertRelease:
    """The deployed version is a tree: going back to one that was there reaches exactly that."""

    kind: ClassVar[str] = "git-revert"
    restarts: ClassVar[bool] = False

    def __init__(self, spec: GitRevertSpec, context: ReleaseContext) -> None:
        self._spec = spec
        self._context = context
        self._name = masked(str(spec.repository))
        self._clone = self._clone_in(context.state_dir / "release.git")
        self._one_by_one = asyncio.Lock()  # git in one folder
        self._asked_at: Instant | None = None
        self._answer: Head | PrunellaError | None = None  # None: there is none yet
        self._asking: asyncio.Task[None] | None = None

    @property
    def whole(self) -> bool:
        """It is for who carries it out to know more."""
        return True

    def doubt(self) -> None:
        """Fetch anew next time: something speaks for another version."""
        self._asked_at = None

    async def observe(self) -> str:
        """The tree at the branch's head, as it was at the newest fetch.

        A repository that keeps silent holds up nobody for long: the fetch goes on by itself.

        Raises:
            TransientError: the repository could not be reached, or has not answered yet.
            PermanentError: there is no such branch, or no such folder in it.
        """
        now = self._context.clock.now()
        if self._asked_at is None or now >= self._asked_at + self._spec.interval:
            self._asked_at = now
            if self._asking is None or self._asking.done():
                self._answer = None
                self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=self._asked_at + _PATIENCE_S - now)
            if self._asking.done():
                self._asking.result()  # a defect, if it has met one
        match self._answer:
            case None:
                raise TransientError(f"{self._name} has not answered yet")
            case Head():
                return self._answer.tree
            case trouble:
                raise trouble.with_traceback(None)

    async def switch(self, revision: str, /, *, before: str, reason: str, epoch: Epoch) -> None:  # noqa: ARG002 - no fence
        """Push a commit on top of the branch that brings a tree back; never by force.

        Raises:
            ConflictError: neither `revision` nor `before` is at the head.
            PermanentError: the branch never had that tree, or too long ago.
            TransientError: the repository could not be reached, or refused every time.
        """
        why = ""
        async with self._one_by_one:
            for number in range(_PUSHES + 1):
                # Also after a push, whatever it answered: what counts is what can be read back.
                head = await self._fetch()
                if judge(head.tree, revision, before):
                    return
                if number == _PUSHES:
                    break
                message = await self._message(revision, head, reason)
                commit = await self._clone.commit(revision, head, message, self._spec.author)
                why = await self._clone.push(commit)
                if why:
                    pause_s = _PAUSE_S * (number + 1)
                    await self._context.clock.sleep_until(
                        Instant(self._context.clock.now() + pause_s)
                    )
        raise TransientError(f"{self._name} has not taken the commit: {why}")

    async def examine(self) -> Sequence[Remark]:
        return [remark async for remark in self._examine()]

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def _clone_in(self, folder: Path) -> Clone:
        spec = self._spec
        return Clone(
            folder,
            source=str(spec.repository),
            branch=spec.ref,
            path=spec.path,
            timeout_s=spec.timeout,
        )

    async def _ask(self) -> None:
        async with self._one_by_one:
            with contextlib.suppress(PrunellaError):  # which is the answer
                await self._fetch()

    async def _fetch(self) -> Head:
        try:
            self._answer = await self._clone.fetch()
        except PrunellaError as error:
            self._answer = error
            raise
        return self._answer

    async def _message(self, revision: str, head: Head, reason: str) -> str:
        changes = await self._clone.changes_since(revision, head)
        return "\n".join(
            (
                f"Roll {self._context.service} back to {revision[:12]}",
                "",
                reason,
                "",
                "This takes back:",
                *(f"- {change}" for change in changes),
                "",
            )
        )

    async def _examine(self) -> AsyncIterator[Remark]:
        """Ask in a folder of its own, which is not kept: nothing may change."""
        with tempfile.TemporaryDirectory() as folder:
            clone = self._clone_in(Path(folder) / "release.git")
            try:
                head = await clone.fetch("--depth=1")
                why = await clone.push(head.commit, "--dry-run")
            except PrunellaError as error:
                yield Remark(str(error), fault=True)
                return
        if why:
            yield Remark(f"{self._name} takes no pushes: {why}", fault=True)
        if (Path(self._spec.repository) / ".git").exists():
            yield Remark(
                f"{self._spec.repository} is not bare: unless its receive.denyCurrentBranch says "
                "otherwise, it refuses a push to the branch that is checked out in it"
            )


PLUGIN = ReleasePlugin("git-revert", GitRevertSpec, GitRevertRelease)
