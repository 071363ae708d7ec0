"""A service that is deployed from a git repository, and somebody who deploys a bad version of it.

A deployment is what many scripts do: a fresh checkout, a link that leads to it, and a signal upon
which the service starts itself anew.
"""

from __future__ import annotations

from pathlib import Path

from prunella.argv import run_argv
from prunella.demo import server
from prunella.errors import PermanentError

_TIMEOUT_S = 20.0
_GOOD = 'self._answer(500 if self.server.fault == "errors" else 200)'
_BAD = "self._answer(500)"
_GIT = ("git", "-c", "user.name=demo", "-c", "user.email=demo@localhost")


class Releases:
    """The repository in `folder`, and the link ``current`` beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._repository = folder / "repository"
        self._code = Path(server.__file__).read_text()

    async def begin(self) -> None:
        """Deploy the first version.

        Raises:
            PermanentError: git is not there, or does not work.
        """
        self._repository.mkdir(parents=True)
        await self._git("init", "--quiet", "--initial-branch=main")
        await self._deploy(self._code, "the first version")

    async def deploy_a_bad_one(self) -> None:
        assert _GOOD in self._code
        await self._deploy(self._code.replace(_GOOD, _BAD), "make it faster")

    async def _deploy(self, text: str, message: str) -> None:
        (self._repository / "server.py").write_text(text)
        await self._git("add", "server.py")
        await self._git("commit", "--quiet", "--no-gpg-sign", f"--message={message}")
        tree = self._folder / "releases" / message.replace(" ", "-")
        await self._git("worktree", "add", "--quiet", "--detach", str(tree), "main")
        draft = self._folder / "current.new"
        draft.symlink_to(tree)
        draft.rename(self._folder / "current")

    async def _git(self, *words: str) -> None:
        done = await run_argv((*_GIT, *words), timeout_s=_TIMEOUT_S, cwd=str(self._repository))
        if done.exit_code != 0:
            said = done.output.decode(errors="replace").strip()
            raise PermanentError(f"git {words[0]} does not work: {said}")
