"""Built checkouts of commits, side by side in one folder: made, used again, and cleared away.

A tree stands where it was built, since builds write down where they are. It is complete once a
file beside it says so, which appears in one step when all else is done; without that file it is
never used. What is said while it is made goes to a log beside it, which everything that takes
part in the making holds locked: a build that outlives a killed Prunella can be told from a dead
one, and its tree is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from prunella.argv import lines, run_argv
from prunella.core.model import ServiceId
from prunella.errors import PrunellaError, TransientError
from prunella.releases._git import COMMIT, Git, environment
from prunella.releases._link import locked, sync_folder
from prunella.releases._trouble import explained

_TAIL_BYTES = 4096  # of a log, for its last line
_RESERVE_BYTES = 65536  # for a log that says how the disk became full


class Worktrees:
    """The trees of one service. The caller sees to it that nobody else makes any meanwhile."""

    def __init__(
        self, git: Git, folder: Path, service: ServiceId, *, build: Sequence[str], timeout_s: float
    ) -> None:
        self._git = git
        self._folder = folder
        self._name = re.compile(
            rf"(prunella-{re.escape(service)}-({COMMIT.pattern})-(\d+))(?:\.log|\.complete)?"
        )
        self._service = service
        self._build = build
        self._timeout_s = timeout_s

    async def of(self, commit: str) -> Path:
        """A complete tree of a commit: one that is there already, else a new one.

        Raises:
            TransientError: the checkout or the build failed or took too long, or the disk is full.
            PermanentError: the build's command does not exist.
        """
        for tree in await asyncio.to_thread(self._complete):
            if self._commit(tree) == commit and await self._unchanged(tree, commit):
                return tree
        for tree in await asyncio.to_thread(self._unfinished):
            await self._remove(tree)
            _log(tree).unlink(missing_ok=True)
        return await self._make(commit)

    def use(self, tree: Path) -> None:
        """Remember that a tree is used now; nothing happens for one that is not ours."""
        if _marker(tree).exists():
            with explained(f"cannot touch {_marker(tree)}"):
                os.utime(_marker(tree))

    async def prune(self, keep: int) -> None:
        """Clear away all complete trees but the `keep` that were used last.

        Raises:
            TransientError: one cannot be removed.
        """
        for tree in (await asyncio.to_thread(self._complete))[keep:]:
            await self._remove(tree)
            _log(tree).unlink(missing_ok=True)

    async def _make(self, commit: str) -> Path:
        tree = await asyncio.to_thread(self._free, commit)
        with _making(tree) as log:
            try:
                await self._check_out(tree, commit, log)
                await self._run_build(tree, log)
                await asyncio.to_thread(_complete, tree)
            except PrunellaError:
                # What cannot be removed now is never used and is cleared away next time.
                with contextlib.suppress(PrunellaError):
                    await self._remove(tree)
                raise
        return tree

    async def _check_out(self, tree: Path, commit: str, log: int) -> None:
        # Forced: the place of one that was removed without git's knowledge is taken.
        add = ("worktree", "add", "--quiet", "--force", "--force", "--detach")
        done = await self._git.run(*add, str(tree), commit, output_to=log)
        if done.exit_code != 0:
            why = self._git.trouble(done._replace(output=_tail(log)))
            raise TransientError(f"cannot check out {commit}: {why}")

    async def _run_build(self, tree: Path, log: int) -> None:
        if not self._build:
            return
        done = await run_argv(
            self._build,
            timeout_s=self._timeout_s,
            cwd=str(tree),
            env=environment(),
            output_to=log,
        )
        if done.timed_out:
            raise TransientError(
                f"the build had no end within {self._timeout_s:g} s, see {_log(tree)}"
            )
        if done.exit_code != 0:
            last = (lines(_tail(log)) or ["it said nothing"])[-1]
            if os.statvfs(tree).f_bavail == 0:
                last = f"No space left on device; {last}"
            raise TransientError(
                f"the build ended with exit code {done.exit_code}: {last} (see {_log(tree)})"
            )

    async def _unchanged(self, tree: Path, commit: str) -> bool:
        """Whether a tree still is what was built; untracked files are the build's and not seen."""
        git = Git(tree, timeout_s=self._timeout_s)
        try:
            return await git.id_of("HEAD^{commit}") == commit and not await git.ask(
                "status", "--porcelain", "--untracked-files=no"
            )
        except PrunellaError:
            return False  # whatever it is: a new one is made

    async def _remove(self, tree: Path) -> None:
        """Remove a tree, not its log."""
        with explained(f"cannot remove {tree}"):
            _marker(tree).unlink(missing_ok=True)
            # Twice: also one that git has locked, since it was killed while it made it.
            await self._git.run("worktree", "remove", "--force", "--force", str(tree))
            with contextlib.suppress(FileNotFoundError):
                await asyncio.to_thread(shutil.rmtree, tree)

    def _all(self) -> Iterator[Path]:
        """Everything that there is a trace of."""
        with explained(f"cannot read {self._folder}"):
            self._folder.mkdir(exist_ok=True)
            found = [self._name.fullmatch(entry.name) for entry in self._folder.iterdir()]
            yield from {self._folder / match[1] for match in found if match}

    def _complete(self) -> list[Path]:
        """Those that can be used, the ones used last first."""
        found = [tree for tree in self._all() if tree.is_dir() and _marker(tree).exists()]
        return sorted(found, key=lambda tree: -_marker(tree).stat().st_mtime_ns)

    def _unfinished(self) -> list[Path]:
        """Those that can never be used, and that nobody is making any more."""
        done = {*self._complete()}
        return [tree for tree in self._all() if tree not in done and not _is_being_made(tree)]

    def _commit(self, tree: Path) -> str:
        match = self._name.fullmatch(tree.name)
        assert match is not None, "a tree of ours"
        return match[2]

    def _free(self, commit: str) -> Path:
        names = [self._name.fullmatch(tree.name) for tree in self._all()]
        numbers = [int(match[3]) for match in names if match and match[2] == commit]
        return self._folder / f"prunella-{self._service}-{commit}-{max(numbers, default=0) + 1}"


def _marker(tree: Path) -> Path:
    return tree.with_name(f"{tree.name}.complete")


def _log(tree: Path) -> Path:
    return tree.with_name(f"{tree.name}.log")


@contextlib.contextmanager
def _making(tree: Path) -> Generator[int]:
    """The log of a tree that is about to be made, locked by all who write to it."""
    with explained(f"cannot write {_log(tree)}"):
        log = os.open(_log(tree), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        with explained(f"cannot write {_log(tree)}"):
            only_ours = locked(log)
            assert only_ours, "nobody else knows of a file that was made just now"
            os.posix_fallocate(log, 0, _RESERVE_BYTES)
        yield log
    finally:
        os.ftruncate(log, _length(log))
        os.close(log)


def _is_being_made(tree: Path) -> bool:
    try:
        log = os.open(_log(tree), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not locked(log)
    finally:
        os.close(log)


def _complete(tree: Path) -> None:
    with explained(f"cannot write {_marker(tree)}"):
        os.sync()  # the marker vouches for all files: they must not be lost in a loss of power
        draft = _marker(tree).with_suffix(".draft")
        draft.touch()
        draft.replace(_marker(tree))
        sync_folder(tree.parent)


def _length(log: int) -> int:
    """How much has been written: all writers share one position."""
    return os.lseek(log, 0, os.SEEK_CUR)


def _tail(log: int) -> bytes:
    return os.pread(log, _TAIL_BYTES, max(0, _length(log) - _TAIL_BYTES))[: _length(log)]
