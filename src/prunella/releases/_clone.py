"""Our own bare copy of one branch of a deployment repository, and new commits on top of it.

The copy is only a cache: one that is broken is thrown away and made anew.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prunella.errors import PermanentError, TransientError
from prunella.releases._git import Git, masked
from prunella.releases._trouble import explained

_HEAD = "refs/prunella/head"  # where the branch was at the newest fetch
_CHANGES = 200  # of the branch, among which the tree to return to is looked for
_LISTED = 20  # changes that a message names


class Head(NamedTuple):
    """Where a branch is: its commit, and the tree of the folder that is deployed from it."""

    commit: str
    tree: str


class Clone:
    """One branch of a repository elsewhere, and one folder in it.

    Args:
        folder: of the copy; made when it is needed.
        source: a path or a URL.
        branch: its name.
        path: the folder in the repository; empty for all of it.
        timeout_s: of each command.
    """

    def __init__(
        self, folder: Path, *, source: str, branch: str, path: str, timeout_s: float
    ) -> None:
        self._git = Git(folder, timeout_s=timeout_s)
        self._source = source
        self._branch = f"refs/heads/{branch}"
        self._path = path

    async def fetch(self, *options: str) -> Head:
        """Ask the source where its branch is.

        Raises:
            TransientError: it cannot be reached or does not answer in time.
            PermanentError: it has no such branch, or no such folder in it.
        """
        await self._make()
        what = ("fetch", "--quiet", "--no-tags", *options, "--", self._source)
        done = await self._git.run(*what, f"+{self._branch}:{_HEAD}")
        if done.exit_code != 0 and not done.timed_out:
            await self._must_be_there()
            # The source is well, so the copy is not: left locked by a kill, or damaged.
            with explained(f"cannot remove {self._git.folder}"):
                await asyncio.to_thread(shutil.rmtree, self._git.folder)
            await self._make()
            done = await self._git.run(*what, f"+{self._branch}:{_HEAD}")
        if done.exit_code != 0:
            raise TransientError(f"cannot fetch {masked(self._source)}: {self._git.trouble(done)}")
        commit = await self._git.id_of(f"{_HEAD}^{{commit}}")
        tree = commit and await self._tree(commit)
        if not commit or not tree:
            raise PermanentError(
                f"{masked(self._source)} has no folder {self._path} on {self._branch}"
            )
        return Head(commit, tree)

    async def changes_since(self, tree: str, head: Head) -> Sequence[str]:
        """The commits that have led from a tree to the head, newest first, a line each.

        Raises:
            PermanentError: the folder never had that tree, or too long ago.
        """
        where = ("--", self._path) if self._path else ()
        log = ("log", "--first-parent", f"--max-count={_CHANGES}")
        commits = await self._git.ask(*log, "--format=%H", head.commit, *where)
        for number, commit in enumerate(commits):
            if await self._tree(commit) == tree:
                since = f"{commit}..{head.commit}"
                told = await self._git.ask(*log, "--format=%h %s (%an)", since, *where)
                more = [f"and {number - _LISTED} more"] if number > _LISTED else []
                return [*told[:_LISTED], *more]
        raise PermanentError(
            f"{tree} is not among the last {_CHANGES} versions on {self._branch} of "
            f"{masked(self._source)}"
        )

    async def commit(self, tree: str, head: Head, message: str, author: str) -> str:
        """A new commit on top of the head, in which the folder has that tree; not yet pushed."""
        name, _, address = author.rstrip(">").partition(" <")
        who = {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in (("NAME", name), ("EMAIL", address))
        }
        whole = await self._whole(tree, head) if self._path else tree
        (commit,) = await self._git.ask(
            "commit-tree", "-p", head.commit, "-m", message, whole, env=who
        )
        return commit

    async def push(self, commit: str, *options: str) -> str:
        """Offer the source a commit for its branch, never by force; why it refused, or empty.

        Nothing is certain after a refusal: the next fetch says what has become of the branch.
        """
        done = await self._git.run(
            "push", "--porcelain", *options, "--", self._source, f"{commit}:{self._branch}"
        )
        return "" if done.exit_code == 0 else self._git.refusal(done)

    async def _make(self) -> None:
        with explained(f"cannot make {self._git.folder}"):
            await asyncio.to_thread(self._git.folder.mkdir, parents=True, exist_ok=True)
        if not (self._git.folder / "HEAD").exists():
            await self._git.ask("init", "--quiet", "--bare", ".")

    async def _must_be_there(self) -> None:
        done = await self._git.run("ls-remote", "--exit-code", "--", self._source, self._branch)
        if done.exit_code == 2:
            raise PermanentError(f"{masked(self._source)} has no branch {self._branch}")
        if done.exit_code != 0:
            raise TransientError(f"cannot read {masked(self._source)}: {self._git.trouble(done)}")

    async def _tree(self, commit: str) -> str | None:
        return await self._git.id_of(f"{commit}:{self._path}")

    async def _whole(self, tree: str, head: Head) -> str:
        """The tree of all of the repository at the head, with another one in our folder."""
        index = self._git.folder / "revert-index"
        for left_behind in (index, index.with_suffix(".lock")):
            left_behind.unlink(missing_ok=True)
        env = {
            "GIT_DIR": str(self._git.folder),
            "GIT_WORK_TREE": str(self._git.folder),
            "GIT_INDEX_FILE": str(index),
        }
        for step in (
            ("read-tree", head.commit),
            ("rm", "-r", "-f", "--quiet", "--cached", "--", self._path),
            ("read-tree", f"--prefix={self._path}/", tree),
        ):
            await self._git.ask(*step, env=env)
        (whole,) = await self._git.ask("write-tree", env=env)
        return whole
