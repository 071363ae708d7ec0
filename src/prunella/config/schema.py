"""What may stand in the file, besides the specs of plugins: keys, types, bounds, defaults.

The numbers are those of ``Policy`` and ``FleetPolicy``; nothing is decided here.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic.config import JsonDict

from prunella.core.model import ActionKind, Mode, SymptomKind
from prunella.core.policy import BURST, WINDOW, FleetPolicy, Policy
from prunella.spec import Duration, Ratio, Spec

SERVICE_ID = r"^[a-z0-9][a-z0-9._-]{0,62}$"
DEFAULT_LISTEN = "127.0.0.1:7110"
DEFAULT_TIMEOUT_S = 2.0
LEDGER_S = 14_400.0  # a guard sees this much of the past, so no window may be longer

_POLICY = Policy()
_FLEET = FleetPolicy()
_LISTEN = "an address such as 127.0.0.1:7110"
_MONITORING = "an address such as 0.0.0.0:9110"


def listen_address(value: object) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; only addresses that other machines cannot reach.

    Raises:
        ValueError: what was expected, in the words of a fault.
    """
    host, port = _address(value, _LISTEN)
    if not _is_loopback(host):
        raise ValueError(
            "the API has no access control yet and must not be reachable from other machines, "
            "expected 127.0.0.1, [::1] or localhost"
        )
    return host, port


