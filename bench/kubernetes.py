"""A real cluster: containers killed on a real node, and thousands of pods watched in calm.

The programs of Kubernetes are in no registry: without ``$KUBEBUILDER_ASSETS`` nothing is measured.
The thousands of pods are objects that nobody runs, as their kubelets would describe them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
from bench.machine import NotInTimeError, end, running, until
from bench.report import Row, spread
from tests.real.images import Release
from tests.real.kubernetes import OwnKubernetes, deployment, missing
from tests.real.kubernetes import running as cluster_running

_KILLS = 3
_LIMIT_S = 90.0
_DEPLOYMENTS, _REPLICAS = 1000, 5
_FAILURES = 20
_SHOPS = "/apis/apps/v1/namespaces/default/deployments"
_CONFIG = """
store: "sqlite:///{folder}/prunella.db"
state_dir: "{folder}/state"
api: off
defaults:
  interval: 1s
  grace: 1ms
  verify: {{soak: 300ms, deadline: 20s}}
  guards:
    rise: 1
    budget: {{actions: 1000, window: 1s}}
    backoff: {{base: 1ms, cap: 1ms}}
    chain: {{ineffective: 1000, attempts: 1000, window: 1s}}
services:
  ours: {{platform: kubernetes, kubernetes: {{kubeconfig: "{kubeconfig}", name: ours}}}}
"""


def measure() -> list[Row]:
    if reason := missing():
        return [Row("Kubernetes", None, "", note=f"not measured: {reason}")]
    with cluster_running() as cluster:
        rows = _kills(cluster)
    with cluster_running(node=False, controllers=False) as cluster:
        return rows + _many(cluster)


# Killed containers -------------------------------------------------------------------------------


def _kills(cluster: OwnKubernetes) -> list[Row]:
    image = cluster.make_image("shop:1", Release())
    for name in ("theirs", "ours"):
        body = deployment(name, image, replicas=1, readinessProbe=None)
        cluster.call("POST", _SHOPS, body)
        until(lambda name=name: _run(cluster, name) != "", _LIMIT_S, f"{name} runs", 0.02)  # type: ignore[misc]
    theirs = [_kill(cluster, "theirs") for _ in range(_KILLS)]
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        config = Path(made) / "prunella.yaml"
        config.write_text(_CONFIG.format(folder=made, kubeconfig=cluster.kubeconfig))
        argv = [sys.executable, "-m", "bench.daemon", str(config)]
        with running(argv, Path(made) / "output.log"):
            time.sleep(2.0)
            ours = [_kill(cluster, "ours") for _ in range(_KILLS)]
    return [
        Row(
            f"container of a pod: kill -9 to ready, time {number}",
            mine,
            "ms",
            peer=other,
            peer_name="the kubelet alone",
            limit=2000.0,
        )
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True), 1)
    ]


def _run(cluster: OwnKubernetes, name: str) -> str:
    """Names the run of the ready pod; empty: none is ready."""
    for pod in cluster.pods("default", f"app%3D{name}"):
        conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
        if conditions.get("Ready") == "True":
            return str(pod["status"]["containerStatuses"][0]["containerID"])
    return ""


def _kill(cluster: OwnKubernetes, name: str) -> float:
    """Milliseconds from SIGKILL of its container to another one that is ready."""
    before = _run(cluster, name)
    pod = next(
        one
        for one in cluster.pods("default", f"app%3D{name}")
        if one["status"]["containerStatuses"][0].get("containerID") == before
    )
    start = time.perf_counter()
    cluster.kill_container(pod)
    until(lambda: _run(cluster, name) not in ("", before), _LIMIT_S, f"{name} runs again", 0.01)
    return 1000 * (time.perf_counter() - start)


# Thousands in calm -------------------------------------------------------------------------------


def _many(cluster: OwnKubernetes) -> list[Row]:
    asyncio.run(_fill(cluster))
    count = f"{_DEPLOYMENTS:,} Deployments with {_DEPLOYMENTS * _REPLICAS:,} pods"
    with _watcher(cluster) as watcher:
        calm = _told(watcher)
        took_ms = [_fail(cluster, watcher, number) for number in range(_FAILURES)]
    return [
        Row(f"{count}: memory", calm["rss_mib"], "MiB", limit=150.0),
        Row(
            f"{count}: CPU of one core in calm",
            median(calm["cpu"]),
            "%",
            limit=5.0,
            note=f"{spread(calm['cpu'])}; known {calm['start_s']:.1f} s after the start; "
            f"{calm['requests']} requests in {calm['span_s']:.0f} s of calm",
        ),
        Row(
            "pod's failure to decision",
            median(took_ms),
            "ms",
            limit=50.0,
            note=f"{spread(took_ms)}; from the API server's answer to who wrote the status",
        ),
    ]


@contextlib.contextmanager
def _watcher(cluster: OwnKubernetes) -> Iterator[subprocess.Popen[bytes]]:
    plan = json.dumps({"kubeconfig": str(cluster.kubeconfig), "count": _DEPLOYMENTS})
    argv = [sys.executable, "-m", "bench.kubernetes_daemon", plan]
    watcher = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield watcher
    finally:
        end(watcher)


def _told(watcher: subprocess.Popen[bytes]) -> Any:
    assert watcher.stdout is not None
    line = watcher.stdout.readline()
    if not line:
        raise NotInTimeError("the daemon that watches the pods has ended")
    return json.loads(line)


def _fail(cluster: OwnKubernetes, watcher: subprocess.Popen[bytes], number: int) -> float:
    """Milliseconds from a pod's status to what was decided of it."""
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s"}
    status = _status(number, 0) | {
        "containerStatuses": [{**_container(number), "ready": False, "state": {"waiting": waiting}}]
    }
    cluster.merge(f"/api/v1/namespaces/default/pods/{_name(number)}-0/status", {"status": status})
    written = time.monotonic()
    told = _told(watcher)
    assert told["service"] == _name(number), told
    return max(0.0, 1000 * (float(told["at"]) - written))


