"""What watching costs: per check with 500 services, and in all with 10,000."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from statistics import median

from bench import probe_cost
from bench.fleet_daemon import Found, Plan
from bench.machine import ROOT, NotInTimeError
from bench.report import Row, percentile, spread

_CHECK_LIMIT_US = 160.0
_PEER_RATIO = 0.3
_FEW = Plan(service_count=500, interval_s=0.25, slice_count=7, slice_s=2.0, warm_up_s=3.0)
_MANY = Plan(
    service_count=10_000,
    interval_s=5.0,
    slice_count=6,
    slice_s=5.0,
    warm_up_s=10.0,
    sick_count=40,
    sick_s=25.0,
)


def run(plan: Plan) -> Found:
    """Carry out a plan in a process of its own."""
    argv = [sys.executable, "-m", "bench.fleet_daemon", json.dumps(asdict(plan))]
    with tempfile.TemporaryFile() as log:
        done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, check=False)
        if done.returncode != 0:
            log.seek(0)
            raise NotInTimeError(log.read().decode(errors="replace")[-2000:])
    found = Found(**json.loads(done.stdout))
    if found.healthy_count < plan.service_count / 2:  # fewer are void after a stall, see the notes
        raise NotInTimeError(f"only {found.healthy_count} of {plan.service_count} were healthy")
    return found


def measure_cost(plan: Plan = _FEW) -> list[Row]:
    """The whole way of a check: when it is due, connect, ask, parse, believe, decide."""
    found = run(plan)
    probe = probe_cost.measure()
    rate = median(found.checks_per_s)
    note = (
        f"{plan.service_count} services, {rate:,.0f} checks/s, {spread(found.cpu_per_check_us)}; "
        f"the probe alone {probe['uvloop_us']} us; peer's best run {probe['peer_best_us']} us"
    )
    return [
        Row(
            "CPU per HTTP check, everything included",
            median(found.cpu_per_check_us),
            "us",
            limit=_CHECK_LIMIT_US,
            peer=probe["peer_us"],
            peer_name="blackbox_exporter" if probe["peer_us"] else "not installed",
            ratio_limit=_PEER_RATIO,
            note=note,
        )
    ]


def measure_many(plan: Plan = _MANY) -> list[Row]:
    found = run(plan)
    what = f"{plan.service_count:,} services every {plan.interval_s:g} s"
    rate = median(found.checks_per_s)
    cpu = [100 * ratio for ratio in found.cpu_ratio]
    worst = max(found.late_worst_ms)
    rows = [
        Row(
            f"{what}: CPU of one core",
            median(cpu),
            "%",
            limit=60.0,
            note=f"slices of {plan.slice_s:g} s: {spread(cpu)}; {rate:,.0f} checks/s, "
            f"{median(found.cpu_per_check_us):.0f} us each",
        ),
        Row(
            f"{what}: start lateness, p99",
            median(found.late_p99_ms),
            "ms",
            limit=100.0,
            note=f"p99 of slices: {spread(found.late_p99_ms)}; worst start {worst:.0f} ms late; "
            f"the loop stood still {found.stall_count:.0f} times since the start, "
            f"{found.healthy_count:,} of {plan.service_count:,} were known healthy at the end",
        ),
        Row(
            f"{what}: memory (RSS)",
            found.rss_mib,
            "MiB",
            limit=300e6 / 2**20,
            note=f"one run; {found.peak_mib:.0f} MiB at the highest",
        ),
        Row(
            f"{what}: time to start",
            found.start_s,
            "s",
            note=f"one run; checking the configuration took {found.config_s:.1f} s more",
        ),
    ]
    return [*rows, _action_row(plan, found)]


def _action_row(plan: Plan, found: Found) -> Row:
    took = found.action_ms
    if len(took) < plan.sick_count // 2:
        note = f"not measured: only {len(took)} of {plan.sick_count} actions were begun"
        return Row("failing check to start of the action, p99", None, "ms", limit=10.0, note=note)
    return Row(
        "failing check to start of the action, p99",
        percentile(took, 0.99),
        "ms",
        limit=10.0,
        note=f"{plan.sick_count} of {plan.service_count:,} services lose their target at once; "
        f"{len(took)} actions: median {median(took):.1f}, p90 {percentile(took, 0.9):.1f}, "
        f"worst {max(took):.1f} ms",
    )
