"""Releases ``git``: commits of a repository, each checked out and built in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from prunella.core.model import Epoch
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.plugins import ReleaseContext, ReleasePlugin
from prunella.ports import Remark
from prunella.releases._git import COMMIT, Git
from prunella.releases._link import Link, LinkSpec, examine_folder
from prunella.releases._trouble import explained, judge
from prunella.releases._worktrees import Worktrees
from prunella.spec import Duration

_READING_S = 10.0  # for a question that git answers at once, where its disk does
_SWAPS = 3  # tries, while the link or the checkout behind it changes under our hands


class GitSpec(LinkSpec):
    """Releases that are checked out of a repository on this machine and built."""

    repository: Path = Field(description="The repository, bare or not, on this machine.")
    ref: str = Field(
        pattern=r"^[^-\s~^:\\\[][^\s~^:\\\[]*$",
        description="The branch or the tags that are released, such as main or v*: what none of "
        "them contains is not rolled back to.",
    )
    build: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="Makes a fresh checkout ready to run, in its folder. Default: nothing to make.",
    )
    keep: int = Field(
        default=5, ge=2, le=1000, description="So many checkouts are kept, those used last."
    )
    timeout: Duration = Field(
        default=600.0, description="A build or a checkout that takes longer is killed."
    )


class _Deployed(NamedTuple):
    """The deployed commit, and what must be as it was for that to be still true."""

    commit: str
    link: str
    marks: tuple[object, ...]


class GitRelease:
    """The deployed version is the commit that is checked out where the link leads to."""

    kind: ClassVar[str] = "git"
    restarts: ClassVar[bool] = True

    def __init__(self, spec: GitSpec, context: ReleaseContext) -> None:
        self._spec = spec
        self._link = Link(spec.current)
        self._git = Git(spec.repository, timeout_s=_READING_S)
        self._trees = Worktrees(
            Git(spec.repository, timeout_s=spec.timeout),
            spec.folder,
            context.service,
            build=spec.build or (),
            timeout_s=spec.timeout,
        )
        self._known: _Deployed | None = None

    async def observe(self) -> str:
        """Read the commit; git is only asked when the link or the checkout has changed.

        Raises:
            TransientError: there is no link, or no checkout where it leads to.
            PermanentError: something that is no link has its place.
        """
        return (await self._deployed()).commit

    async def switch(self, revision: str, /, *, before: str, reason: str, epoch: Epoch) -> None:  # noqa: ARG002 - no fence, nowhere to say why
        """Make a checkout ready, and lead to it. The old one stays as it is.

        Raises:
            ConflictError: neither `revision` nor `before` is deployed.
            PermanentError: there is no such commit, or the build cannot be run.
            TransientError: another switch is under way, the build failed, or the disk is full.
        """
        with self._link.alone():
            if judge((await self._deployed()).commit, revision, before):
                return
            await self._must_be_released(revision)
            await self._lead_to(await self._trees.of(revision), revision, before)
            # What cannot be cleared away now can be next time.
            with contextlib.suppress(PrunellaError):
                await self._trees.prune(self._spec.keep)

    async def examine(self) -> Sequence[Remark]:
        return [remark async for remark in self._examine()]

    async def close(self) -> None:
        pass

    async def _deployed(self) -> _Deployed:
        link = await asyncio.to_thread(self._link.read)
        folder = self._link.leads_to(link)
        marks = await asyncio.to_thread(_marks, folder)
        known = self._known
        if known is None or (known.link, known.marks) != (link, marks):
            commit = await Git(folder, timeout_s=_READING_S).id_of("HEAD^{commit}")
            if commit is None:
                raise TransientError(f"no commit is checked out in {folder}")
            known = self._known = _Deployed(commit, link, marks)
        return known

    async def _must_be_released(self, revision: str) -> None:
        if not COMMIT.fullmatch(revision):
            raise PermanentError(f"{revision} is not the id of a commit")
        if await self._git.id_of(f"{revision}^{{commit}}") is None:
            raise PermanentError(
                f"there is no commit {revision} in {self._spec.repository} any more"
            )
        if not await self._refs("--contains", revision):
            raise PermanentError(
                f"{self._spec.ref} of {self._spec.repository} does not contain {revision} (any "
                "more): it is not rolled back to"
            )

    async def _refs(self, *options: str) -> list[str]:
        """One of the branches or tags that are released, if there is any."""
        kinds = (f"refs/{kind}/{self._spec.ref}" for kind in ("heads", "remotes", "tags"))
        return await self._git.ask(
            "for-each-ref", "--count=1", "--format=%(refname)", *options, *kinds
        )

    async def _lead_to(self, tree: Path, revision: str, before: str) -> None:
        for _ in range(_SWAPS):
            deployed = await self._deployed()
            if judge(deployed.commit, revision, before):
                return
            # In this order of use, so that neither is cleared away.
            for used in (self._link.leads_to(deployed.link), tree):
                await asyncio.to_thread(self._trees.use, used)
            if await asyncio.to_thread(self._link.swap, tree, expected=deployed.link):
                return
        raise ConflictError(f"{self._spec.current} is being changed by somebody else")

    async def _examine(self) -> AsyncIterator[Remark]:
        try:
            if not await self._refs():
                yield Remark(
                    f"{self._spec.repository} has no branch and no tag {self._spec.ref}", fault=True
                )
        except PrunellaError as error:
            yield Remark(f"{self._spec.repository} cannot be used: {error}", fault=True)
            return
        build = self._spec.build or ("git",)
        if "/" not in build[0] and shutil.which(build[0]) is None:
            yield Remark(f"build: command not found: {build[0]}", fault=True)
        releases = self._spec.folder
        inside = self._spec.repository / ".git"
        for folder in (
            inside if inside.is_dir() else self._spec.repository,  # it remembers its checkouts
            releases if releases.exists() else releases.parent,
            self._spec.current.parent,
        ):
            for remark in examine_folder(folder):
                yield remark
        try:
            async for remark in self._examine_deployed():
                yield remark
        except PrunellaError as error:
            yield Remark(str(error), fault=True)

    async def _examine_deployed(self) -> AsyncIterator[Remark]:
        commit, link, _ = await self._deployed()
        if await self._git.id_of(f"{commit}^{{commit}}") is None:
            yield Remark(
                f"the deployed commit {commit} is not in {self._spec.repository}: it cannot be "
                "rolled back to"
            )
        checkout = Git(self._link.leads_to(link), timeout_s=self._spec.timeout)
        if await checkout.ask("status", "--porcelain", "--untracked-files=no"):
            yield Remark(
                f"what is deployed has changes that are in no commit: a rollback to {commit} "
                "does not bring them back"
            )


def _marks(folder: Path) -> tuple[object, ...]:
    """What changes with the commit that is checked out in a folder.

    Raises:
        TransientError: none is, as far as can be told.
    """
    dot_git = folder / ".git"
    with explained(f"{folder} is no checkout of git"):
        if not dot_git.is_dir():
            written = dot_git.read_text(encoding="utf-8", errors="replace")
            dot_git = folder / written.removeprefix("gitdir:").strip()
    return (str(dot_git), *(_mark(dot_git / name) for name in ("HEAD", "index", "logs/HEAD")))


def _mark(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


PLUGIN = ReleasePlugin("git", GitSpec, GitRelease)
