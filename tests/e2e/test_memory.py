"""Budgets, holds and quarantine survive kill -9; a full disk stops healing and nothing else."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from prunella.testing.site import Site, until

pytestmark = pytest.mark.e2e


def again(site: Site) -> None:
    """Kill the daemon and start the next one."""
    site.end(SIGKILL)
    site.launch()
    until(lambda: site.said("ready"))


def why(site: Site) -> Any:
    return site.ask("GET", "/api/v1/services/shop/why") or {"vetoes": {}, "now": ""}


def test_a_spent_budget_is_spent_for_the_next_daemon_too(site: Site) -> None:
    site.write(budget=1)
    site.start()
    site.strike()
    until(site.healed)
    again(site)
    until(site.healthy)
    site.strike()
    until(lambda: "budget" in why(site)["vetoes"])
    again(site)
    until(lambda: "budget" in why(site)["vetoes"])
    assert len(site.history()) == 1
    assert site.pids() == []


def test_a_hold_holds_the_next_daemon_too_until_it_is_lifted(site: Site) -> None:
    site.start()
    held = site.ask("PUT", "/api/v1/holds/shop", {"owner": "ann", "reason": "moving its disk"})
    assert held["owner"] == "ann"
    again(site)
    until(site.healthy)
    site.strike()
    until(lambda: "ann has paused" in why(site)["vetoes"].get("hold", ""))
    assert site.history() == []
    assert site.ask("DELETE", "/api/v1/holds/shop?owner=ann") == {"lifted": 1}
    until(site.healed)


def test_quarantine_holds_the_next_daemon_too_until_a_person_ends_it(site: Site) -> None:
    site.write(shop="    guards: {chain: {ineffective: 1, attempts: 1}}\n")
    site.start()
    site.strike()
    until(site.healed)
    site.strike()
    until(lambda: site.ask("GET", "/api/v1/services/shop")["phase"] == "quarantined")
    again(site)
    shop = site.ask("GET", "/api/v1/services/shop")
    assert (shop["phase"], shop["status"]) == ("quarantined", "failed")
    assert site.pids() == []
    assert site.ask("DELETE", "/api/v1/holds/shop?owner=ann") == {"lifted": 1}
    until(lambda: site.healed(2))
    assert site.serves()


def test_what_was_counted_is_counted_on_after_a_kill(site: Site) -> None:
    site.start()
    site.strike()
    until(site.healed)
    before = site.ask("GET", "/api/v1/services/shop")
    again(site)
    after = site.ask("GET", "/api/v1/services/shop")
    assert after["restartCount"] == before["restartCount"] == 1
    assert after["lastRestart"] == before["lastRestart"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))
    return ballast


def test_with_a_full_disk_nothing_is_healed_that_cannot_be_recorded_until_there_is_space(
    site: Site, small_disk: Path
) -> None:
    store = small_disk / "prunella.db"
    site.write(store=f"sqlite:///{store}")
    site.start()
    site.strike()
    until(site.healed)
    ballast = fill(small_disk)
    site.strike()
    until(lambda: "record" in why(site)["vetoes"])
    assert site.pids() == [], "no effect without a record of it"
    assert site.exit_code() is None
    ballast.unlink()
    until(lambda: site.healed(2))
    assert site.serves()
    assert site.end() == 0
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        lines = [seq for (seq,) in connection.execute("SELECT seq FROM ledger ORDER BY seq")]
    assert lines == list(range(1, len(lines) + 1))
