"""What stands against a switch, in the words of this project."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from prunella.errors import ConflictError, PermanentError, TransientError


def judge(deployed: str, revision: str, before: str) -> bool:
    """Whether `revision` is deployed already.

    Raises:
        ConflictError: neither that one nor `before` is.
    """
    if deployed not in (revision, before):
        raise ConflictError(
            f"{deployed} has been deployed meanwhile, in place of {before}: it is left as it is"
        )
    return deployed == revision


@contextmanager
def explained(what: str) -> Generator[None]:
    """Say trouble with files in the words of this project."""
    try:
        yield
    except (PermissionError, NotADirectoryError) as error:
        raise PermanentError(f"{what}: {error.strerror}") from error
    except OSError as error:
        raise TransientError(f"{what}: {error.strerror}") from error