def monitoring_address(value: object) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; any address of this machine, and no name.

    Raises:
        ValueError: what was expected, in the words of a fault.
    """
    host, port = _address(value, _MONITORING)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"expected {_MONITORING}") from None
    return host, port


def _address(value: object, example: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\s]+)):(\d{1,5})", str(value))
    if found is None or int(found[3]) > 65535:
        raise ValueError(f"expected {example}")
    return found[1] or found[2], int(found[3])


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(value: object) -> object:
    listen_address(value)
    return value


def _monitoring(value: object) -> object:
    monitoring_address(value)
    return value


def _off(value: object) -> object:
    return "off" if value is False else value


def _api(value: object) -> object:
    if _off(value) == "off":
        return None
    if value is None or isinstance(value, str | int | float):
        raise ValueError(f"expected a mapping such as {{listen: {DEFAULT_LISTEN}}}, or off")
    return value


def _or_off(schema: JsonDict) -> None:
    """Say in the JSON Schema what `_api` lets through."""
    members = schema["anyOf"]
    assert isinstance(members, list), "an optional value has alternatives"
    kept = [member for member in members if member != {"type": "null"}]
    schema["anyOf"] = [*kept, {"enum": ["off", False]}]


def _store(value: object) -> object:
    if isinstance(value, str) and not re.match(r"[a-z][a-z0-9+.-]*://", value):
        raise ValueError("expected a URL such as sqlite:///prunella.db")
    return value


HealMode = Annotated[
    Mode,
    BeforeValidator(_off),
    WithJsonSchema({"enum": [*(mode.value for mode in Mode), False]}),
]


# What takes a remedy back is none itself.
Remedy = Literal[
    ActionKind.RESTART, ActionKind.SCALE_UP, ActionKind.ROLLBACK, ActionKind.CIRCUIT_BREAK
]


class Thresholds(Spec):
    response_time: Duration = Field(
        default=_POLICY.response_time_s,
        description="Answers slower than this make a service degraded.",
    )
    degraded_error_rate: Ratio = Field(
        default=_POLICY.degraded_error_rate,
        description="Share of failed checks above which a service is degraded.",
    )
    failed_error_rate: Ratio = Field(
        default=_POLICY.failed_error_rate,
        description="Share of failed checks above which a service has failed.",
    )
    slo: Ratio | None = Field(
        default=_POLICY.slo,
        description="Share of real requests that shall succeed over a month, such as 99.9%; what "
        "burns the rest too fast is a fault.",
    )


class Verify(Spec):
    soak: Duration = Field(
        default=_POLICY.soak_s,
        description="How long a service must stay well before a remedy counts.",
    )
    deadline: Duration = Field(
        default=_POLICY.deadline_s,
        description="A remedy that has not helped by then was ineffective.",
    )
    rollback_soak: Duration = Field(
        default=_POLICY.rollback_soak_s,
        description="How long a service must stay well before a rollback counts.",
    )


class Cadence(Spec):
    suspect: Duration = Field(
        default=_POLICY.suspect_interval_s,
        description="Time between two checks while a fault is suspected; never more than usual.",
    )
    long_down: Duration = Field(
        default=_POLICY.down_interval_s,
        description="Time between two checks of what has been failed for long; never less than "
        "usual.",
    )
    long_down_after: Duration = Field(
        default=_POLICY.long_down_s, description="How long it must have been failed for that."
    )


class Budget(Spec):
    actions: int = Field(
        default=_POLICY.budget_actions, ge=0, le=1000, description="Actions allowed in one window."
    )
    window: Duration = Field(
        default=_POLICY.budget_window_s, le=LEDGER_S, description="The window; at most 4h."
    )


class Backoff(Spec):
    base: Duration = Field(
        default=_POLICY.backoff_base_s,
        description="Pause after the first action; doubles with each.",
    )
    cap: Duration = Field(default=_POLICY.backoff_cap_s, description="The longest pause.")
    half_life: Duration = Field(
        default=_POLICY.backoff_half_life_s,
        description="Healthy time after which the pause halves.",
    )


class Chain(Spec):
    ineffective: int = Field(
        default=_POLICY.ineffective_limit,
        ge=1,
        le=1000,
        description="Remedies without effect in a row that quarantine a service.",
    )
    attempts: int = Field(
        default=_POLICY.attempts_limit,
        ge=1,
        le=1000,
        description="Remedies of any outcome in one window that quarantine a service.",
    )
    window: Duration = Field(
        default=_POLICY.chain_window_s, le=LEDGER_S, description="The window; at most 4h."
    )


class Flapping(Spec):
    recoveries: int = Field(
        default=_POLICY.flapping_recoveries,
        ge=1,
        le=1000,
        description="Recoveries in one window after which a fault is called flapping: quarantine.",
    )
    window: Duration = Field(
        default=_POLICY.incident_window_s,
        le=LEDGER_S,
        description="The window, and how soon after an action a fault belongs to the same "
        "incident; at most 4h.",
    )


class Guards(Spec):
    fall: int = Field(
        default=_POLICY.fall,
        ge=1,
        le=WINDOW,
        description="Failed checks in a row that confirm a fault.",
    )
    rise: int = Field(
        default=_POLICY.rise,
        ge=1,
        le=WINDOW,
        description="Passed checks in a row that end a fault.",
    )
    min_samples: int = Field(
        default=_POLICY.min_samples,
        ge=1,
        le=WINDOW,
        description="Checks below which no error rate is judged.",
    )
    budget: Budget = Field(default=Budget(), description="How many actions a service may get.")
    backoff: Backoff = Field(default=Backoff(), description="Growing pauses between actions.")
    chain: Chain = Field(
        default=Chain(), description="When healing gives up and asks for a person."
    )
    flapping: Flapping = Field(
        default=Flapping(), description="When recoveries have not lasted, and are no remedy."
    )
    min_healthy: Ratio = Field(
        default=_POLICY.min_healthy_ratio,
        description="With two replicas or more, never act below this share of healthy ones.",
    )


class Healing(Spec):
    """How a service is judged and healed: in ``defaults`` for all, in a service for it alone."""

    thresholds: Thresholds = Field(default=Thresholds(), description="When a service is unwell.")
    verify: Verify = Field(default=Verify(), description="When a remedy has worked.")
    heal: HealMode = Field(
        default=_POLICY.mode, description="auto: act. observe: decide and record. off: only watch."
    )
    grace: Duration = Field(
        default=_POLICY.grace_s,
        description="After a start, failed checks are no evidence for this long, or until `rise` "
        "checks in a row have passed.",
    )
    cadence: Cadence = Field(
        default=Cadence(), description="How often to look at what is not well."
    )
    guards: Guards = Field(default=Guards(), description="Limits that every action is held to.")
    ladder: dict[SymptomKind, tuple[Remedy, ...]] = Field(
        default={},
        description="Remedies in order, for each symptom that is to differ from the default.",
    )

    def under(self, top: Healing) -> Self:
        """These settings, with those that were written in `top` in their place."""
        return _overlay(self, top, frozenset(Healing.model_fields))


S = TypeVar("S", bound=Spec)


def _overlay(base: S, top: Spec, names: frozenset[str]) -> S:
    update: dict[str, Any] = {}
    for name in top.model_fields_set & names:
        ours, theirs = getattr(base, name), getattr(top, name)
        if isinstance(ours, Spec) and isinstance(theirs, Spec):
            update[name] = _overlay(ours, theirs, frozenset(type(ours).model_fields))
        else:
            update[name] = {**ours, **theirs} if isinstance(ours, dict) else theirs
    return base.model_copy(update=update)


class Defaults(Healing):
    interval: Duration = Field(default=_POLICY.interval_s, description="Time between two checks.")
    timeout: Duration = Field(
        default=DEFAULT_TIMEOUT_S, description="A check that takes longer has failed."
    )


class Scale(Spec):
    min: int = Field(
        default=_POLICY.scale_min, ge=1, le=1000, description="Never fewer replicas than this."
    )
    max: int = Field(ge=1, le=1000, description="Never more replicas than this.")
    ttl: Duration = Field(
        default=_POLICY.debt_ttl_s,
        description="Replicas that were added are taken away again after this time, one by one, "
        "if the symptom stays away.",
    )


class Circuit(Spec):
    """How the circuit of a service opens and closes again, at its gateway."""

    open_for: Duration = Field(
        default=_POLICY.circuit_open_s,
        description="How long it stays open; longer each time, at most 5m.",
    )
    step: Duration = Field(
        default=_POLICY.circuit_step_s,
        description="How long each share of the requests that is let in again must be served well.",
    )
    requests: int = Field(
        default=_POLICY.circuit_requests,
        ge=1,
        le=1_000_000,
        description="Requests below which a step is judged by the service's probes.",
    )
    body: str = Field(
        default="", max_length=4096, description="What callers read while it is open."
    )
    fallback: str = Field(
        default="",
        description="Where their requests go instead of a 503, in the gateway's own terms.",
    )


class DependsOn(Spec):
    """Another service that this one needs."""

    service: str = Field(pattern=SERVICE_ID, description="Its id.")
    optional: bool = Field(
        default=False,
        description="This service can live without it: if it fails, its circuit is broken.",
    )


def _needed(value: object) -> object:
    return {"service": value} if isinstance(value, str) else value


def _or_id(schema: JsonDict) -> None:
    """Say in the JSON Schema what `_needed` lets through."""
    items = schema["items"]
    schema["items"] = {"anyOf": [items, {"type": "string", "pattern": SERVICE_ID}]}


class Service(Healing):
    """One service. Its platform's section and its release are checked by their plugins' specs."""

    name: str | None = Field(
        default=None, min_length=1, max_length=200, description="For people. Default: the id."
    )
    platform: str = Field(description="What runs it; the section of this name says how.")
    probes: list[Any] = Field(default=[], description="What measures it.")
    domain: str = Field(
        default=_POLICY.domain, description="Failure domain: services that can fail together."
    )
    scale: Scale | None = Field(
        default=None, description="Between which numbers it may be scaled. Default: it is not."
    )
    depends_on: list[Annotated[DependsOn, BeforeValidator(_needed)]] = Field(
        default=[],
        description="Services that it needs: they are healed before it.",
        json_schema_extra=_or_id,
    )
    gateway: dict[str, Any] = Field(
        default={}, description="The one of `gateways` that it stands behind, and where there."
    )
    circuit: Circuit = Field(
        default=Circuit(), description="How its circuit opens and closes again."
    )
    release: dict[str, Any] = Field(
        default={},
        description="What it can be rolled back to, from a source of the given kind. Without a "
        "kind: the versions that its platform itself knows.",
    )


class Storm(Spec):
    share: Ratio = Field(
        default=_FLEET.storm_ratio,
        gt=0,
        description="Share of a domain's services that fail together.",
    )
    services: int = Field(
        default=_FLEET.storm_services,
        ge=1,
        le=100_000,
        description="And at least this many services.",
    )
    window: Duration = Field(default=_FLEET.storm_window_s, description="Within this time.")


class Fleet(Spec):
    pace: Duration = Field(
        default=_FLEET.pace_s, description="One action in this time over all services, when paced."
    )
    pace_above: Ratio = Field(
        default=_FLEET.pace_unwell_ratio,
        description="Share of unwell services that starts the pacing.",
    )
    burst: int = Field(
        default=_FLEET.burst,
        ge=1,
        le=BURST,
        description=f"Actions in that time over all services, paced or not; at most {BURST}.",
    )
    storm: Storm = Field(default=Storm(), description="When one cause fells many: no restarts.")


class Api(Spec):
    listen: Annotated[str, BeforeValidator(_listen)] = Field(
        default=DEFAULT_LISTEN, description="Loopback address and port; port 0 takes any free one."
    )
    monitoring: Annotated[str, BeforeValidator(_monitoring)] | None = Field(
        default=None,
        description="Address and port where /metrics, /healthz and /readyz, and nothing else, are "
        "answered to other machines as well, such as 0.0.0.0:9110. Default: nowhere.",
    )


NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"  # of an object in a cluster


class Operator(Spec):
    """Prunella's home in a Kubernetes cluster: more services, from objects there."""

    namespaces: list[Annotated[str, Field(pattern=rf"^\*$|{NAME}")]] | None = Field(
        default=None,
        min_length=1,
        description='Whose HealingPolicy objects are read; "*" stands for all. Default: the one '
        "that Prunella runs in.",
    )
    context: str | None = Field(
        default=None,
        min_length=1,
        description="Of the kubeconfig. Default: the service account of the pod, or the current "
        "context.",
    )
    lease: str = Field(
        default="prunella",
        pattern=NAME,
        description="Name of the Lease, in the namespace that Prunella runs in: who holds it acts.",
    )
    lease_ttl: Duration = Field(
        default=15.0,
        ge=3,
        le=600,
        description="Who has not renewed the Lease for so long is followed by another.",
    )
    history: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="HealingAction objects that are kept for each service.",
    )


