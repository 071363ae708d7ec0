"""A failure that spreads is cut off where others can live without what fails."""

from prunella.core.model import Mode
from prunella.simulate.cascade import cascade


async def test_users_meet_a_twentieth_of_the_failures() -> None:
    without, with_ours = await cascade(Mode.OFF), await cascade(Mode.AUTO)
    assert without.requests == with_ours.requests
    assert without.failed > 0.99 * 300 / 0.05
    assert with_ours.failed < without.failed / 20


async def test_observing_changes_nothing_for_them() -> None:
    assert await cascade(Mode.OBSERVE) == await cascade(Mode.OFF)
