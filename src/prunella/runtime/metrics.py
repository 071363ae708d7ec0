"""Prometheus metrics, made from the same objects as every other answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from prunella.wire import SystemHealth

_STATUSES = ("healthy", "degraded", "failed", "recovering", "unknown")


def families(health: SystemHealth, figures: Mapping[str, float]) -> Iterator[Metric]:
    """One family per figure; services are labelled by their id."""
    status = GaugeMetricFamily(
        "prunella_service_status",
        "1 for the present status of a service.",
        labels=["service", "status"],
    )
    errors = GaugeMetricFamily(
        "prunella_service_error_ratio", "Share of failed checks, 0-1.", labels=["service"]
    )
    latency = GaugeMetricFamily(
        "prunella_service_response_seconds", "Mean response time.", labels=["service"]
    )
    restarts = CounterMetricFamily(
        "prunella_service_restarts", "Restarts carried out.", labels=["service"]
    )
    share = GaugeMetricFamily(
        "prunella_circuit_share_ratio",
        "Share of its requests that the gateway of a service lets through, 0-1.",
        labels=["service"],
    )
    shut = GaugeMetricFamily(
        "prunella_circuit_shut_servers",
        "Servers of a service that its gateway keeps requests from.",
        labels=["service"],
    )
    for service in health.services:
        if service.circuit is not None:
            share.add_metric([service.id], service.circuit.share / 100)
            shut.add_metric([service.id], len(service.circuit.shut))
        for word in _STATUSES:
            status.add_metric([service.id, word], float(service.status == word))
        errors.add_metric([service.id], service.error_rate)
        if service.response_time is not None:
            latency.add_metric([service.id], service.response_time / 1000)
        restarts.add_metric([service.id], service.restart_count)
    yield from (status, errors, latency, restarts, share, shut)
    total = GaugeMetricFamily("prunella_services", "Services by status.", labels=["status"])
    for word in _STATUSES:
        total.add_metric([word], getattr(health, word))
    yield total
    yield CounterMetricFamily(
        "prunella_healing_actions", "Healing actions begun.", value=health.total_healing_actions
    )
    for name, value in figures.items():
        yield GaugeMetricFamily(f"prunella_{name}", f"Prunella itself: {name}.", value=value)
