"""The daemon on real processes, as a user runs it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prunella.testing.site import PATIENCE_S, Site, until

pytestmark = pytest.mark.e2e
SLEEPER = "  extra: {platform: process, process: {command: [sleep, '600']}}"


def run_as_a_user(site: Site) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prunella", "run", "prunella.yaml"],
        cwd=site.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_killed_service_serves_again_and_history_says_why(site: Site) -> None:
    site.start()
    victim = site.strike()
    (action,) = until(site.healed)
    assert action["serviceId"] == "shop"
    assert action["action"] == "restart"
    assert "SIGKILL" in action["reason"]
    assert action["recoveryTime"] > 0
    assert site.serves()
    (heir,) = site.pids()
    assert heir != victim


def test_a_frozen_service_is_found_and_replaced(site: Site) -> None:
    site.start()
    victim = site.strike(signal.SIGSTOP)
    (action,) = until(site.healed)
    assert action["symptom"] == "hung"
    assert victim not in site.pids()
    assert site.serves()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_stops_its_children_and_ends_with_0(
    site: Site, number: signal.Signals
) -> None:
    site.start()
    assert site.end(number) == 0
    assert site.pids() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_leave_them_it_leaves_and_adopts_them_again(
    site: Site, number: signal.Signals
) -> None:
    site.write(on_exit="leave")
    site.start()
    before = site.pids()
    assert site.end(number) == 0
    assert site.pids() == before
    site.start()
    assert site.pids() == before
    assert site.history() == []


def test_killed_it_leaves_the_service_running_and_the_next_one_adopts_it(site: Site) -> None:
    site.start()
    before = site.pids()
    site.end(signal.SIGKILL)
    assert site.pids() == before
    assert site.serves()
    site.start()
    assert site.pids() == before
    assert site.history() == []
    site.strike()
    until(site.healed)


def test_a_fault_while_nobody_watched_is_healed_by_the_next_daemon(site: Site) -> None:
    site.start()
    site.end(signal.SIGKILL)
    site.strike()
    site.start()
    assert [action["symptom"] for action in until(site.healed)] == ["down"]


def test_a_second_daemon_on_the_store_is_refused_and_told_by_whom(site: Site) -> None:
    site.start()
    before = site.pids()
    second = run_as_a_user(site)
    assert second.returncode == 1
    assert f"pid {site.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert site.pids() == before, site.log() + str(site.history())


def test_a_good_file_is_taken_over_on_reload(site: Site) -> None:
    site.start()
    before = site.pids()
    site.write(SLEEPER)
    site.send_signal(signal.SIGHUP)
    until(lambda: site.ask("GET", "/api/v1/health")["totalServices"] == 2 and site.healthy())
    assert site.pids() == before, "what did not change was not touched"
    site.write()
    site.send_signal(signal.SIGHUP)
    until(lambda: site.ask("GET", "/api/v1/health")["totalServices"] == 1)
    assert site.pids() == before


def test_told_to_reload_and_then_to_end_it_leaves_nothing(site: Site) -> None:
    site.start()
    site.write(SLEEPER, shop="    grace: 1s\n")
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
        site.send_signal(number)
    assert site.wait() == 0
    assert site.pids() == []
    assert "Traceback" not in site.log()


def test_a_service_that_leaves_the_file_is_stopped_on_reload(site: Site) -> None:
    site.write(SLEEPER, on_exit="leave")
    site.start()
    text = (site.folder / "prunella.yaml").read_text()
    head, _ = text.split("  shop:")
    (site.folder / "prunella.yaml").write_text(head + SLEEPER)
    site.send_signal(signal.SIGHUP)
    until(lambda: site.pids() == [])
    assert site.ask("GET", "/api/v1/health")["totalServices"] == 1


def test_a_changed_command_is_taken_over_on_reload_and_a_changed_limit_moves_nothing(
    site: Site,
) -> None:
    site.start()
    before = site.pids()
    site.write(shop="    heal: observe\n")
    site.send_signal(signal.SIGHUP)
    until(lambda: site.said("reloaded") and site.healthy())
    assert site.pids() == before
    site.write(on_exit="leave")
    site.send_signal(signal.SIGHUP)
    until(lambda: site.pids() not in ([], before) and site.healthy())
    assert site.doubles() == ""


def test_a_bad_file_is_refused_on_reload_and_the_old_one_stays(site: Site) -> None:
    site.start()
    before = site.pids()
    (site.folder / "prunella.yaml").write_text("services: {shop: {platform: nothing}}")
    site.send_signal(signal.SIGHUP)
    until(lambda: site.said("reload-refused"))
    assert site.pids() == before
    site.strike()
    until(site.healed)


def beliefs(site: Site) -> list[str]:
    """What the service was believed to be, one after the other, by the ledger."""
    said = site.rows("SELECT body FROM ledger WHERE kind = 'health' ORDER BY seq")
    return [json.loads(body)["to"] for (body,) in said]


def await_a_question(site: Site) -> None:
    """Until a check has just begun; the slow service is thinking about its answer."""
    before = len(site.questions())
    until(lambda: site.questions()[before:].endswith("?"))


def await_answers(site: Site, count: int) -> None:
    before = len(site.questions())
    until(lambda: site.questions().count("!", before) >= count)


def test_told_to_end_in_the_middle_of_a_check_it_calls_nobody_failed_for_it(site: Site) -> None:
    site.write(shop="    guards: {fall: 1}\n", probe=", timeout: 5s", traits=["delay=0.9"])
    site.start()
    await_a_question(site)
    assert site.end() == 0
    assert site.questions().endswith("?"), "the check ended before the service did"
    assert "failed" not in beliefs(site)


def test_a_healer_frozen_in_the_middle_of_a_check_condemns_nobody_for_it(site: Site) -> None:
    """One failure is enough here, and the deadline of the check passes while nobody watches it."""
    site.write(
        shop="    guards: {fall: 1}\n    thresholds: {response_time: 2500ms}\n",
        probe=", timeout: 2500ms",
        traits=["delay=1.0"],
    )
    site.start()
    before = site.pids()
    for _ in range(2):
        await_a_question(site)
        site.send_signal(signal.SIGSTOP)
        assert site.questions().endswith("?"), "no check is under way"
        time.sleep(3)  # the outage itself, not a wait for one
        site.send_signal(signal.SIGCONT)
        await_answers(site, 3)
    assert site.end() == 0
    assert set(beliefs(site)) == {"healthy", "unknown"}
    assert site.rows("SELECT * FROM actions") == []
    assert site.births() == before


def test_what_cannot_be_started_ends_in_quarantine_and_others_are_healed(site: Site) -> None:
    site.write("  ghost: {platform: process, process: {command: [/no/such/thing]}}")
    site.launch()
    ghost = "/api/v1/services/ghost"
    until(lambda: (site.ask("GET", ghost) or {}).get("phase") == "quarantined")
    found = site.ask("GET", ghost)
    assert found["status"] == "failed"
    assert "/no/such/thing" in found["detail"]
    tries = [action for action in site.history() if action["serviceId"] == "ghost"]
    assert [action["outcome"] for action in tries] == ["error"] * 3
    site.strike()
    assert [action["serviceId"] for action in until(site.healed)] == ["shop"]
    assert site.end() == 0


@pytest.mark.parametrize("how", ["flag", "file"])
def test_observing_it_does_nothing_and_says_what_it_would_have_done(site: Site, how: str) -> None:
    site.write(shop="    heal: observe\n" if how == "file" else "")
    site.start(*(["--observe"] if how == "flag" else []))
    site.strike()
    action = until(site.history)[0]
    assert (action["outcome"], action["success"]) == ("observed", False)
    assert site.pids() == []
    assert len(site.births()) == 1


def test_with_healing_off_it_only_watches(site: Site) -> None:
    site.write(shop="    heal: off\n")
    site.start()
    site.strike()
    until(lambda: site.ask("GET", "/api/v1/services/shop")["status"] == "failed")
    until(lambda: "off" in site.ask("GET", "/api/v1/services/shop/why")["now"])
    assert site.history() == []
    assert site.pids() == []


def test_two_sites_do_not_know_each_other(sites: Callable[[Path], Site], tmp_path: Path) -> None:
    one, other = sites(tmp_path / "one"), sites(tmp_path / "other")
    one.start()
    other.start()
    one.strike()
    until(one.healed)
    assert other.history() == []
    assert len(other.births()) == 1
