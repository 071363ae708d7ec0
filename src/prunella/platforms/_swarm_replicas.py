"""From the tasks of a service to its replicas: a slot, or a node, and who fills it now."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from prunella.core.model import Instance, InstanceId, InstanceState
from prunella.platforms._swarm_feed import SwarmFeed
from prunella.platforms._swarm_values import Service, Task

_ENDED = frozenset({"complete", "failed", "rejected"})  # by itself; what was told to end is not
_UNWANTED = frozenset({"remove", "orphaned"})


class Replicas:
    """The replicas of one service, and how often Swarm has replaced each by itself.

    Swarm remembers a few tasks of each slot only, so what it has replaced is counted as it comes.
    """

    def __init__(self) -> None:
        self._counts: dict[InstanceId, int] = {}
        self._counted: dict[InstanceId, frozenset[str]] = {}

    def read(self, service: Service, feed: SwarmFeed) -> tuple[tuple[Instance, ...], int]:
        """Those that run or have ended by themselves, and how many there should be.

        One that is being started for the first time, or anew by an update, is in neither state:
        that it is lacking shows in the number.
        """
        slots: dict[InstanceId, list[Task]] = {}
        for task in feed.tasks(service):
            if task.desired_state not in _UNWANTED:
                where = str(task.slot) if task.slot else task.node_id[:12]
                slots.setdefault(InstanceId(f"{service.name}.{where}"), []).append(task)
        desired = service.replicas
        if desired is None:
            desired = sum(any(t.desired_state == "running" for t in one) for one in slots.values())
        found = [
            instance
            for name, tasks in slots.items()
            if (instance := self._instance(name, tasks, feed)) is not None
        ]
        running_first = sorted(
            found, key=lambda one: (one.state is not InstanceState.RUNNING, one.id)
        )
        return tuple(sorted(running_first[:desired], key=lambda one: one.id)), desired

    def _instance(
        self, name: InstanceId, tasks: Sequence[Task], feed: SwarmFeed
    ) -> Instance | None:
        """The newest task that has run at all says it."""
        count = self._count(name, tasks)
        for task in tasks:
            if task.id in feed.ended and task.desired_state == "running":
                return _exited(name, task, count, f"exit code {feed.ended[task.id]}")
            if task.status.state in _ENDED:
                return _exited(name, task, count, task.status.err or task.status.message)
            if task.status.state == "running":
                if task.desired_state != "running":
                    return None  # it is being replaced
                return _running(name, task, count, feed)
            if task.status.state == "shutdown":
                return None
        return None

    def _count(self, name: InstanceId, tasks: Sequence[Task]) -> int:
        replaced = frozenset(
            older.id
            for newer, older in pairwise(tasks)
            if older.status.state in _ENDED
            and newer.status.container_status is not None
            and newer.spec.force_update == older.spec.force_update
            and newer.image == older.image
        )
        known = self._counted.get(name, frozenset())
        self._counts[name] = self._counts.get(name, 0) + len(replaced - known)
        self._counted[name] = replaced
        return self._counts[name]


def _exited(name: InstanceId, task: Task, count: int, detail: str) -> Instance:
    return Instance(
        name,
        InstanceState.EXITED,
        task.id,
        detail,
        revision=task.image,
        restart_count=count,
    )


def _running(name: InstanceId, task: Task, count: int, feed: SwarmFeed) -> Instance:
    status = task.status.container_status
    pid = status.pid if status is not None and task.node_id == feed.node else 0
    ports = sorted(
        (port.target_port, port.published_port)
        for port in task.status.port_status.ports
        if port.protocol == "tcp"
    )
    published = ports[0][1] if ports else 0
    return Instance(
        name,
        InstanceState.RUNNING,
        task.id,
        pids=(pid,) if pid and feed.api.address.is_local else (),
        revision=task.image,
        restart_count=count,
        address=feed.address(task.node_id) if published else "",
        port=published,
    )
