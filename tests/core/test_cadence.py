"""How often each service is looked at, as a table."""

import pytest

from prunella.core.cadence import interval_s
from prunella.core.machine import Phase
from prunella.core.model import Health, Instant
from prunella.core.policy import Policy


@pytest.mark.parametrize(
    ("phase", "health", "for_s", "expected_s"),
    [
        (Phase.WATCHING, Health.HEALTHY, 900, 5.0),
        (Phase.WATCHING, Health.UNKNOWN, 900, 5.0),
        (Phase.WATCHING, Health.SUSPECT, 1, 1.0),
        (Phase.WATCHING, Health.DEGRADED, 900, 5.0),
        (Phase.WATCHING, Health.FAILED, 10, 5.0),
        (Phase.WATCHING, Health.FAILED, 301, 30.0),
        (Phase.QUARANTINED, Health.FAILED, 301, 30.0),
        (Phase.VERIFYING, Health.UNKNOWN, 0, 0.05),
        (Phase.VERIFYING, Health.UNKNOWN, 0.5, 0.5),
        (Phase.VERIFYING, Health.FAILED, 400, 1.0),
    ],
)
def test_cadence(phase: Phase, health: Health, for_s: float, expected_s: float) -> None:
    now = Instant(1000.0)
    assert interval_s(5.0, Policy(), phase, health, Instant(now - for_s), now) == expected_s
