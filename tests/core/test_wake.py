"""Sums of instants that differ in the last bit end in a short wait, never in a busy loop."""

from prunella.core.decide import wake_after
from prunella.core.ledger import Veto
from prunella.core.model import Instant


def test_a_veto_that_ends_now_is_asked_again_a_moment_later() -> None:
    now = Instant(2199.8248758486598)
    wake_at = wake_after((Veto("budget", "3 actions", now),), now)
    assert wake_at is not None
    assert wake_at > now
    assert wake_after((Veto("hold", "paused"),), now) is None
