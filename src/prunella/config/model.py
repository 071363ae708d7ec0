"""A checked configuration: frozen, absolute, in seconds. What the rest of Prunella reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prunella.config.faults import Place, Places
from prunella.config.node import Node
from prunella.config.template import Template
from prunella.core.model import ServiceId
from prunella.core.policy import FleetPolicy, Policy
from prunella.spec import GatewaySpec, ProbeSpec, ReleaseSpec, RouteSpec, Spec


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """One probe of a service; the timeout is in its spec.

    Attributes:
        each: set for a probe that measures every instance by itself; `spec` is a sample then.
    """

    kind: str
    spec: ProbeSpec
    interval_s: float
    each: Template | None = None


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """One service; probes are in the order of the file.

    Attributes:
        release_kind: the source of its releases; None: the platform itself knows its versions.
        route: which gateway it stands behind, and where there; None: behind none.
        circuit_body: what callers read while its circuit is open; ``circuit_fallback``: where
            their requests go instead.
    """

    id: ServiceId
    name: str
    policy: Policy
    platform: str
    platform_spec: Spec
    probes: tuple[ProbeConfig, ...]
    release_kind: str | None
    release_spec: ReleaseSpec
    route: RouteSpec | None = None
    circuit_body: str = ""
    circuit_fallback: str = ""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """One gateway, whatever stands behind it."""

    name: str
    kind: str
    spec: GatewaySpec


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """Prunella's home in a cluster.

    Attributes:
        namespaces: whose policies are read; empty: the one we run in; ``*`` among them: all.
        context: of the kubeconfig; None: the service account, or the current one.
    """

    namespaces: tuple[str, ...]
    context: str | None
    lease: str
    lease_ttl_s: float
    history: int


@dataclass(frozen=True, slots=True)
class Config:
    """All of it.

    Attributes:
        path: the file, absolute; None if there was none.
        store: URL of the store; no part of it is relative.
        state_dir: absolute; need not exist.
        api: host and port to listen on (port 0: any free one); None: no API.
        monitoring: where others may ask for metrics and how we are; None: nowhere.
        services: in the order of the file; at least one, except with an operator.
        gateways: by name; none need be used.
        operator: None: Prunella does not live in a cluster.
        root: all that was written, for what is to stand beside it; not a part of its meaning.
        places: of each service, for what is found out about it later; not a part of its meaning.
    """

    path: Path | None
    store: str
    state_dir: Path
    api: tuple[str, int] | None
    monitoring: tuple[str, int] | None
    retention_s: float
    fleet: FleetPolicy
    services: Mapping[ServiceId, ServiceConfig]
    places: Mapping[ServiceId, Places] = field(compare=False)
    gateways: Mapping[str, GatewayConfig] = field(default_factory=dict[str, GatewayConfig])
    gateway_places: Mapping[str, Place] = field(default_factory=dict[str, Place], compare=False)
    operator: OperatorConfig | None = None
    root: Node | None = field(default=None, compare=False, repr=False)
