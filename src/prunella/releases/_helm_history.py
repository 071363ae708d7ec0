"""What a history of Helm's means: what is deployed, what can be gone back to, who came between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.releases._helm import Helm, Revision


class Standing(NamedTuple):
    """What is deployed now.

    Attributes:
        newest: of the history; not what is deployed if it failed to bring back an older version.
        whole: all of it is in place, as far as Helm knows.
    """

    version: str
    newest: Revision
    whole: bool


async def standing(helm: Helm, history: Sequence[Revision]) -> Standing:
    """Raises: TransientError, PermanentError: helm cannot tell."""
    newest, *older = history
    version = await helm.version(newest)
    if newest.status == "failed" and await _kept(helm, older, version) is not None:
        return (await standing(helm, older))._replace(newest=newest, whole=False)
    return Standing(version, newest, newest.status == "deployed")


async def target(helm: Helm, history: Sequence[Revision], version: str) -> Revision:
    """The newest revision of a version that was in place.

    Raises: PermanentError: none is kept.
    """
    found = await _kept(helm, history, version)
    if found is None:
        raise PermanentError(
            f"{version} is not in the history of {helm.words} (any more): it cannot be rolled "
            "back to; `--history-max` of helm upgrade says how much of it is kept"
        )
    return found


def must_be_free(helm: Helm, history: Sequence[Revision], waited_s: float) -> None:
    """Raises: TransientError: another helm is at work, or was killed.

    A rollback that was cut short may be done once more, if it led to where we want to go.
    """
    newest = history[0]
    if not newest.is_pending or newest.status == "pending-rollback":
        return
    good = next((one.number for one in history if one.was_in_place), "REVISION")
    raise TransientError(
        f"revision {newest.number} of {helm.words} has been {newest.status} for {waited_s:g} s: "
        "nothing is done beside another helm. If none runs any more, put it right: "
        f"{helm.command.format(good)}"
    )


async def must_follow(
    helm: Helm, history: Sequence[Revision], before: Revision, version: str
) -> None:
    """Helm knows no precondition: what came between can be noticed, and not be prevented.

    Raises: ConflictError: a revision of somebody else did, and ours is over it.
    """
    for one in history:
        if one.number <= before.number or await helm.version(one) == version:
            continue
        raise ConflictError(
            f"somebody has deployed revision {one.number} of {helm.words} at the moment of the "
            f"rollback, which is revision {history[0].number}: to have theirs back, "
            f"{helm.command.format(one.number)}"
        )


async def _kept(helm: Helm, history: Sequence[Revision], version: str) -> Revision | None:
    for one in history:
        if one.was_in_place and await helm.version(one) == version:
            return one
    return None
