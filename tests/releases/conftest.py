"""Real repositories, real folders, and what a person does to them."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from prunella.core.model import ServiceId
from prunella.plugins import ReleaseContext, releases
from prunella.ports import Release, SupportsExamination
from prunella.runtime.clock import SystemClock

Until = Callable[[Callable[[], object]], Awaitable[None]]

Switches = Callable[..., subprocess.Popen[bytes]]

ROOT = Path(__file__).parents[2]
SERVICE = ServiceId("shop")


class Repository:
    """A bare repository, and the checkout in which a person works."""

    def __init__(self, folder: Path, name: str = "shop") -> None:
        self.bare = folder / f"{name}.git"
        self.work = folder / f"{name}-work"
        run("git", "init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))
        run("git", "clone", "--quiet", str(self.bare), str(self.work))
        run("git", "switch", "--quiet", "--orphan", "main", cwd=self.work)

    def commit(self, subject: str, **files: str) -> str:
        """Commit files, push, and answer the commit's id; ``a__b`` stands for ``a/b``."""
        for name, text in files.items():
            path = self.work / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        run("git", "add", "--all", cwd=self.work)
        run("git", "commit", "--quiet", "--message", subject, cwd=self.work)
        run("git", "push", "--quiet", "origin", "main", cwd=self.work)
        return self.head()

    def head(self, name: str = "main") -> str:
        """The id of an object of the bare repository."""
        return run("git", "rev-parse", "--verify", name, cwd=self.bare).strip()

    def log(self) -> list[str]:
        """The subjects on the branch, newest first."""
        return run("git", "log", "--format=%s", "main", cwd=self.bare).splitlines()

    def hook(self, name: str, script: str) -> None:
        path = self.bare / "hooks" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


def run(*argv: str, cwd: Path | None = None) -> str:
    person = {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (("NAME", "Ada"), ("EMAIL", "ada@example.org"))
    }
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", **person}
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}{done.stdout}"
    return done.stdout


@contextmanager
def small_disk(folder: Path, options: str) -> Generator[None]:
    """A folder on a file system of its own, which is soon full."""
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def build(kind: str, folder: Path, **fields: Any) -> Release:
    """A source of releases as the daemon would build it."""
    plugin = releases()[kind]
    context = ReleaseContext(SERVICE, SystemClock(), folder / "state")
    return plugin.build(plugin.spec.model_validate(fields), context)


def switching(
    kind: str, folder: Path, revision: str, before: str, *, die_at: int = 0, **fields: object
) -> tuple[str, ...]:
    """The command of a process that switches once; see ``switch_child``."""
    child = (sys.executable, "-m", "tests.releases.switch_child")
    return (
        *child,
        str(die_at),
        kind,
        str(folder),
        json.dumps(fields, default=str),
        revision,
        before,
    )


async def remarks(release: Release) -> list[str]:
    """What is said on examination, faults with a mark."""
    assert isinstance(release, SupportsExamination)
    return [f"{'! ' * one.fault}{one.message}" for one in await release.examine()]


def link(path: Path, to: str) -> None:
    """What ``ln -sfn`` does, in one step."""
    draft = path.with_name("draft")
    draft.symlink_to(to)
    draft.replace(path)


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds, 20 s at most."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - what other processes do has no event
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def switches() -> Iterator[Switches]:
    """Start a switch in a process of its own; none of them outlives the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*argv: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(argv, cwd=ROOT))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)
