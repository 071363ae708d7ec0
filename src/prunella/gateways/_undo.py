"""What fails half-way is taken back, and what it failed of is what is told."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from prunella.errors import PrunellaError, TransientError


@contextmanager
def undone_by(undo: Callable[[], None]) -> Generator[None]:
    """Call `undo` if what is done within fails or is cancelled.

    Expected trouble in undoing is noted on the first error and does not take its place.
    """
    try:
        yield
    except BaseException as error:
        try:
            undo()
        except (PrunellaError, OSError) as trouble:
            error.add_note(f"it could not be undone either: {trouble}")
        raise


def all_done(steps: Iterable[Callable[[], None]]) -> None:
    """Take every step, also after one has failed.

    Raises: TransientError: with the words of all that have failed.
    """
    troubles: list[str] = []
    for step in steps:
        try:
            step()
        except (PrunellaError, OSError) as trouble:
            troubles.append(str(trouble))
    if troubles:
        raise TransientError("; ".join(troubles))
