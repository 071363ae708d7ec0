"""What users hold: the objects of the Python face, the command line and the HTTP API.

The same words everywhere: snake_case in Python, camelCase in JSON. Fields may be added; none
changes its meaning.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """A frozen object with camelCase JSON."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True
    )


class HealingAction(Wire):
    """One remedy that was carried out, or would have been.

    Attributes:
        success: true only when the symptom was gone through the soak; absent while it runs.
        recovery_time: ms from the start of the action to the first good answer of the streak that
            survived the soak; absent until known.
        downtime: ms from the first failing evidence to the same point.
        replicas: the number that a scaling sets.
        revision: the version that a rollback goes back to.
        before: the number, the version or the share that there was; empty for a restart.
        share: percent of its requests that a circuit lets through from then on, of the service or
            of ``instance``, which is then the gateway's name of a server.
    """

    id: str
    service_id: str
    action: str
    reason: str
    timestamp: datetime
    success: bool | None = None
    recovery_time: float | None = None
    downtime: float | None = None
    outcome: str | None = None
    detail: str = ""
    symptom: str | None = None
    evidence: str = ""
    incident_id: str = ""
    actor: str = ""
    instance: str | None = None
    replicas: int | None = None
    revision: str | None = None
    before: str = ""
    share: int | None = None


class Replicas(Wire):
    """How many instances of a service run, and how many there should be."""

    running: int
    desired: int


class CircuitState(Wire):
    """What the gateway of a service lets through: percent of its requests, and to which servers.

    ``shut`` are those that get none, whoever has shut them.
    """

    share: int
    shut: list[str]


class TrafficRecord(Wire):
    """What real requests of the last minute have met.

    Attributes:
        requests: so many have ended; ``error_rate`` is the share of them that failed, 0-1.
        in_flight: under way now.
        p50, p95, p99: how long they took, in ms; absent where nobody counts that.
    """

    requests: int
    error_rate: float
    in_flight: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class ServiceHealth(Wire):
    """One service now. ``uptime`` is % of the last 24 h that were seen, times are ms.

    ``replicas`` is absent while its platform cannot tell, ``revision``, the version that is
    deployed, where nobody knows one, ``circuit`` where no gateway can tell, and ``traffic`` where
    nobody counts requests. The error rate is that of real requests where there are enough of them,
    else that of the probes.
    """

    id: str
    name: str
    status: str
    uptime: float | None
    last_check: datetime | None
    response_time: float | None
    error_rate: float
    restart_count: int
    last_restart: datetime | None
    phase: str
    detail: str
    symptom: str | None = None
    paused: bool = False
    replicas: Replicas | None = None
    revision: str | None = None
    circuit: CircuitState | None = None
    traffic: TrafficRecord | None = None


class SystemHealth(Wire):
    """All services now."""

    total_services: int
    healthy: int
    degraded: int
    failed: int
    recovering: int
    unknown: int
    health_percentage: float
    total_restarts: int
    total_healing_actions: int
    average_response_time: float | None
    services: list[ServiceHealth]


class DecisionRecord(Wire):
    """A decision or a refusal, with its reason; newest first in lists."""

    id: int
    service_id: str
    timestamp: datetime
    reason: str
    detail: str
    symptom: str | None = None
    guards: list[str] = []


class HoldRecord(Wire):
    """A pause in force. ``service_id`` absent: the whole instance."""

    service_id: str | None
    owner: str
    reason: str
    placed: datetime
    expires: datetime | None = None


class DebtRecord(Wire):
    """A remedy that is still to be taken back.

    Attributes:
        kind: the kind of action that granted it, `action_id` the newest one that did.
        before: what there was, and will be again; ``granted``: what was set in its place.
        due: from when on it is taken back, if the symptom stays away.
        extended_count: how often the symptom came back when it was taken away.
        instance: the server whose circuit it is; absent for the service.
    """

    service_id: str
    kind: str
    before: int
    granted: int
    due: datetime
    extended_count: int
    action_id: str
    instance: str | None = None


class Explanation(Wire):
    """Why a service is treated as it is: the present decision and those before it.

    ``remarks`` is what its platform and its source of releases say of its configuration.
    """

    service: ServiceHealth
    now: str
    vetoes: dict[str, str]
    next_look: datetime | None
    holds: list[HoldRecord]
    remarks: list[str] = []
    decisions: list[DecisionRecord]
