from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from prunella.api.server import ApiServer
from prunella.testing.orchestrator import ScriptedOrchestrator, service


class Command:
    """``prunella`` as a process of its own, in an empty folder, against one daemon."""

    def __init__(self, api: str, folder: Path) -> None:
        self.api = api
        self.folder = folder
        kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
        self.environ = kept | {
            "PRUNELLA_API": api,
            "PRUNELLA_STATE_DIR": str(folder / "state"),
            "TZ": "UTC",
        }

    def __call__(
        self, *words: str | Path, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.line(*words),
            cwd=self.folder,
            env=self.environ | dict(environ or {}),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def offered(self, words: str) -> list[str]:
        """What a shell is offered for the last of these words."""
        line = f"prunella {words}"
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        done = self(environ={"_PRUNELLA_COMPLETE": "complete_bash", **asked})
        assert done.stderr == ""
        return done.stdout.split()

    @staticmethod
    def line(*words: str | Path) -> list[str]:
        return [sys.executable, "-m", "prunella", *map(str, words)]


@pytest.fixture(scope="session")
def serving() -> Iterator[tuple[ScriptedOrchestrator, str]]:
    orchestrator = ScriptedOrchestrator()
    orchestrator.open()
    server = ApiServer(orchestrator, "127.0.0.1", 0)
    try:
        _, port = asyncio.run(server.start())
        yield orchestrator, f"http://127.0.0.1:{port}"
        asyncio.run(server.stop())
    finally:
        orchestrator.close()


@pytest.fixture
def orchestrator(serving: tuple[ScriptedOrchestrator, str]) -> ScriptedOrchestrator:
    serving[0].begin_anew(
        service("web"),
        service("db", "failed", symptom="down", detail="\x1b[31mred\x07 [bold]x[/bold]\u202e"),
    )
    return serving[0]


@pytest.fixture
def prunella(
    serving: tuple[ScriptedOrchestrator, str], orchestrator: ScriptedOrchestrator, tmp_path: Path
) -> Command:
    assert orchestrator is serving[0]
    return Command(serving[1], tmp_path)


PLUGINS = """
[prunella.platforms]
remarking = prunella.testing.remarking:PLATFORM
mute = prunella.testing.remarking:MUTE
[prunella.releases]
remarking = prunella.testing.remarking:RELEASE
"""


@pytest.fixture
def plugged(alone: Command) -> Command:
    """A command with no daemon, and with plugins of somebody else's installed."""
    installed = alone.folder / "installed"
    plugin = installed / "remarking-1.0.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: remarking\nVersion: 1.0\n")
    (plugin / "entry_points.txt").write_text(PLUGINS)
    before = alone.environ.get("PYTHONPATH")
    alone.environ["PYTHONPATH"] = f"{installed}:{before}" if before else str(installed)
    return alone


@pytest.fixture
def alone(tmp_path: Path) -> Command:
    """A command with no daemon: nothing can listen on port 1 but a service of the system."""
    return Command("http://127.0.0.1:1", tmp_path)
