"""What the healers of single services must know of each other: storms, pace, and blindness."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from prunella.core.fleet import CALM, FleetView, Storm, helped, weather, worsened
from prunella.core.model import Health, Instant, ServiceId
from prunella.core.policy import FleetPolicy

_UNWELL = (Health.DEGRADED, Health.FAILED)


@dataclass(slots=True)
class _Domain:
    """A failure domain: services that can fail together."""

    members: set[ServiceId] = field(default_factory=set[ServiceId])
    failed: dict[ServiceId, Instant] = field(default_factory=dict[ServiceId, Instant])
    onsets: deque[tuple[Instant, ServiceId]] = field(
        default_factory=deque[tuple[Instant, ServiceId]]
    )
    acting: set[ServiceId] = field(default_factory=set[ServiceId])
    storm: Storm = CALM


class Fleet:
    """Counts over all services, kept up to date by each service's engine as it changes.

    Attributes:
        started: when the newest actions began, newest first.
        doubt: why our own sight is poor now; empty when it is good.
        lease: why our hold of the store is not to be trusted now; empty when it is.
    """

    def __init__(self, policy: FleetPolicy) -> None:
        self.policy = policy
        self.started: deque[Instant] = deque(maxlen=16)
        self.doubt = ""
        self.lease = ""
        self._domains: dict[str, _Domain] = {}
        self._domain_of: dict[ServiceId, _Domain] = {}
        self._unwell: set[ServiceId] = set()
        self._blind: set[ServiceId] = set()

    def join(self, service: ServiceId, domain: str) -> None:
        place = self._domains.setdefault(domain, _Domain())
        place.members.add(service)
        self._domain_of[service] = place

    def leave(self, service: ServiceId) -> None:
        place = self._domain_of.pop(service)
        place.members.discard(service)
        place.failed.pop(service, None)
        place.acting.discard(service)
        self._unwell.discard(service)
        self._blind.discard(service)

    def believe(self, service: ServiceId, health: Health, now: Instant) -> bool:
        """Take in a changed belief. True when this began a storm."""
        (self._unwell.add if health in _UNWELL else self._unwell.discard)(service)
        place = self._domain_of[service]
        if health is not Health.FAILED:
            place.failed.pop(service, None)
            return False
        if service not in place.failed:
            place.failed[service] = now
            place.onsets.append((now, service))
            place.storm = worsened(place.storm, now)
        was_calm = place.storm.since is None
        self._judge(place, now)
        return was_calm and place.storm.since is not None

    def sight(self, service: ServiceId, *, blind: bool) -> None:
        """Say whether a service can be seen at all."""
        (self._blind.add if blind else self._blind.discard)(service)

    def acting(self, service: ServiceId, now: Instant) -> None:
        """An action has begun."""
        self.started.appendleft(now)
        self._domain_of[service].acting.add(service)

    def resumed(self, service: ServiceId) -> None:
        """An action of an earlier run of Prunella is still open."""
        self._domain_of[service].acting.add(service)

    def ended(self, service: ServiceId, now: Instant, *, success: bool) -> None:
        place = self._domain_of[service]
        place.acting.discard(service)
        place.storm = helped(place.storm) if success else worsened(place.storm, now)

    def view(self, service: ServiceId, now: Instant) -> FleetView:
        place = self._domain_of[service]
        self._judge(place, now)
        return FleetView(
            total=len(self._domain_of),
            unwell=len(self._unwell),
            blind=len(self._blind),
            storm=place.storm,
            domain_running=len(place.acting - {service}),
            doubt=self.doubt,
            lease=self.lease,
        )

    @property
    def storms(self) -> tuple[str, ...]:
        """The failure domains in which a storm is on."""
        return tuple(name for name, d in self._domains.items() if d.storm.since is not None)

    def _judge(self, place: _Domain, now: Instant) -> None:
        horizon = now - self.policy.storm_window_s
        while place.onsets and place.onsets[0][0] < horizon:
            place.onsets.popleft()
        if place.storm.since is None and len(place.onsets) < self.policy.storm_services:
            return
        recent = sum(1 for at in place.failed.values() if at >= horizon)
        place.storm = weather(
            place.storm, len(place.members), len(place.failed), recent, now, self.policy
        )
