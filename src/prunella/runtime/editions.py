"""Which of a platform's versions is which of the source's that a service's releases come from."""

from __future__ import annotations

from prunella.core.model import Status

_KEPT = 64  # versions of the source, of which what ran for them is remembered


class Editions:
    """Learns what the platform calls a version, from seeing both at once.

    Of each version of the source, what was seen with it last counts: right after a deployment the
    platform runs the one before still.
    """

    __slots__ = ("_editions",)

    def __init__(self) -> None:
        self._editions: dict[str, str] = {}

    def translate(self, status: Status, version: str, *, restarts: bool) -> Status:
        """The status in the source's words; an instance of an unknown one keeps its platform's.

        Args:
            restarts: instances run what is deployed once they are restarted, and nobody knows
                which of them has been.
        """
        if restarts:
            instances = tuple(one._replace(revision="") for one in status.instances)
            return status._replace(revision=version, instances=instances)
        if status.revision:
            self._learn(version, status.revision)
        # The later ones win, and the present one before all.
        versions = {edition: one for one, edition in self._editions.items()}
        instances = tuple(
            one._replace(revision=versions.get(one.revision, one.revision))
            for one in status.instances
        )
        return status._replace(revision=version, instances=instances)

    def _learn(self, version: str, edition: str) -> None:
        self._editions.pop(version, None)
        self._editions[version] = edition
        if len(self._editions) > _KEPT:
            del self._editions[next(iter(self._editions))]
