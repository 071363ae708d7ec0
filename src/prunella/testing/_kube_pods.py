"""The node of the fake cluster: places pods, runs them, and tells how they are.

An image says what becomes of its container: one whose name begins with ``bad`` cannot be pulled,
``crash`` ends again and again, ``oom`` as well for want of memory, ``unready`` never is ready.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import NamedTuple

from prunella.kube.kinds import EVENT, NODE, Json
from prunella.testing._kube_hands import condition, tell
from prunella.testing._kube_refusals import Key
from prunella.testing._kube_select import at, parts
from prunella.testing._kube_store import Store

_KILLED = 137


class Ended(NamedTuple):
    """How a container ended."""

    reason: str
    code: int


CRASHED = Ended("Error", 1)
OUT_OF_MEMORY = Ended("OOMKilled", _KILLED)


class Node:
    """Attributes:
    start_s: until a container runs, and as long again until it is ready.
    backoff_s: before its second restart; twice as long before each that follows.
    """

    def __init__(self, store: Store) -> None:
        self.start_s = 0.02
        self.backoff_s = 10.0
        self.timers: set[asyncio.TimerHandle] = set()
        self._store = store
        self._placed = 0

    def react(self, key: Key, old: Json | None, new: Json | None) -> None:
        if key.plural == "nodes":
            for pod_key in [one for one in self._store.objects if one.plural == "pods"]:
                self._attend(pod_key)
        elif key.plural == "pods" and new is not None and old is None:
            self.later(0.0, key, self._attend)
        elif key.plural == "pods" and new is not None and at(new, "spec.readinessGates"):
            self.later(0.0, key, self._look_again)

    def later(self, pause_s: float, key: Key, do: Callable[[Key], None]) -> None:
        """Do that with a pod, if it is still the same and there then."""
        uid = self._store.get(key)["metadata"]["uid"]

        def act() -> None:
            self.timers.discard(timer)
            found = self._store.objects.get(key)
            if found is None or found["metadata"]["uid"] != uid:
                return
            if "deletionTimestamp" not in found["metadata"]:
                do(key)

        timer = asyncio.get_running_loop().call_later(pause_s, act)
        self.timers.add(timer)

    # What becomes of a pod ---------------------------------------------------------------------

    def _attend(self, key: Key) -> None:
        """Find a place for it, if it has none."""
        pod = self._store.get(key)
        if parts(pod, "status.containerStatuses") or "deletionTimestamp" in pod["metadata"]:
            return
        if not at(pod, "spec.nodeName"):
            fit = [node["metadata"]["name"] for _, node in self._store.of_kind(NODE) if _fit(node)]
            if not fit:
                words = {"reason": "Unschedulable", "message": "0 nodes are available"}
                placed = condition(self._store, pod, "PodScheduled", holds=False, **words)
                tell(self._store, key, conditions=[placed])
                return
            self._placed += 1
            spec = {**pod["spec"], "nodeName": fit[self._placed % len(fit)]}
            self._store.replace(key, {**pod, "spec": spec})
        if _image(pod).startswith("bad"):
            self._wait(key, "ImagePullBackOff", f'Back-off pulling image "{_image(pod)}"')
        else:
            self._wait(key, "ContainerCreating", "")
            self.later(self.start_s, key, self.run)

    def run(self, key: Key) -> None:
        """Its containers run, and are ready a moment later."""
        running = {"running": {"startedAt": self._store.now()}}
        self._describe(key, running, ready=False, phase="Running")
        image = _image(self._store.get(key))
        if image.startswith("crash"):
            self.later(self.start_s, key, lambda key: self.end(key, CRASHED))
        elif image.startswith("oom"):
            self.later(self.start_s, key, lambda key: self.end(key, OUT_OF_MEMORY))
        elif image.startswith("unready"):
            self.event(key, "Unhealthy", "Readiness probe failed: HTTP probe failed: 503")
        else:
            self.later(self.start_s, key, self._get_ready)

    def end(self, key: Key, how: Ended) -> None:
        """Its container ends, and is started again: at once the first time, later the next."""
        times = self._terminate(key, how)
        if times == 0:
            self.later(self.start_s, key, self._restart)
            return
        words = f"back-off {self.backoff_s:g}s restarting failed container"
        self._wait(key, "CrashLoopBackOff", words)
        self.event(key, "BackOff", words)
        self.later(self.backoff_s * 2 ** (times - 1), key, self._restart)

    def end_often(self, key: Key, how: Ended, times: int) -> None:
        """As if all but the last time were long ago."""
        for _ in range(times - 1):
            self._terminate(key, how)
            self._count(key)
            self._describe(key, {"running": {"startedAt": self._store.now()}}, ready=False)
        self.end(key, how)

    def set_ready(self, key: Key, *, ready: bool) -> None:
        """It is ready or not; its container runs."""
        running = {"running": {"startedAt": self._store.now()}}
        self._describe(key, running, ready=ready, phase="Running")
        if not ready:
            self.event(key, "Unhealthy", "Readiness probe failed: HTTP probe failed: 503")

    def event(self, key: Key, reason: str, message: str) -> None:
        pod = self._store.get(key)
        names = ("name", "namespace", "uid", "resourceVersion")
        meta = {name: pod["metadata"][name] for name in names}
        body = {
            "metadata": {"name": f"{key.name}.{secrets.token_hex(8)}"},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", **meta},
            "reason": reason,
            "message": message,
            "type": "Warning",
            "count": 1,
            "firstTimestamp": self._store.now(),
            "lastTimestamp": self._store.now(),
            "source": {"component": "kubelet", "host": at(pod, "spec.nodeName") or ""},
        }
        self._store.create(EVENT, key.namespace, body)

    # How ---------------------------------------------------------------------------------------

    def _get_ready(self, key: Key) -> None:
        containers = parts(self._store.get(key), "status.containerStatuses")
        if all("running" in one["state"] for one in containers):
            self._describe(key, containers[0]["state"], ready=True)

    def _look_again(self, key: Key) -> None:
        """Somebody else may have opened one of its gates."""
        containers = parts(self._store.get(key), "status.containerStatuses")
        if containers:
            self._describe(key, containers[0]["state"], ready=containers[0]["ready"])

    def _terminate(self, key: Key, how: Ended) -> int:
        """How often it was started again before."""
        ended = {"exitCode": how.code, "reason": how.reason, "finishedAt": self._store.now()}
        before = parts(self._store.get(key), "status.containerStatuses")
        self._describe(key, {"terminated": ended}, ready=False)
        return int(before[0]["restartCount"]) if before else 0

    def _restart(self, key: Key) -> None:
        containers = parts(self._store.get(key), "status.containerStatuses")
        if not any("running" in one["state"] for one in containers):
            self._count(key)
            self.run(key)

    def _count(self, key: Key) -> None:
        listed = parts(self._store.get(key), "status.containerStatuses")
        counted = [{**one, "restartCount": one["restartCount"] + 1} for one in listed]
        tell(self._store, key, containerStatuses=counted)

    def _wait(self, key: Key, reason: str, message: str) -> None:
        waiting = {"reason": reason, **({"message": message} if message else {})}
        self._describe(key, {"waiting": waiting}, ready=False)

    def _describe(self, key: Key, state: Json, *, ready: bool, phase: str = "") -> None:
        pod = self._store.get(key)
        known = {one["name"]: one for one in parts(pod, "status.containerStatuses")}
        containers = [
            self._container(one, known.get(one["name"]), state, ready=ready)
            for one in pod["spec"]["containers"]
        ]
        holds = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready}
        gates = [one["conditionType"] for one in pod["spec"].get("readinessGates", ())]
        opened = {one["type"] for one in parts(pod, "status.conditions") if one["status"] == "True"}
        holds["Ready"] = ready and all(gate in opened for gate in gates)
        kept = [one for one in parts(pod, "status.conditions") if one["type"] not in holds]
        told = [condition(self._store, pod, name, holds=value) for name, value in holds.items()]
        tell(
            self._store,
            key,
            phase=phase or at(pod, "status.phase"),
            conditions=kept + told,
            containerStatuses=containers,
            podIP=at(pod, "status.podIP") or _address(pod),
            hostIP="127.0.0.1",
            startTime=at(pod, "status.startTime") or self._store.now(),
        )

    def _container(self, spec: Json, known: Json | None, state: Json, *, ready: bool) -> Json:
        was: Json = known["state"] if known else {}
        last: Json = {"terminated": was["terminated"]} if "terminated" in was else {}
        return {
            "name": spec["name"],
            "image": spec["image"],
            "imageID": "",
            "ready": ready,
            "started": "running" in state,
            "restartCount": known["restartCount"] if known else 0,
            "state": state,
            "lastState": last or (known or {}).get("lastState", {}),
        }


def _fit(node: Json) -> bool:
    conditions = parts(node, "status.conditions")
    healthy = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return healthy and not at(node, "spec.unschedulable")


def _image(pod: Json) -> str:
    return str(pod["spec"]["containers"][0].get("image", "")).rpartition("/")[2]


def _address(pod: Json) -> str:
    number = int(pod["metadata"]["uid"][:4], 16)
    return f"10.244.{number >> 8}.{number & 255}"
