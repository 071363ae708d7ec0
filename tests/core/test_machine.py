"""The table of the healing machine, as a whole."""

from collections import deque

import pytest

from prunella.core.machine import TRANSITIONS, Event, IllegalTransition, Phase, step


def reachable(start: Phase) -> set[Phase]:
    seen, queue = {start}, deque([start])
    while queue:
        here = queue.popleft()
        for (source, _), target in TRANSITIONS.items():
            if source is here and target not in seen:
                seen.add(target)
                queue.append(target)
    return seen


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_is_reachable_and_leads_back_to_watching(phase: Phase) -> None:
    assert phase in reachable(Phase.WATCHING)
    assert Phase.WATCHING in reachable(phase)


def test_every_event_is_used() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_nothing_begins_an_action_while_another_one_runs() -> None:
    for phase in (Phase.ACTING, Phase.VERIFYING):
        assert (phase, Event.CONFIRMED) not in TRANSITIONS
        assert (phase, Event.FORCED) not in TRANSITIONS


def test_a_missing_row_is_loud() -> None:
    with pytest.raises(IllegalTransition, match="watching has no transition on executed"):
        step(Phase.WATCHING, Event.EXECUTED)
