"""What the healers of single services must know of each other: storms, pace, and blindness."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from prunella.core.fleet import (
    AT_ONCE_S,
    CALM,
    FleetView,
    Loss,
    Storm,
    Toll,
    helped,
    is_many,
    weather,
    worsened,
)
from prunella.core.model import Health, Instant, ServiceId
from prunella.core.policy import BURST, FleetPolicy, Need
from prunella.runtime.dependencies import Dependencies

_UNWELL = (Health.DEGRADED, Health.FAILED)


class _Onsets:
    """The services that something is the case with, and how many of them it is new for."""

    def __init__(self) -> None:
        self.since: dict[ServiceId, Instant] = {}
        self._recent: dict[ServiceId, Instant] = {}  # the oldest first

    def begin(self, service: ServiceId, now: Instant) -> bool:
        """True when it is new."""
        if service in self.since:
            return False
        self.since[service] = self._recent[service] = now
        return True

    def end(self, service: ServiceId) -> None:
        self.since.pop(service, None)
        self._recent.pop(service, None)

    def recent(self, now: Instant, window_s: float) -> int:
        horizon = now - window_s
        while (first := next(iter(self._recent), None)) and self._recent[first] < horizon:
            del self._recent[first]
        return len(self._recent)


class _Domain:
    """A failure domain: services that can fail together."""

    def __init__(self) -> None:
        self.members: set[ServiceId] = set()
        self.failed = _Onsets()
        self.short = _Onsets()  # of an instance at least
        self.acting: dict[ServiceId, Instant] = {}
        self.storm: Storm = CALM

    def judge(self, now: Instant, policy: FleetPolicy) -> None:
        toll = Toll(
            len(self.members),
            len(self.failed.since),
            self.failed.recent(now, policy.storm_window_s),
            self.short.recent(now, AT_ONCE_S),
        )
        self.storm = weather(self.storm, toll, now, policy)

    def explain(self, before: int, policy: FleetPolicy) -> None:
        """It was no storm, if what is left of so many that had lost something is not many."""
        total = len(self.members)
        if is_many(before, total, policy) and not is_many(len(self.short.since), total, policy):
            self.storm = CALM


@dataclass(slots=True)
class _Member:
    """One service; ``healing``: of what ails it, which is not over before that is proven."""

    domain: _Domain
    health: Health = Health.UNKNOWN
    loss: Loss = Loss.NONE
    healing: bool = False


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
        self._members: dict[ServiceId, _Member] = {}
        self._unwell: set[ServiceId] = set()
        self._blind: set[ServiceId] = set()
        self.dependencies = Dependencies()

    def join(self, service: ServiceId, domain: str, needs: Sequence[Need] = ()) -> None:
        self.dependencies.join(service, needs)
        place = self._domains.setdefault(domain, _Domain())
        place.members.add(service)
        self._members[service] = _Member(place)

    def leave(self, service: ServiceId) -> None:
        place = self._members.pop(service).domain
        place.members.discard(service)
        place.failed.end(service)
        place.short.end(service)
        place.acting.pop(service, None)
        self._unwell.discard(service)
        self._blind.discard(service)
        self.dependencies.leave(service)

    def believe(self, service: ServiceId, health: Health, loss: Loss, now: Instant) -> bool:
        """Take in a changed belief. True when this began a storm."""
        member = self._members[service]
        has_just_failed = health is Health.FAILED and member.health is not Health.FAILED
        member.health, member.loss = health, loss
        was_calm = member.domain.storm.since is None
        self._count(service, member, now)
        if has_just_failed:
            self._explain(service, now)
        return was_calm and member.domain.storm.since is not None

    def sight(self, service: ServiceId, *, blind: bool) -> None:
        """Say whether a service can be seen at all."""
        (self._blind.add if blind else self._blind.discard)(service)

    def acting(self, service: ServiceId, now: Instant, *, healing: bool) -> None:
        """An action has begun; ``healing``: as a remedy for what ails the service."""
        self.started.appendleft(now)
        self.resumed(service, now, healing=healing)

    def resumed(self, service: ServiceId, began: Instant, *, healing: bool) -> None:
        """An action of an earlier run of Prunella is still open."""
        member = self._members[service]
        member.domain.acting[service] = began
        member.healing = healing
        self._count(service, member, began)
        self.dependencies.heal(service, healing=True)
        self._explain(service, began)

    def ended(self, service: ServiceId, now: Instant, *, success: bool) -> None:
        self.dependencies.heal(service, healing=False)
        member = self._members[service]
        place = member.domain
        member.healing = False
        self._count(service, member, now)
        began = place.acting.pop(service, now)
        if not success:
            place.storm = worsened(place.storm, now)
        elif place.storm.since is not None and began > place.storm.since:
            place.storm = helped(place.storm)

    def view(self, service: ServiceId, now: Instant) -> FleetView:
        place = self._members[service].domain
        place.judge(now, self.policy)
        return FleetView(
            total=len(self._members),
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

    def _count(self, service: ServiceId, member: _Member, now: Instant) -> None:
        unwell = member.health in _UNWELL or member.healing
        (self._unwell.add if unwell else self._unwell.discard)(service)
        place, began = member.domain, False
        explained = self.dependencies.explains(service)
        for onsets, least in ((place.short, Loss.PART), (place.failed, Loss.HALF)):
            if explained:
                onsets.end(service)
            elif member.loss >= least:
                began |= onsets.begin(service, now)
            elif not member.healing:
                onsets.end(service)
        if began:
            if member.loss is Loss.HALF:
                place.storm = worsened(place.storm, now)
            place.judge(now, self.policy)

    def _explain(self, cause: ServiceId, now: Instant) -> None:
        """What those that need it have lost is its fault, and no sign of anything wider.

        It stays explained once the cause is well, until their own belief changes.
        """
        victims = [one for one in self.dependencies.victims(cause) if one in self._members]
        places = {self._members[victim].domain for victim in victims}
        before = {place: len(place.short.since) for place in places}
        for victim in victims:
            self._count(victim, self._members[victim], now)
        for place, count in before.items():
            place.explain(count, self.policy)