async def _fill(cluster: OwnKubernetes) -> None:
    room = asyncio.Semaphore(40)
    cluster.call("POST", "/api/v1/namespaces/default/serviceaccounts", _named("default"))
    headers = {"Authorization": f"Bearer {cluster.token}"}
    connector = aiohttp.TCPConnector(ssl=False, limit=40)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def call(method: str, path: str, body: object) -> Any:
            kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
            data, more = json.dumps(body), {"Content-Type": kind}
            async with session.request(
                method, cluster.server + path, data=data, headers=more
            ) as answer:
                found = await answer.json()
                assert answer.status < 300, found
                return found

        async def make(number: int) -> None:
            async with room:
                await _workload(number, call)

        await asyncio.gather(*(make(number) for number in range(_DEPLOYMENTS)))


async def _workload(number: int, call: Any) -> None:
    """A Deployment, its ReplicaSet and its pods, with the status that their controllers write."""
    name, counts = _name(number), dict.fromkeys(("replicas", "readyReplicas"), _REPLICAS)
    body = deployment(name, "docker.io/library/shop:1", replicas=_REPLICAS)
    body["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] = "abc"
    made = await call("POST", _SHOPS, body)
    status = {"observedGeneration": made["metadata"]["generation"], **counts}
    await call("PATCH", f"{_SHOPS}/{name}/status", {"status": status})
    labels = {"app": name, "pod-template-hash": "abc"}
    sets = _SHOPS.replace("deployments", "replicasets")
    replica_set = {
        "metadata": _owned(f"{name}-abc", labels, "Deployment", made),
        "spec": body["spec"] | {"selector": {"matchLabels": labels}},
    }
    owner = await call("POST", sets, replica_set)
    for replica in range(_REPLICAS):
        pod = {
            "metadata": _owned(f"{name}-{replica}", labels, "ReplicaSet", owner),
            "spec": body["spec"]["template"]["spec"] | {"nodeName": "node1"},
        }
        await call("POST", "/api/v1/namespaces/default/pods", pod)
        where = f"/api/v1/namespaces/default/pods/{name}-{replica}/status"
        await call("PATCH", where, {"status": _status(number, replica)})


def _name(number: int) -> str:
    return f"shop-{number:04}"


def _named(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}}


def _owned(name: str, labels: dict[str, str], kind: str, owner: Any) -> dict[str, Any]:
    above = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    return {"name": name, "labels": labels, "ownerReferences": [above]}


def _container(number: int) -> dict[str, Any]:
    started = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    return {
        "name": "web",
        "image": "docker.io/library/shop:1",
        "imageID": "sha256:" + "a" * 64,
        "containerID": f"containerd://{number:064}",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": started,
    }


def _status(number: int, replica: int) -> dict[str, Any]:
    at = "2026-01-01T00:00:00Z"
    kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    conditions = [{"type": one, "status": "True", "lastTransitionTime": at} for one in kinds]
    return {
        "phase": "Running",
        "podIP": f"198.18.{number % 250}.{replica + 1}",
        "startTime": at,
        "conditions": conditions,
        "containerStatuses": [_container(number)],
    }