class File(Spec):
    """The whole file; services are checked one by one."""

    store: Annotated[str, BeforeValidator(_store)] | None = Field(
        default=None,
        description="URL of the store, relative to this file. Default: in the state folder.",
    )
    state_dir: Path | None = Field(
        default=None,
        description="Folder for processes' records and logs, relative to this file. Default: "
        "$PRUNELLA_STATE_DIR; else /var/lib/prunella for root; else $XDG_STATE_HOME/prunella or "
        "~/.local/state/prunella.",
    )
    api: Annotated[Api | None, BeforeValidator(_api)] = Field(
        default=Api(),
        description="Where the HTTP API listens, or off.",
        json_schema_extra=_or_off,
    )
    retention: Duration = Field(
        default=90 * 86400, description="History older than this is forgotten."
    )
    defaults: Defaults = Field(default=Defaults(), description="Settings for all services.")
    fleet: Fleet = Field(
        default=Fleet(), description="Protection of all services from their healer."
    )
    gateways: dict[str, Any] = Field(
        default={}, description="What stands in front of services, by names of your own."
    )
    operator: Operator | None = Field(
        default=None,
        description="In a Kubernetes cluster: reads services from HealingPolicy objects as well.",
    )
    services: dict[str, Any] = Field(
        default={},
        description="The services, by id; at least one, except with `operator`.",
    )
