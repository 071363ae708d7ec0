"""A bad release, deployed by a person, and how the whole of Prunella takes it back."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.releases.conftest import Repository, link, run

from prunella import SelfHealingOrchestrator
from prunella.config import from_mapping
from prunella.core.ledger import EntryKind
from prunella.stores.memory import MemoryStore
from prunella.wire import HealingAction

# Reads what it serves anew for each question, as PHP and its kin do; how it does is the release's.
SERVE = """
import http.server, json, subprocess, sys

class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(subprocess.check_output(json.loads(sys.argv[2]))))
        self.end_headers()
    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Shop).serve_forever()
"""


@dataclass
class Source:
    """Where releases come from: ``deploy`` is what a person does to bring one that answers so."""

    fields: dict[str, Any]
    reads: list[str]
    deploy: Callable[[str], None]


def symlink(folder: Path) -> Source:
    def deploy(status: str) -> None:
        home = folder / "releases" / f"answers-{status}"
        home.mkdir(parents=True)
        (home / "status").write_text(status)
        link(folder / "current", f"releases/{home.name}")

    fields = {"current": str(folder / "current")}
    return Source(fields, ["cat", "current/status"], deploy)


def git(folder: Path) -> Source:
    repository = Repository(folder)

    def deploy(status: str) -> None:
        commit = repository.commit(f"answer {status}", status=status)
        tree = folder / "releases" / commit[:12]
        run("git", "worktree", "add", "--detach", str(tree), commit, cwd=repository.bare)
        run("cp", "status", "built", cwd=tree)
        link(folder / "current", f"releases/{tree.name}")

    fields = {
        "repository": str(repository.bare),
        "ref": "main",
        "current": str(folder / "current"),
        "build": ["cp", "status", "built"],
    }
    return Source(fields, ["cat", "current/built"], deploy)


def git_revert(folder: Path) -> Source:
    """What is on the branch is served: nobody has to carry it out."""
    repository = Repository(folder)

    def deploy(status: str) -> None:
        repository.commit(f"answer {status}", apps__shop__status=status)

    fields = {
        "repository": str(repository.bare),
        "ref": "main",
        "path": "apps/shop",
        "interval": "50ms",
    }
    show = ["git", "-C", str(repository.bare), "show", "main:apps/shop/status"]
    return Source(fields, show, deploy)


SOURCES = {"git": git, "git-revert": git_revert, "symlink": symlink}


async def ended(prunella: SelfHealingOrchestrator, kind: str) -> HealingAction | None:
    """The newest action of a kind that has an outcome."""
    history = await prunella.get_healing_history()
    return next((action for action in history if action.action == kind and action.outcome), None)


async def until(what: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(30):
        while not (found := await what()):  # noqa: ASYNC110 - other processes have no event
            await asyncio.sleep(0.02)
    return found


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_release_that_answers_errors_is_taken_back_to_the_one_that_ran_well(
    kind: str, tmp_path: Path
) -> None:
    source = SOURCES[kind](tmp_path)
    source.deploy("200")
    (tmp_path / "serve.py").write_text(SERVE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "serve.py", str(port), json.dumps(source.reads)]
    shop = {
        "platform": "process",
        "process": {"command": command, "cwd": str(tmp_path)},
        "probes": [{"kind": "http", "url": f"http://127.0.0.1:{port}/", "interval": "100ms"}],
        "release": {"kind": kind, "soak": "500ms", **source.fields},
        "verify": {"soak": "300ms", "rollback_soak": "300ms"},
        "grace": "3s",
    }
    config = from_mapping({"state_dir": str(tmp_path / "state"), "services": {"shop": shop}})
    store = MemoryStore()

    async def soaked() -> bool:
        lines = await store.entries(10, kinds=frozenset({EntryKind.VERSION}))
        return any("soaked" in line.body.values() for line in lines)

    async with SelfHealingOrchestrator(config, store=store) as prunella:
        await until(soaked)
        source.deploy("500")
        action = await until(lambda: ended(prunella, "rollback"))
    assert (action.outcome, action.success) == ("recovered", True)
    assert run(*source.reads, cwd=tmp_path).strip() == "200"


async def test_what_has_died_is_restarted_while_nobody_can_tell_its_version(
    tmp_path: Path,
) -> None:
    shop = {
        "platform": "process",
        "process": {
            "command": ["sh", "-c", "echo $$ >> pids; exec sleep 60"],
            "cwd": str(tmp_path),
        },
        "release": {"kind": "git-revert", "repository": "/no/such.git", "ref": "main"},
        "verify": {"soak": "100ms"},
    }
    config = from_mapping({"state_dir": str(tmp_path / "state"), "services": {"shop": shop}})
    pids = tmp_path / "pids"

    async def started() -> bool:
        return pids.exists() and pids.read_text().endswith("\n")

    async with SelfHealingOrchestrator(config, store=MemoryStore()) as prunella:
        await until(started)
        os.kill(int(pids.read_text()), signal.SIGKILL)
        action = await until(lambda: ended(prunella, "restart"))
    assert (action.outcome, action.success) == ("recovered", True)
