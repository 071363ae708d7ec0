"""``prunella demo``: what a newcomer sees first keeps its word."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from prunella.runtime.clock import SystemClock
from prunella.testing.site import until

pytestmark = pytest.mark.e2e
LIMIT_S = 60.0
Demo = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Starts the demo, with the test's folder for temporary files."""
    started: list[subprocess.Popen[str]] = []

    def start(**env: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "prunella", "demo"],
                env={**os.environ, "TMPDIR": str(tmp_path), **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.communicate()
    for service in services(tmp_path):  # of a test that has failed
        service.kill()


def services(folder: Path) -> list[psutil.Process]:
    """The living services of the demo that has `folder` for temporary files."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("TMPDIR") == str(folder)
            if ours and ("PRUNELLA_SERVICE" in process.environ() or process.name() == "envoy"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def callers_failed(said: str) -> tuple[int, int]:
    """How many of the storefront's callers went away empty-handed, with Prunella and without."""
    found = re.search(r"storefront (\d+) failed;\n.* without Prunella (\d+) did", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


@pytest.mark.timeout(120)
def test_everything_is_healed_within_a_minute_and_nothing_is_left(
    demo: Demo, tmp_path: Path
) -> None:
    clock = SystemClock()
    begun = clock.now()
    running = demo()
    said, _ = running.communicate(timeout=100)
    assert running.returncode == 0, said
    assert clock.now() - begun < LIMIT_S
    assert said.splitlines()[-1] == "9 of 9 remedies carried out and verified."
    remedies = ("restart", "scale-up", "scale-down", "rollback", "circuit-break", "circuit-close")
    for remedy in remedies:
        assert f"{remedy} carried out and verified" in said
    watched, unwatched = callers_failed(said)
    assert 2 * watched < unwatched
    assert services(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_it_leaves_nothing(demo: Demo, tmp_path: Path, number: signal.Signals) -> None:
    running = demo()
    until(lambda: len(services(tmp_path)) >= 5)
    running.send_signal(number)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 128 + number, said
    assert "Traceback" not in said
    assert services(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_without_git_it_says_so_and_fails(demo: Demo, tmp_path: Path) -> None:
    running = demo(PATH=str(tmp_path), HOME=str(tmp_path))
    said, _ = running.communicate(timeout=60)
    assert (running.returncode, said) == (1, "prunella: command not found: git\n")
