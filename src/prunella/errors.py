"""Expected kinds of trouble. Defects (``IllegalTransition`` and the like) are not here."""

from __future__ import annotations


class PrunellaError(Exception):
    """Root of all trouble that a caller may expect and handle."""


class TransientError(PrunellaError):
    """It may work later: a target that cannot be read now, a full disk, a busy store."""


class PermanentError(PrunellaError):
    """It will not work until somebody changes something: a command that does not exist."""


class StoreError(PermanentError):
    """The store cannot be used: corrupt, unreadable, or written by a newer version."""


class StoreInUseError(StoreError):
    """Another daemon holds the store; the message names it."""


class ConflictError(PermanentError):
    """Somebody else has changed the target meanwhile: their change wins, nothing was done."""


class StaleEpochError(PermanentError):
    """Another holder has claimed the store since: this one must not write any more."""


class UnknownServiceError(PermanentError):
    """No service of that id is registered."""


class UnknownWordError(PermanentError):
    """An order names an action or a guard that there is not."""


class CircuitOpenError(PrunellaError):
    """A call was not made: the circuit of what it would call is open.

    Attributes:
        retry_after_s: when to try again at the latest; it may close earlier.
        body: what the service's configuration says to callers.
    """

    def __init__(self, service: str, retry_after_s: float, body: str = "") -> None:
        super().__init__(body or f"the circuit of {service} is open for {retry_after_s:.0f} s")
        self.service = service
        self.retry_after_s = retry_after_s
        self.body = body


class HealingRefusedError(PrunellaError):
    """Guards refused a forced heal. ``vetoes``: guard name to its reason."""

    def __init__(self, message: str, vetoes: dict[str, str]) -> None:
        super().__init__(message)
        self.vetoes = vetoes
