"""All services and tasks of one swarm as a manager of it knows them, kept by its feed.

Swarm tells of services and not of tasks, and an Engine tells of the containers on its own node
only. So the lists are taken anew on each event, again a moment later, since a manager hears from
its nodes in batches, and every few seconds for what happens on other nodes.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from prunella.core.model import Instant
from prunella.errors import PermanentError, TransientError
from prunella.platforms._docker_api import Address, part
from prunella.platforms._docker_feed import Feed, Key
from prunella.platforms._swarm_values import Service, Task
from prunella.ports import Clock

TASK_LABEL = "com.docker.swarm.task.id"
EVERY: Key = ("swarm", "")  # what its listeners listen to

_SERVICES = TypeAdapter(list[Service])
_TASKS = TypeAdapter(list[Task])
_SETTLING_S = (0.3, 1.0)  # when to look again after an event


class SwarmFeed(Feed):
    """What is known of one swarm."""

    filters: ClassVar[Mapping[str, list[str]]] = {
        "type": ["service", "container", "node"],
        "event": ["create", "update", "remove", "start", "die", "destroy"],
    }

    def __init__(self, address: Address, clock: Clock) -> None:
        super().__init__(address, clock)
        self.node = ""  # that we ask
        self.ended: dict[str, str] = {}  # tasks whose end is known already, and their exit code
        self._services: dict[str, Service] = {}
        self._tasks: Mapping[str, Sequence[Task]] = {}
        self._addresses: dict[str, str] = {}
        self._stale = True
        self._settling = False
        self._lock = asyncio.Lock()

    async def take_stock(self, info: Mapping[str, Any], now: str) -> None:  # noqa: ARG002 - of others
        swarm = part(info, "Swarm")
        if not swarm.get("ControlAvailable"):
            raise PermanentError(f"{self.api.address.host} is no manager of a swarm")
        self.node = str(swarm.get("NodeID", ""))
        await self.look(anew=True)

    def follow(self, event: Mapping[str, Any]) -> None:
        attributes = part(event, "Actor", "Attributes")
        task = attributes.get(TASK_LABEL)
        if event.get("Type") == "container" and task is None:
            return  # not one of the swarm's
        if task is not None and event.get("Action") == "die":
            self.ended[task] = str(attributes.get("exitCode", ""))
            self._tell()  # at once: by the next look it may have been replaced
        self._stale = True
        if not self._settling:
            self._settling = True
            self.begin(self._settle())

    async def beat(self) -> None:
        await self.look(anew=True)

    async def look(self, *, anew: bool = False) -> None:
        """Have what is known up to date.

        Raises:
            TransientError, PermanentError: the manager cannot tell.
        """
        self._stale = self._stale or anew
        async with self._lock:
            while self._stale:
                self._stale = False
                try:
                    await self._refresh()
                except BaseException:
                    self._stale = True
                    raise
        self._tell()

    def _tell(self) -> None:
        for listener in self.listeners([EVERY]):
            listener()

    def service(self, name: str) -> Service:
        """The service of that name, id, or beginning of an id.

        Raises:
            PermanentError: there is none, or more than one.
        """
        exact = [one for one in self._services.values() if name in (one.name, one.id)]
        found = exact or [one for one in self._services.values() if one.id.startswith(name)]
        if len(found) != 1:
            which = f"{len(found)} services are called" if found else "there is no service"
            raise PermanentError(f"{which} {name}")
        return found[0]

    def tasks(self, service: Service) -> Sequence[Task]:
        """All of its tasks that are remembered, newest first."""
        return self._tasks.get(service.id, ())

    def address(self, node: str) -> str:
        """Where the ports of a node are published; empty when unknown."""
        if node == self.node and self.api.address.is_local:
            return "127.0.0.1"
        return self._addresses.get(node, "")

    async def _settle(self) -> None:
        began = self.clock.now()
        try:
            for after_s in (0.0, *_SETTLING_S):
                await self.clock.sleep_until(Instant(began + after_s))
                await self.look(anew=True)
        except (TransientError, PermanentError):
            return  # the next stock-taking says it all
        finally:
            self._settling = False

    async def _refresh(self) -> None:
        try:
            services = _SERVICES.validate_python(await self.api.get("services"))
            tasks = _TASKS.validate_python(await self.api.get("tasks"))
        except ValidationError as error:
            raise TransientError("the manager describes what is no service or task") from error
        by_service = defaultdict[str, list[Task]](list)
        for task in sorted(tasks, key=lambda task: task.created_at, reverse=True):
            by_service[task.service_id].append(task)
        self._services = {one.id: one for one in services}
        self._tasks = by_service
        self.ended = {one.id: self.ended[one.id] for one in tasks if one.id in self.ended}
        if {task.node_id for task in tasks} - {"", *self._addresses}:
            self._addresses = _addresses(await self.api.get("nodes"))


def _addresses(nodes: Any) -> dict[str, str]:
    try:
        return {node["ID"]: str(node["Status"].get("Addr", "")) for node in nodes}
    except (KeyError, TypeError, AttributeError) as error:
        raise TransientError("the manager lists what is no node") from error
