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


class Traffic(NamedTuple):
    """What real requests have met: totals since the gateway began to count.

    Totals that have become smaller mean that it began anew, and nothing else.

    Attributes:
        at: when they were read.
        requests: those that have ended, whatever their end; turned away ones are not among them.
        failed: those among them that were answered with 5xx, or not at all.
        unconnected: attempts to connect to a server that failed.
        turned_away: requests that a circuit has answered instead of the service.
        in_flight: requests under way now, or on average since the last reading, where the
            gateway tells only those that have ended.
        p50_s, p95_s, p99_s, mean_s: how long the recent ones took; None where the gateway does
            not tell it.
    """

    at: Instant
    requests: int = 0
    failed: int = 0
    unconnected: int = 0
    turned_away: int = 0
    in_flight: int = 0
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    mean_s: float | None = None


class Observation(NamedTuple):
    """One measurement by one probe. ``cause`` is set exactly when the verdict is FAIL."""

    verdict: Verdict
    at: Instant
    latency_s: float
    cause: Cause | None = None
    detail: str = ""
    load: float | None = None  # share of its limit that a measured resource is at; 1.0: all of it
    traffic: Traffic | None = None  # what real requests have met; None: the probe does not know


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
    """A confirmed fault.

    Attributes:
        factual: known from an exit, not inferred from samples.
        saturated: a resource is at its limit; what is slow is slow because of load.
        instances: those that are sick, where that is known; empty for the service as a whole.
        partial: these instances have failed, and others have not.
        blames_version: its platform knows that it comes with the version that they run.
    """

    kind: SymptomKind
    severity: Health
    since: Instant
    evidence: str
    factual: bool = False
    saturated: bool = False
    instances: tuple[InstanceId, ...] = ()
    partial: bool = False
    blames_version: bool = False


class ActionKind(StrEnum):
    """What a platform, a gateway or a release source can do to a service."""

    RESTART = "restart"
    SCALE_UP = "scale-up"
    SCALE_DOWN = "scale-down"  # takes a scale-up back; never a remedy
    ROLLBACK = "rollback"
    CIRCUIT_BREAK = "circuit-break"  # lets fewer requests through, to the service or one instance
    CIRCUIT_CLOSE = "circuit-close"  # takes a circuit-break back, step by step; never a remedy


class Scope(StrEnum):
    """In which pieces a platform carries out a kind of action."""

    INSTANCE = "instance"  # one instance a call; the next one is asked for when that one is proven
    SERVICE = "service"  # all of it in one call; the platform itself goes one by one


class Run(NamedTuple):
    """One run of one instance; see ``Instance.identity``."""

    instance: InstanceId
    identity: str


@dataclass(frozen=True, slots=True)
class Action:
    """An absolute target, so that it can be read back and adopted, never "one more time".

    Attributes:
        instance: the replica to act on; None for the service as a whole.
        identity: a restart replaces the run that had this identity (see ``Instance.identity`` and
            ``Status.identity``); once another run is there, the action has been carried out,
            whoever did it.
        replicas: the wanted number, for scaling.
        share: percent of its requests that the service, or the instance, gets from then on.
        revision: the wanted version, for a rollback.
        before: the number, the version or the share that it starts from. Where neither that nor
            the target is found, somebody else has changed it meanwhile, and their change wins.
        runs: what is replaced one after the other, the first as a canary, where the platform
            carries this out instance by instance. Each call of the platform gets one of them as
            ``instance`` and ``identity``.
    """

    kind: ActionKind
    service: ServiceId
    instance: InstanceId | None = None
    identity: str = ""
    replicas: int | None = None
    revision: str | None = None
    before: str = ""
    runs: tuple[Run, ...] = ()
    share: int | None = None


class InstanceState(StrEnum):
    RUNNING = "running"
    EXITED = "exited"  # ended by itself: a fault
    STOPPED = "stopped"  # ended by somebody's wish: not a fault


class Instance(NamedTuple):
    """One replica as the platform sees it now.

    Attributes:
        identity: names this run and no other one, for example pid, start time and boot; empty
            where the platform cannot tell two runs apart.
        detail: how it ended, or what is odd about it.
        revision: the version that it runs, where the platform knows.
        verdict: what the platform's own check says (a Docker HEALTHCHECK); None: it has none, or
            has not said yet. FAIL is confirmed already: such checks have a hysteresis of their own.
        restart_count: how often the platform has restarted it by itself, as far as it counts.
        address, port: where it answers, for probes with ``{address}`` or ``{port}``; 0 and empty
            where that is not known.
        blames_version: what is wrong with it comes with its version, and another run of the same
            one would meet it again: its image cannot be had, or nothing of that version has ever
            been well beside what runs another one.
        is_restarting: it has just ended, and its platform has the first turn to start it again: no
            fault of its own yet, but a sign where it happens to many.
    """

    id: InstanceId
    state: InstanceState
    identity: str = ""
    detail: str = ""
    pids: tuple[int, ...] = ()
    revision: str = ""
    verdict: Verdict | None = None
    restart_count: int = 0
    address: str = ""
    port: int = 0
    blames_version: bool = False
    is_restarting: bool = False


class Status(NamedTuple):
    """All replicas of a service as its platform sees them now.

    Attributes:
        desired: how many replicas there should be.
        revision: the version that is deployed; None where the platform does not know.
        identity: changes with each restart of the service as a whole, where the platform
            restarts in ``Scope.SERVICE``.
        whole: all of that version is in place, as far as who deploys it knows; else it proves
            nothing, however well what runs may be.
    """

    instances: tuple[Instance, ...]
    desired: int
    revision: str | None = None
    identity: str = ""
    whole: bool = True


class FactKind(StrEnum):
    """What has happened; whoever is told asks the platform for the whole picture."""

    EXITED = "exited"
    STARTED = "started"
    VERDICT = "verdict"  # the platform's own check has changed its mind
    CHANGED = "changed"  # another version, number or configuration


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
    """How an action ended; only RECOVERED and CONTAINED are success."""

    RECOVERED = "recovered"
    CONTAINED = "contained"  # the circuit is open: the fault is still there, and harms no caller
    INEFFECTIVE = "ineffective"
    RELAPSED = "relapsed"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    OBSERVED = "observed"  # would have been done
    FOREIGN = "foreign"  # done by the platform itself, and counted
    CANCELLED = "cancelled"  # somebody else changed it meanwhile: their change wins

    @property
    def is_success(self) -> bool:
        return self in (Outcome.RECOVERED, Outcome.CONTAINED)


class Version(NamedTuple):
    """One deployment of one version of a service, on this boot's clock.

    Attributes:
        actor: who deployed it, as far as we know; "prunella" for a rollback.
        soaked_at: when it had run healthy for the whole soak; None: it has not.
        evidence: of that.
    """

    revision: str
    deployed_at: Instant
    actor: str = ""
    soaked_at: Instant | None = None
    evidence: str = ""


class Debt(NamedTuple):
    """A remedy that is to be taken back: the lease of a mitigation, on this boot's clock.

    Attributes:
        action: the newest action that granted it.
        before: what there was, and will be again: a number of replicas, or a share in percent.
        granted: what the remedy has set in its place.
        due_at: from when on it is taken back, if the symptom stays away.
        extended_count: how often the symptom came back when it was taken away.
        instance: whose circuit is open; None: the service's.
    """

    kind: ActionKind
    action: ActionId
    before: int
    granted: int
    due_at: Instant
    extended_count: int = 0
    instance: InstanceId | None = None
