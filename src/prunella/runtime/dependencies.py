"""Who needs whom, and how each of them is now: so that causes are healed before their victims."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from prunella.core.model import Health, Instant, ServiceId
from prunella.core.policy import Need
from prunella.core.snapshot import Dependency

_UNWELL = (Health.DEGRADED, Health.FAILED)


@dataclass(slots=True)
class _State:
    health: Health = Health.UNKNOWN
    healing: bool = False
    open_since: Instant | None = None


class Dependencies:
    """Kept up to date by each service's engine as it changes; services may come in any order."""

    def __init__(self) -> None:
        self._needs: dict[ServiceId, Sequence[Need]] = {}
        self._needed_by: dict[ServiceId, list[ServiceId]] = {}  # that could live without it
        self._victims: dict[ServiceId, list[ServiceId]] = {}
        self._states: defaultdict[ServiceId, _State] = defaultdict(_State)

    def join(self, service: ServiceId, needs: Sequence[Need]) -> None:
        if needs:
            self._needs[service] = needs
            self._turn_round()

    def leave(self, service: ServiceId) -> None:
        self._states.pop(service, None)
        if self._needs.pop(service, None) is not None:
            self._turn_round()

    def believe(self, service: ServiceId, health: Health) -> None:
        self._states[service].health = health

    def heal(self, service: ServiceId, *, healing: bool) -> None:
        """An action on it has begun, or has ended."""
        self._states[service].healing = healing

    def open(self, service: ServiceId, since: Instant | None) -> None:
        """Its circuit is open since then, or (None) closed again."""
        state = self._states[service]
        if since is None or state.open_since is None:
            state.open_since = since

    def of(self, service: ServiceId) -> tuple[Dependency, ...]:
        """What a service needs, as it is now."""
        needs = self._needs.get(service)
        if not needs:
            return ()
        found: list[Dependency] = []
        for need in needs:
            state = self._states[need.service]
            found.append(
                Dependency(
                    need.service, need.optional, state.health, state.healing, state.open_since
                )
            )
        return tuple(found)

    def explains(self, service: ServiceId) -> bool:
        """Whether something that it cannot do without now has failed, or is being healed."""
        for need in self._needs.get(service, ()):
            state = self._states[need.service]
            in_trouble = state.health is Health.FAILED or state.healing
            if in_trouble and not (need.optional and state.open_since is not None):
                return True
        return False

    def victims(self, service: ServiceId) -> tuple[ServiceId, ...]:
        """Services that need this one."""
        return tuple(self._victims.get(service, ()))

    def dispensable_to(self, service: ServiceId) -> tuple[ServiceId, ...]:
        """Services that need this one, and could live without it."""
        return tuple(self._needed_by.get(service, ()))

    def hurt(self, service: ServiceId) -> tuple[ServiceId, ...]:
        """Services that are unwell, need this one, and could live without it."""
        return tuple(
            victim
            for victim in self._needed_by.get(service, ())
            if self._states[victim].health in _UNWELL
        )

    def _turn_round(self) -> None:
        self._needed_by, self._victims = {}, {}
        for service, needs in self._needs.items():
            for need in needs:
                self._victims.setdefault(need.service, []).append(service)
                if need.optional:
                    self._needed_by.setdefault(need.service, []).append(service)
