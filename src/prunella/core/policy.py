"""The numbers that decide: one frozen value per service, one for the whole instance.

All durations are seconds, all ratios 0-1. The defaults are those a user may rely on without
writing any of them down; ``docs/healing-model.md`` says where each comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from prunella.core.model import ActionKind, Mode, ServiceId, SymptomKind

WINDOW = 100  # conclusive observations that an error rate is computed over, at most
BURST = 16  # newest actions of the whole fleet that are remembered, at most


class Need(NamedTuple):
    """Another service that one depends on; ``optional``: it can live without it."""

    service: ServiceId
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """How one service is judged and healed."""

    mode: Mode = Mode.AUTO
    domain: str = ""  # failure domain: services that can fail together
    needs: tuple[Need, ...] = ()

    fall: int = 3  # failing observations in a row that confirm a fault
    rise: int = 2  # passing observations in a row that end one
    min_samples: int = 20  # conclusive observations below which no rate is judged
    response_time_s: float = 1.0
    degraded_error_rate: float = 0.05
    failed_error_rate: float = 0.10
    slo: float | None = None  # share of real requests that shall succeed; None: burns no budget

    interval_s: float = 5.0
    suspect_interval_s: float = 1.0
    down_interval_s: float = 30.0
    long_down_s: float = 300.0  # failed for so long that looking less often costs nothing

    grace_s: float = 10.0  # after a start samples are no evidence, until `rise` of them are good
    soak_s: float = 60.0
    deadline_s: float = 300.0
    rollback_soak_s: float = 300.0  # as soak_s, after a rollback

    backoff_base_s: float = 1.0
    backoff_cap_s: float = 300.0
    backoff_half_life_s: float = 600.0

    budget_actions: int = 3
    budget_window_s: float = 1800.0
    incident_window_s: float = 3600.0  # a fault within it of the last recovery is a relapse
    ineffective_limit: int = 3
    attempts_limit: int = 5
    chain_window_s: float = 14400.0
    flapping_recoveries: int = 3  # so many within incident_window_s did not last

    min_healthy_ratio: float = 0.51

    scale_min: int = 1
    scale_max: int = 0  # 0: is not to be scaled
    debt_ttl_s: float = 600.0  # extra replicas are taken back after it, if the symptom stays away

    circuit_open_s: float = 30.0  # how long a circuit stays open the first time
    circuit_step_s: float = 10.0  # how long each share that is let in again must stay well
    circuit_requests: int = 20  # real requests below which a step is judged by probes alone

    release_soak_s: float = 600.0  # a version that ran healthy for so long can be returned to
    irreversible: tuple[str, ...] = ()  # patterns of versions that are never rolled back from

    ladder: Mapping[SymptomKind, tuple[ActionKind, ...]] = field(
        default_factory=dict[SymptomKind, tuple[ActionKind, ...]]
    )  # a user's own remedies, in place of ``core.ladder``'s for that symptom


@dataclass(frozen=True, slots=True)
class FleetPolicy:
    """How all services of one instance are protected from their healer."""

    pace_unwell_ratio: float = 0.10  # above it, actions are paced
    pace_s: float = 10.0
    burst: int = BURST  # actions within pace_s over the whole fleet, however little is unwell

    storm_ratio: float = 0.30
    storm_services: int = 3
    storm_window_s: float = 120.0  # onsets within it are one storm; also the calm that ends it

    blind_ratio: float = 0.50  # above it we doubt ourselves, not the targets
    stall_s: float = 0.25  # a loop that stood still for longer voids the verdicts of that span
