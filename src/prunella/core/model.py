"""The immutable values that the whole of Prunella speaks in: no behaviour, no I/O, no clock.

Values made once per observation are ``NamedTuple`` (three times as fast to make as a frozen
dataclass); values made once per decision or per action are frozen dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, NewType

ServiceId = NewType("ServiceId", str)
InstanceId = NewType("InstanceId", str)  # one replica of a service, stable over its restarts
ActionId = NewType("ActionId", int)  # the sequence number of the intent; orders history
IncidentId = NewType("IncidentId", str)
Instant = NewType("Instant", float)  # seconds on this boot's monotonic clock; see Stamp
Epoch = NewType("Epoch", int)  # fencing token of the lease under which an effect runs


class Stamp(NamedTuple):
    """A moment as it is stored: comparable after a restart of Prunella or of the machine.

    ``wall`` is for people and for moments of another boot; durations within one boot are taken
    from ``instant`` alone, so that a jump of the wall clock neither shortens nor stretches them.
    """

    wall: datetime
    instant: Instant
    boot: str


class Verdict(StrEnum):
    """What one measurement says. INCONCLUSIVE is the prober's trouble, never the target's."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Cause(StrEnum):
    """Why an observation failed; what tells down from hung from erroring."""

    REFUSED = "refused"  # nobody listens, or the process is not there
    TIMEOUT = "timeout"  # somebody is there and does not answer in time
    ERROR = "error"  # it answers, and the answer is wrong
    SATURATED = "saturated"  # a resource is above its limit (CPU, memory, descriptors)


class Observation(NamedTuple):
    """One measurement by one probe. ``cause`` is set exactly when the verdict is FAIL."""

    verdict: Verdict
    at: Instant
    latency_s: float
    cause: Cause | None = None
    detail: str = ""


class Health(StrEnum):
    """What we believe of a service: folded from observations and facts, never set by hand."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    DEGRADED = "degraded"
    FAILED = "failed"


class SymptomKind(StrEnum):
    """What is wrong, in the words of the ladder."""

    DOWN = "down"
    HUNG = "hung"
    ERRORING = "erroring"
    SLOW = "slow"
    FLAPPING = "flapping"


@dataclass(frozen=True, slots=True)
class Symptom:
    """A confirmed fault. ``factual``: known from an exit, not inferred from samples."""

    kind: SymptomKind
    severity: Health
    since: Instant
    evidence: str
    factual: bool = False


class ActionKind(StrEnum):
    """What a platform, a gateway or a release source can do to a service."""

    RESTART = "restart"
    SCALE_UP = "scale-up"
    ROLLBACK = "rollback"
    CIRCUIT_BREAK = "circuit-break"


@dataclass(frozen=True, slots=True)
class Action:
    """An absolute target, so that it can be read back and adopted, never "one more time".

    Attributes:
        instance: the replica to act on; None for the service as a whole.
        identity: a restart replaces the run that had this identity (see ``Instance.identity``);
            once another run is there, the action has been carried out, whoever did it.
        replicas: the wanted number, for scaling.
        revision: the wanted version, for a rollback.
    """

    kind: ActionKind
    service: ServiceId
    instance: InstanceId | None = None
    identity: str = ""
    replicas: int | None = None
    revision: str | None = None


class InstanceState(StrEnum):
    RUNNING = "running"
    EXITED = "exited"  # ended by itself: a fault
    STOPPED = "stopped"  # ended by somebody's wish: not a fault


class Instance(NamedTuple):
    """One replica as the platform sees it now.

    ``identity`` names this run and no other one, for example pid, start time and boot; it is
    empty where the platform cannot tell two runs apart.
    """

    id: InstanceId
    state: InstanceState
    identity: str = ""
    detail: str = ""
    pids: tuple[int, ...] = ()


class Status(NamedTuple):
    """All replicas of a service as its platform sees them now, and how many there should be."""

    instances: tuple[Instance, ...]
    desired: int
    revision: str | None = None


class FactKind(StrEnum):
    EXITED = "exited"
    STARTED = "started"


class Fact(NamedTuple):
    """Something that a platform knows for certain and says without being asked."""

    kind: FactKind
    instance: InstanceId
    at: Instant
    detail: str = ""


class Mode(StrEnum):
    """What Prunella may do to a service by itself."""

    AUTO = "auto"
    OBSERVE = "observe"  # decide and record, act never
    OFF = "off"  # watch only


@dataclass(frozen=True, slots=True)
class Hold:
    """A pause: an overlay with an owner and a reason, never a phase. ``service`` None: all."""

    service: ServiceId | None
    owner: str
    reason: str
    placed: Stamp
    expires: Stamp | None = None


class Outcome(StrEnum):
    """How an action ended; only RECOVERED is success."""

    RECOVERED = "recovered"
    INEFFECTIVE = "ineffective"
    RELAPSED = "relapsed"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    OBSERVED = "observed"
    CANCELLED = "cancelled"
