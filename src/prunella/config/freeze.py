"""From a checked file to the frozen value: defaults filled in, paths absolute, seconds."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from prunella.config import schema
from prunella.config.check import Checked, CheckedProbe, CheckedService
from prunella.config.model import (
    Config,
    GatewayConfig,
    OperatorConfig,
    ProbeConfig,
    ServiceConfig,
)
from prunella.config.places import STORE_FILE, absolute_store, anchored, state_folder
from prunella.config.template import Template
from prunella.core.model import ServiceId
from prunella.core.policy import FleetPolicy, Need, Policy

_POLICY = Policy()


def freeze(checked: Checked, path: Path | None) -> Config:
    """The configuration; relative paths start at the folder of `path`, or where we are."""
    file = checked.file
    folder = Path.cwd() if path is None else path.absolute().parent
    state_dir = state_folder() if file.state_dir is None else folder / file.state_dir
    default_store = f"sqlite:///{state_dir / STORE_FILE}"
    return Config(
        path=None if path is None else path.absolute(),
        store=default_store if file.store is None else absolute_store(file.store, folder),
        state_dir=state_dir,
        api=None if file.api is None else schema.listen_address(file.api.listen),
        monitoring=None
        if file.api is None or file.api.monitoring is None
        else schema.monitoring_address(file.api.monitoring),
        retention_s=file.retention,
        fleet=_fleet(file.fleet),
        services=MappingProxyType(
            {ServiceId(one.id): _service(one, file.defaults, folder) for one in checked.services}
        ),
        places=MappingProxyType({ServiceId(one.id): one.places for one in checked.services}),
        gateways=MappingProxyType(
            {
                one.name: GatewayConfig(one.name, one.plugin.kind, anchored(one.spec, folder))
                for one in checked.gateways
            }
        ),
        gateway_places=MappingProxyType({one.name: one.place for one in checked.gateways}),
        operator=None if file.operator is None else _operator(file.operator),
    )


def _operator(operator: schema.Operator) -> OperatorConfig:
    return OperatorConfig(
        namespaces=tuple(dict.fromkeys(operator.namespaces or ())),
        context=operator.context,
        lease=operator.lease,
        lease_ttl_s=operator.lease_ttl,
        history=operator.history,
    )


def _service(one: CheckedService, defaults: schema.Defaults, folder: Path) -> ServiceConfig:
    probes = tuple(_probe(probe, defaults, folder) for probe in one.probes)
    interval_s = min((probe.interval_s for probe in probes), default=defaults.interval)
    return ServiceConfig(
        id=ServiceId(one.id),
        name=one.service.name or one.id,
        policy=_policy(one, interval_s),
        platform=one.service.platform,
        platform_spec=anchored(one.platform, folder),
        probes=probes,
        release_kind=one.release[0],
        release_spec=anchored(one.release[1], folder),
        route=None if one.route is None else anchored(one.route, folder),
        circuit_body=one.service.circuit.body,
        circuit_fallback=one.service.circuit.fallback,
    )


def _probe(probe: CheckedProbe, defaults: schema.Defaults, folder: Path) -> ProbeConfig:
    spec, timeout_s = probe.spec, None
    if "timeout" not in spec.model_fields_set and "timeout" in defaults.model_fields_set:
        timeout_s = defaults.timeout
        spec = spec.model_copy(update={"timeout": timeout_s})
    interval_s = defaults.interval if spec.interval is None else spec.interval
    each = None
    if probe.template is not None:
        each = Template(type(spec), probe.template, folder, timeout_s)
    return ProbeConfig(probe.kind, anchored(spec, folder), interval_s, each)


def _policy(one: CheckedService, interval_s: float) -> Policy:
    healing, scale, release = one.healing, one.service.scale, one.release[1]
    circuit = one.service.circuit
    cadence, guards, thresholds = healing.cadence, healing.guards, healing.thresholds
    return Policy(
        mode=healing.heal,
        domain=one.service.domain,
        needs=tuple(
            Need(ServiceId(need.service), need.optional) for need in one.service.depends_on
        ),
        fall=guards.fall,
        rise=guards.rise,
        min_samples=guards.min_samples,
        response_time_s=thresholds.response_time,
        degraded_error_rate=thresholds.degraded_error_rate,
        failed_error_rate=thresholds.failed_error_rate,
        slo=thresholds.slo,
        interval_s=interval_s,
        # A suspect is never looked at less often than usual, a lost one never more often.
        suspect_interval_s=min(cadence.suspect, interval_s),
        down_interval_s=max(cadence.long_down, interval_s),
        long_down_s=cadence.long_down_after,
        grace_s=healing.grace,
        soak_s=healing.verify.soak,
        deadline_s=healing.verify.deadline,
        rollback_soak_s=healing.verify.rollback_soak,
        backoff_base_s=guards.backoff.base,
        backoff_cap_s=guards.backoff.cap,
        backoff_half_life_s=guards.backoff.half_life,
        budget_actions=guards.budget.actions,
        budget_window_s=guards.budget.window,
        incident_window_s=guards.flapping.window,
        ineffective_limit=guards.chain.ineffective,
        attempts_limit=guards.chain.attempts,
        chain_window_s=guards.chain.window,
        flapping_recoveries=guards.flapping.recoveries,
        min_healthy_ratio=guards.min_healthy,
        scale_min=_POLICY.scale_min if scale is None else scale.min,
        scale_max=_POLICY.scale_max if scale is None else scale.max,
        debt_ttl_s=_POLICY.debt_ttl_s if scale is None else scale.ttl,
        circuit_open_s=circuit.open_for,
        circuit_step_s=circuit.step,
        circuit_requests=circuit.requests,
        release_soak_s=release.soak,
        irreversible=release.irreversible,
        ladder=dict(healing.ladder),
    )


def _fleet(fleet: schema.Fleet) -> FleetPolicy:
    return FleetPolicy(
        pace_unwell_ratio=fleet.pace_above,
        pace_s=fleet.pace,
        burst=fleet.burst,
        storm_ratio=fleet.storm.share,
        storm_services=fleet.storm.services,
        storm_window_s=fleet.storm.window,
    )
