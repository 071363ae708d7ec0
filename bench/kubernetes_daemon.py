"""Many Deployments in one daemon, measured from inside: ``python -m bench.kubernetes_daemon PLAN``.

Prints one line of JSON once it has been calm for a while, then one for each fault that was decided
on. Nothing is healed: what is measured is seeing and deciding.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.machine import own_cpu_s, rss_mib

from prunella.app import on_fast_loop, set_up_logging
from prunella.config import from_mapping
from prunella.kube.access import access
from prunella.kube.shared import cluster_at, leave
from prunella.runtime.clock import SystemClock
from prunella.runtime.notices import Notice, Topic
from prunella.runtime.orchestrator import SelfHealingOrchestrator

_SLICES, _SLICE_S = 6, 5.0


def _config(plan: dict[str, Any], folder: str) -> dict[str, Any]:
    where = {"kubeconfig": plan["kubeconfig"]}
    names = [f"shop-{number:04}" for number in range(plan["count"])]
    return {
        "store": f"sqlite:///{folder}/p.db",
        "state_dir": folder,
        "api": "off",
        "defaults": {"grace": 0.001, "heal": "observe"},
        "services": {
            name: {"platform": "kubernetes", "kubernetes": {**where, "name": name}}
            for name in names
        },
    }


def _tell(notice: Notice) -> None:
    if notice.topic is Topic.SERVICE_DEGRADED or notice.topic is Topic.SERVICE_FAILED:
        print(json.dumps({"service": notice.service, "at": time.monotonic()}), flush=True)


async def watch(plan: dict[str, Any]) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        orchestrator = SelfHealingOrchestrator(from_mapping(_config(plan, folder)))
        start = time.perf_counter()
        await orchestrator.start_monitoring()
        while orchestrator.get_system_health().healthy < plan["count"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        start_s = time.perf_counter() - start
        gc.collect()
        gc.freeze()  # as the daemon does
        cluster = cluster_at(access(Path(plan["kubeconfig"])), SystemClock())
        asked, began, cpu = cluster.request_count, time.perf_counter(), list[float]()
        for _ in range(_SLICES):
            used, at = own_cpu_s(), time.perf_counter()
            await asyncio.sleep(_SLICE_S)
            cpu.append(100 * (own_cpu_s() - used) / (time.perf_counter() - at))
        found = {
            "start_s": start_s,
            "cpu": cpu,
            "rss_mib": rss_mib(),
            "requests": cluster.request_count - asked,
            "span_s": time.perf_counter() - began,
        }
        await leave(cluster)
        orchestrator.on("*", _tell)
        print(json.dumps(found), flush=True)
        await asyncio.Event().wait()
    return 0


if __name__ == "__main__":
    set_up_logging()
    raise SystemExit(on_fast_loop(watch(json.loads(sys.argv[1]))))
