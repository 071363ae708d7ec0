"""What failed first is what is told, whatever becomes of taking it back."""

from __future__ import annotations

import asyncio

import pytest

from prunella.errors import TransientError
from prunella.gateways._undo import undone_by


def full_disk() -> None:
    raise TransientError("the disk is full")


@pytest.mark.parametrize("first", [TransientError("no answer"), asyncio.CancelledError()])
def test_trouble_in_undoing_is_noted_and_hides_nothing(first: BaseException) -> None:
    with pytest.raises(type(first)) as caught, undone_by(full_disk):
        raise first
    assert caught.value is first
    assert caught.value.__notes__ == ["it could not be undone either: the disk is full"]


def test_nothing_is_undone_of_what_worked() -> None:
    with undone_by(full_disk):
        pass
