"""What the healers of single services must know of each other: storms, pace, and blindness."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from prunella.core.fleet import CALM, FleetView, Storm, helped, weather, worsened
from prunella.core.model import Health, Instant, ServiceId
from prunella.core.policy import BURST, FleetPolicy, Need
from prunella.runtime.dependencies import Dependencies

_UNWELL = (Health.DEGRADED, Health.FAILED)


@dataclass(slots=True)
class _Domain:
    """A failure domain: services that can fail together."""

    members: set[ServiceId] = field(default_factory=set[ServiceId])
    failed: dict[ServiceId, Instant] = field(default_factory=dict[ServiceId, Instant])
    recent_count: int = 0  # of those failed, how many are still among the onsets
    onsets: deque[tuple[Instant, ServiceId]] = field(
        default_factory=deque[tuple[Instant, ServiceId]]
    )
    acting: dict[ServiceId, Instant] = field(default_factory=dict[ServiceId, Instant])
    storm: Storm = CALM


class Fleet:
    """Counts over all services, kept up to date by each service's engine as it changes.

    Attributes:
        started: when the newest actions began, newest first.
        doubt: why our own sight is poor now; empty when it is good.
        lease: why our hold of the store is not to be trusted now; empty when it is.
        dependencies: who needs whom.
    """

    def __init__(self, policy: FleetPolicy) -> None:
        self.policy = policy
        self.started: deque[Instant] = deque(maxlen=BURST)
        self.doubt = ""
        self.lease = ""
        self._domains: dict[str, _Domain] = {}
        self._domain_of: dict[ServiceId, _Domain] = {}
        self._unwell: set[ServiceId] = set()
        self._blind: set[ServiceId] = set()
        self.dependencies = Dependencies()

    def join(self, service: ServiceId, domain: str, needs: Sequence[Need] = ()) -> None:
        self.dependencies.join(service, needs)
        place = self._domains.setdefault(domain, _Domain())
        place.members.add(service)
        self._domain_of[service] = place

    def leave(self, service: ServiceId) -> None:
        place = self._domain_of.pop(service)
        place.members.discard(service)
        self._well_again(place, service)
        place.acting.pop(service, None)
        self._unwell.discard(service)
        self._blind.discard(service)
        self.dependencies.leave(service)

    def believe(self, service: ServiceId, health: Health, now: Instant) -> bool:
        """Take in a changed belief. True when this began a storm."""
        (self._unwell.add if health in _UNWELL else self._unwell.discard)(service)
        place = self._domain_of[service]
        if health is not Health.FAILED:
            self._well_again(place, service)
            return False
        if service not in place.failed:
            place.failed[service] = now
            place.onsets.append((now, service))
            place.recent_count += 1
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
        self._domain_of[service].acting[service] = now
        self.dependencies.heal(service, healing=True)

    def resumed(self, service: ServiceId, began: Instant) -> None:
        """An action of an earlier run of Prunella is still open."""
        self._domain_of[service].acting[service] = began
        self.dependencies.heal(service, healing=True)

    def ended(self, service: ServiceId, now: Instant, *, success: bool) -> None:
        self.dependencies.heal(service, healing=False)
        place = self._domain_of[service]
        began = place.acting.pop(service, now)
        if not success:
            place.storm = worsened(place.storm, now)
        elif place.storm.since is not None and began > place.storm.since:
            place.storm = helped(place.storm)

    def view(self, service: ServiceId, now: Instant) -> FleetView:
        place = self._domain_of[service]
        self._judge(place, now)
        return FleetView(
            total=len(self._domain_of),
            unwell=len(self._unwell),
            blind=len(self._blind),
            storm=place.storm,
            domain_running=len(place.acting) - (service in place.acting),
            doubt=self.doubt,
            lease=self.lease,
        )

    @property
    def storms(self) -> tuple[str, ...]:
        """The failure domains in which a storm is on."""
        return tuple(name for name, d in self._domains.items() if d.storm.since is not None)

    def _well_again(self, place: _Domain, service: ServiceId) -> None:
        onset = place.failed.pop(service, None)
        if onset is not None and place.onsets and onset >= place.onsets[0][0]:
            place.recent_count -= 1

    def _judge(self, place: _Domain, now: Instant) -> None:
        horizon = now - self.policy.storm_window_s
        while place.onsets and place.onsets[0][0] < horizon:
            onset, service = place.onsets.popleft()
            place.recent_count -= place.failed.get(service) == onset
        place.storm = weather(
            place.storm,
            len(place.members),
            len(place.failed),
            place.recent_count,
            now,
            self.policy,
        )
