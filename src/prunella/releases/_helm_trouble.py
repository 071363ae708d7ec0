"""Why helm has failed, and what a person can do about it."""

from __future__ import annotations

from prunella.argv import Completed, lines
from prunella.errors import PermanentError, TransientError

_ADVICE = "; give that right, or name another `driver`"
_SCALED = (
    "; Prunella has scaled it, which Helm 4 does not override: `prunella debt` says when it is "
    "taken back; leave `replicas` out of a chart whose number others set"
)
_SAID = "Error: "


class HelmBusyError(TransientError):
    """Another helm was quicker, and is at work: nothing was done."""


def judged(verb: str, words: str, driver: str, done: Completed) -> PermanentError | TransientError:
    """The error that an exit code means.

    Args:
        words: what it was about.
        driver: where Helm looked for its history.
    """
    said = complaint(done.errors) or f"exit code {done.exit_code}"
    whole = f"helm {verb} of {words}: {said}"
    if "release: not found" in said:
        return PermanentError(
            f"there is no {words} (driver {driver}): `helm list --all` shows those that there are"
        )
    if "is forbidden" in said or "forbidden:" in said:
        return PermanentError(whole + (_ADVICE if f"{driver}s" in said else ""))
    if "context" in said and "does not exist" in said:
        return PermanentError(f"{whole}: `kubectl config get-contexts` shows those that there are")
    if "has no " in said and " version" in said:
        return PermanentError(f"{whole}: its history was cut off meanwhile (--history-max)")
    if "already exists" in said or "another operation" in said:
        return HelmBusyError(whole)
    if b'conflict with "prunella"' in done.errors:
        return TransientError(whole + _SCALED)
    return TransientError(whole)


def complaint(errors: bytes) -> str:
    """The line of helm's that says most about what went wrong; empty if none does."""
    said = lines(errors)
    causes = [line.removeprefix(_SAID) for line in said if line.startswith(_SAID)]
    return (causes or said)[-1] if said else ""
