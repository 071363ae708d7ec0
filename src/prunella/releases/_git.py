"""Run git: the real one, by argument lists, with a deadline, and never with a question."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from prunella.argv import Completed, lines, run_argv
from prunella.errors import TransientError

COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")  # a commit's or a tree's id

# What would lead git elsewhere than to the folder it is run in.
_LEADING = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
)
_SETTINGS = (
    "core.hooksPath=/dev/null",  # hooks are for those who work in a repository, not for us
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
)
_PHRASES = (  # said after the line that says why
    "fatal: Could not read from remote repository.",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
)
_OPTIONS = ("--no-pager", "--literal-pathspecs", *(x for one in _SETTINGS for x in ("-c", one)))


class Git:
    """Git in one folder, which is a repository or a checkout itself and not a part of one."""

    def __init__(self, folder: Path, *, timeout_s: float) -> None:
        self.folder = folder
        self._timeout_s = timeout_s

    async def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, output_to: int | None = None
    ) -> Completed:
        """Run one command to its end, whatever that is.

        Raises:
            PermanentError: there is no git, or no such folder.
            TransientError: this machine is short of something.
        """
        return await run_argv(
            ["git", *_OPTIONS, *arguments],
            timeout_s=self._timeout_s,
            cwd=str(self.folder),
            env={**environment(), **_ours(self.folder), **(env or {})},
            output_to=output_to,
        )

    async def ask(self, *arguments: str, env: Mapping[str, str] | None = None) -> list[str]:
        """Run one command that must work; what it printed, by lines.

        Raises:
            PermanentError: there is no git, or no such folder.
            TransientError: it failed, or took too long.
        """
        done = await self.run(*arguments, env=env)
        if done.exit_code != 0:
            raise TransientError(f"git {arguments[0]}: {self.trouble(done)}")
        return lines(done.output)

    async def id_of(self, name: str) -> str | None:
        """The id of the object with a name such as ``HEAD^{commit}``; None if there is none."""
        done = await self.run("rev-parse", "--verify", "--quiet", name)
        if done.exit_code not in (0, 1):
            raise TransientError(f"git rev-parse: {self.trouble(done)}")
        return next((line for line in lines(done.output) if COMMIT.fullmatch(line)), None)

    def trouble(self, done: Completed) -> str:
        """Why a command failed, in one line, without the password of a URL."""
        if done.timed_out:
            return f"no end within {self._timeout_s:g} s"
        return complaint(done.output) or f"exit code {done.exit_code}"

    def refusal(self, done: Completed) -> str:
        """Why a push with ``--porcelain`` was refused, in one line."""
        said = lines(done.output)
        status = [line[line.find("[") :] for line in said if line.startswith("!") and "[" in line]
        remote = [line.removeprefix("remote: ") for line in said if line.startswith("remote: ")]
        return ": ".join([*status[:1], *remote[:1]]) or self.trouble(done)


def masked(text: str) -> str:
    """A text without the passwords of the URLs in it."""
    return re.sub(r"://[^@/\s]*@", "://***@", text)


def complaint(output: bytes) -> str:
    """The line of git's output that says most about what went wrong; empty if none does."""
    said = [masked(line) for line in lines(output) if line not in _PHRASES]
    causes = [line.partition(": ")[2] for line in said if line.startswith(("error: ", "fatal: "))]
    return (causes or said[-1:] or [""])[0]


def environment() -> dict[str, str]:
    """Our own environment, less what would lead git elsewhere."""
    return {key: value for key, value in os.environ.items() if key not in _LEADING}


def _ours(folder: Path) -> dict[str, str]:
    return {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": os.environ.get("GIT_ASKPASS", "false"),
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent),
    }
