"""A version proves something only once all instances run it, and are well by their own check."""

from __future__ import annotations

import pytest

from prunella.core.model import Instance, InstanceId, InstanceState, Status, Verdict
from prunella.core.progress import is_borne

RUNNING, EXITED = InstanceState.RUNNING, InstanceState.EXITED


def one(
    name: str,
    revision: str = "v2",
    verdict: Verdict | None = None,
    state: InstanceState = RUNNING,
) -> Instance:
    return Instance(InstanceId(name), state, revision=revision, verdict=verdict)


@pytest.mark.parametrize(
    ("instances", "borne"),
    [
        ([one("a"), one("b")], True),
        ([one("a", ""), one("b", "")], True),  # its platform does not know single versions
        ([one("a"), one("b"), one("c", "v1")], True),  # the last old one is on its way out
        ([one("a")], False),
        ([one("a"), one("b", "v1")], False),
        ([one("a"), one("b", state=EXITED)], False),
        ([one("a", verdict=Verdict.PASS), one("b", verdict=Verdict.PASS)], True),
        ([one("a", verdict=Verdict.PASS), one("b")], False),  # has not said yet
        ([one("a", verdict=Verdict.PASS), one("b", verdict=Verdict.FAIL)], False),
    ],
)
def test_what_bears_a_version(instances: list[Instance], *, borne: bool) -> None:
    assert is_borne(Status(tuple(instances), desired=2, revision="v2")) is borne


def test_a_rollout_that_never_comes_up_beside_what_is_well_proves_nothing() -> None:
    well = [one("a", "v1", Verdict.PASS), one("b", "v1", Verdict.PASS)]
    assert not is_borne(Status((*well, one("c")), desired=2, revision="v2"))


def test_a_version_that_is_not_all_in_place_proves_nothing() -> None:
    assert not is_borne(Status((one("a"), one("b")), desired=2, revision="v2", whole=False))
