"""``prunella demo``: what a newcomer sees first keeps its word."""

import subprocess
import sys
from pathlib import Path

import pytest

from prunella.runtime.clock import SystemClock

pytestmark = pytest.mark.e2e


def run(timeout_s: float, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prunella", "demo"]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=timeout_s, env=env
    )


@pytest.mark.timeout(90)
def test_everything_is_healed_within_a_minute() -> None:
    clock = SystemClock()
    start = clock.now()
    ended = run(80)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "7 of 7 remedies carried out and verified." in ended.stdout
    for remedy in ("restart", "scale-up", "scale-down", "rollback"):
        assert f"{remedy} carried out and verified" in ended.stdout
    assert clock.now() - start < 60


def test_without_git_it_says_so_and_fails(tmp_path: Path) -> None:
    ended = run(60, {"PATH": str(tmp_path), "HOME": str(tmp_path)})
    assert (ended.returncode, ended.stderr) == (1, "prunella: command not found: git\n")
