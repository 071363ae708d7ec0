"""kill -9 of the daemon before and after each write and each effect, on real processes."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from signal import SIGKILL, SIGSTOP, SIGTERM, Signals

import pytest

from prunella.testing.crash import ORDERS, REHEARSAL, VARIABLE, writes
from prunella.testing.effects import effects
from prunella.testing.site import Site, until

pytestmark = pytest.mark.e2e
AT_ONCE = 3
CALLS = (*writes(), *ORDERS)
TIMES = {"store.advance": 2, "store.note": 2}  # carried out and recovered; before and after
FIRST = ("store.begin/after/1", "platform.execute/after/1", "store.advance/before/1")
SECOND = (
    "store.claim/after/1",
    "platform.ensure/after/1",
    "store.advance/before/1",
    "store.advance/after/1",
    "store.note/after/1",
)
DEAD = -SIGKILL
# Not on the way of any heal: a replica that is no longer wanted, and a log that has grown.
ELSEWHERE = {"_records.Records.forget", "_logs.rotate", "_logs._copy"}


def points() -> list[str]:
    return [
        f"{call}/{when}/{nth}"
        for call in CALLS
        for when in ("before", "after")
        for nth in range(1, TIMES.get(call, 1) + 1)
    ]


def dead_or(site: Site, condition: Callable[[], object]) -> bool:
    """Wait for the condition, or for the end of the daemon; True if it has ended."""
    return until(lambda: "dead" if site.exit_code() is not None else condition()) == "dead"


def struck(site: Site) -> bool:
    return len(site.births()) > 1 or not site.serves()


def live_until_killed(site: Site, point: str) -> None:
    """A whole life of the daemon: start, heal, pause, resume, end. It dies on the way."""
    site.write(api="hold" in point, on_exit="leave")
    live(site, point, SIGKILL)


def live_through_a_hang(site: Site, point: str) -> None:
    """The same with a service that hangs and, when it is asked to end, does not."""
    site.write(
        api=False,
        on_exit="leave",
        probe=", timeout: 300ms",
        traits=["deaf"],
        stop_timeout="200ms",
    )
    live(site, point, SIGSTOP)


def live(site: Site, point: str, fault: Signals) -> None:
    site.launch(env={VARIABLE: point})
    if dead_or(site, site.serves):
        return
    if not struck(site):
        site.strike(fault)
    if dead_or(site, lambda: recovered(site)):
        return
    if "hold" in point:
        site.ask("PUT", "/api/v1/holds/shop", {"owner": "ann"})
        site.ask("DELETE", "/api/v1/holds/shop?owner=ann")
    if point.startswith("store.beat"):
        site.wait()
    if site.exit_code() is None:
        with suppress(ProcessLookupError):  # it may die of its crash point at this very moment
            site.end(SIGTERM)
    site.wait()


def recovered(site: Site) -> bool:
    return bool(site.rows("SELECT 1 FROM actions WHERE outcome = 'recovered'"))


def require_a_heal_by_the_next_daemon(site: Site) -> None:
    """Started again without the wrapper it serves, and has healed the one fault there was."""
    site.write(api=False)
    site.launch()
    until(lambda: site.said("ready") and site.serves())
    if len(site.births()) == 1:
        site.strike()
    until(lambda: recovered(site))
    until(site.serves)
    assert site.end() == 0


def require_one_effect(site: Site) -> None:
    assert site.doubles() == ""
    assert len(site.births()) == 2, "one start and one heal, whatever happened in between"
    assert site.rows("SELECT * FROM actions WHERE outcome IS NULL") == []
    helped = site.rows("SELECT * FROM actions WHERE outcome != 'interrupted'")
    assert len(helped) == 1
    kinds = site.rows("SELECT kind FROM ledger WHERE kind IN ('intent', 'outcome') ORDER BY seq")
    assert kinds == [("intent",), ("outcome",)] * (len(kinds) // 2), "one at a time"


def epoch(site: Site) -> int:
    """Of the newest holder of the store; 0 if there was none."""
    found = site.rows("SELECT epoch FROM holder")
    return int(str(found[0][0])) if found else 0


def run_to_the_end(site: Site, *deaths: str) -> None:
    epochs = [0]
    for death in deaths:
        hang = death.partition("/")[0] in effects()
        (live_through_a_hang if hang else live_until_killed)(site, death)
        assert site.exit_code() == DEAD, f"{death} was never reached"
        epochs.append(epoch(site))
    require_a_heal_by_the_next_daemon(site)
    require_one_effect(site)
    assert epochs == sorted(epochs)
    assert epoch(site) > epochs[-1], "each holder has an epoch above all before"
    written = [int(str(row[0])) for row in site.rows("SELECT epoch FROM ledger ORDER BY seq")]
    assert written == sorted(written), "nobody writes after a later holder"


def all_of(
    sites: Callable[[Path], Site], folder: Path, lives: list[tuple[str, ...]]
) -> dict[str, str]:
    """Go through all lives, a few at once; what went wrong, by life."""
    effects()  # read before there are threads: Python 3.11 cannot parse in several at once
    todo = [(sites(folder / str(number)), life) for number, life in enumerate(lives)]

    def one(site: Site, life: tuple[str, ...]) -> str:
        try:
            run_to_the_end(site, *life)
        except AssertionError as error:
            return f"{error}\n{site.log()[-3000:]}"
        return ""

    with ThreadPoolExecutor(AT_ONCE) as threads:
        said = list(threads.map(lambda pair: one(*pair), todo))
    ended = zip(todo, said, strict=True)
    return {" then ".join(life): words for (_, life), words in ended if words}


@pytest.mark.timeout(240)
def test_killed_before_or_after_any_write_or_effect_nothing_is_lost_or_done_twice(
    sites: Callable[[Path], Site], tmp_path: Path
) -> None:
    assert all_of(sites, tmp_path, [(point,) for point in points()]) == {}


@pytest.mark.timeout(240)
def test_killed_again_during_the_recovery_nothing_is_lost_or_done_twice(
    sites: Callable[[Path], Site], tmp_path: Path
) -> None:
    assert all_of(sites, tmp_path, list(product(FIRST, SECOND))) == {}


@pytest.mark.timeout(240)
def test_killed_at_any_effect_on_the_system_nothing_is_lost_or_done_twice(
    sites: Callable[[Path], Site], tmp_path: Path
) -> None:
    """Before each effect of a start and a heal, in their order, and after the last one."""
    expected = set(effects())
    rehearsal = sites(tmp_path / "rehearsal")
    live_through_a_hang(rehearsal, REHEARSAL)
    assert rehearsal.exit_code() == 0
    reached = [line["name"] for line in rehearsal.lines("effect")]
    assert set(reached) | ELSEWHERE == expected
    counts = Counter[str]()
    lives: list[tuple[str, ...]] = []
    for name in reached:
        counts[name] += 1
        lives.append((f"{name}/before/{counts[name]}",))
    lives.append((f"{reached[-1]}/after/{counts[reached[-1]]}",))
    assert all_of(sites, tmp_path, lives) == {}
