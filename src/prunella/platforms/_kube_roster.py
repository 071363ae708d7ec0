"""All workloads and pods of a cluster, or of one namespace, as they are known now.

One watch for each kind, however many services; what each of them tells is sorted by workload as
it comes, so that an event costs as much as that one workload has pods. Nothing is asked in calm.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from prunella.core.model import Instant
from prunella.errors import PermanentError
from prunella.kube.access import Access, access, contexts
from prunella.kube.client import ForbiddenError, MissingError
from prunella.kube.kinds import HPA, NODE, POD, ROLLOUT, Kind, Object
from prunella.kube.pods import Node, Pod
from prunella.kube.reflector import Reflector
from prunella.kube.shared import SharedCluster, cluster_at, leave
from prunella.kube.workloads import (
    KINDS,
    POD_REVISION_LABEL,
    Edition,
    Key,
    Scaler,
    Workload,
    edition_kind,
)
from prunella.platforms._kube_argo import RolloutNames
from prunella.ports import Clock

T = TypeVar("T", bound=Object)
Listener = Callable[[], None]

_ALLOWED_S = 60.0  # for so long an answer about our rights is remembered


class Roster:
    """What is known of one namespace; or of all, where that is empty."""

    def __init__(self, cluster: SharedCluster, namespace: str, clock: Clock) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.users = 0
        self._clock = clock
        self._workloads: dict[str, Reflector[Workload]] = {}
        self._editions: dict[Kind, Reflector[Edition]] = {}
        self._pods: Reflector[Pod] | None = None
        self._nodes: Reflector[Node] | None = None
        self._scalers: Reflector[Scaler] | None = None
        self._is_complete = False
        self._detach: list[Callable[[], None]] = []
        self._lock = asyncio.Lock()
        self._pods_of: defaultdict[str, dict[str, Pod]] = defaultdict(dict)
        self._editions_of: defaultdict[str, dict[str, Edition]] = defaultdict(dict)
        self._edition: dict[str, Edition] = {}
        self._ended: dict[str, Key] = {}  # of whose pods, by uid, containers have just ended
        self._scaler_of: dict[Key, Scaler] = {}
        self._sick_nodes: dict[str, str] = {}
        self._names = RolloutNames()
        self._listeners: defaultdict[Key, list[Listener]] = defaultdict(list)
        self._changes: defaultdict[Key, int] = defaultdict(int)
        self._allowed: dict[tuple[str, Kind, str, str], tuple[Instant, bool]] = {}

    async def ready(self, kind: str) -> None:
        """Wait until all that is known of workloads of that kind is up to date.

        Raises:
            TransientError: the cluster cannot tell now.
            PermanentError: it refuses, or knows no such kind.
        """
        if kind not in self._workloads:
            self._begin(kind)
        assert self._pods is not None, "it has begun"
        await self._workloads[kind].ready()
        await self._editions[edition_kind(kind)].ready()
        await self._pods.ready()
        if not self._is_complete:
            async with self._lock:
                await self._see_what_we_may()

    def workload(self, key: Key) -> Workload:
        """Raises: PermanentError: there is none."""
        reflector = self._workloads.get(key.kind)
        found = None if reflector is None else reflector.get(key.namespace, key.name)
        if found is None:
            raise PermanentError(f"there is no {key}")
        return self._names.named(found)

    async def read(self, key: Key) -> Workload:
        """As it stands in the cluster in this moment.

        Raises: TransientError, PermanentError: it cannot be had.
        """
        found = await self.cluster.read(KINDS[key.kind], key.name, key.namespace, Workload)
        return self._names.named(found)

    def pods(self, key: Key, workload: Workload) -> Sequence[tuple[Pod, Edition | None]]:
        """Its pods, each with the version that it was made from."""
        uid = workload.metadata.uid
        found: list[tuple[Pod, Edition | None]] = []
        editions = self._editions_of.get(uid, {})
        for pod in self._pods_of.get(uid, {}).values():
            label = pod.metadata.labels.get(POD_REVISION_LABEL, "")
            found.append((pod, editions.get(label) or editions.get(f"{key.name}-{label}")))
        for edition in editions.values():
            made = self._pods_of.get(edition.metadata.uid, {})
            found.extend((pod, edition) for pod in made.values())
        return found

    def editions(self, workload: Workload) -> Iterable[Edition]:
        """The versions that the cluster has kept."""
        return self._editions_of.get(workload.metadata.uid, {}).values()

    def scaler(self, key: Key) -> Scaler | None:
        """What sets its number of pods by itself, as far as we may know."""
        return self._scaler_of.get(key)

    def sick_node(self, name: str) -> str:
        """What is wrong with a node; empty: nothing, or we may not know."""
        return self._sick_nodes.get(name, "")

    def is_alone(self, key: Key) -> bool:
        """Whether no other workload has a container that has just ended, and does not run again."""
        return all(of == key for of in self._ended.values())

    def stamp(self, key: Key) -> int:
        """Another number whenever anything about the workload has changed."""
        return self._changes.get(key, 0)

    def listen(self, key: Key, listener: Listener) -> None:
        self._listeners[key].append(listener)

    def ignore(self, key: Key, listener: Listener) -> None:
        self._listeners[key].remove(listener)
        if not self._listeners[key]:
            del self._listeners[key]
            self._changes.pop(key, None)

    async def allowed(self, verb: str, kind: Kind, namespace: str, *, sub: str = "") -> bool:
        """Whether we may do that; an answer counts for a minute, and for all services."""
        now, what = self._clock.now(), (verb, kind, namespace, sub)
        known = self._allowed.get(what)
        if known is None or now - known[0] > _ALLOWED_S:
            known = (now, await self.cluster.allowed(verb, kind, namespace, sub=sub))
            self._allowed[what] = known
        return known[1]

    def close(self) -> None:
        for detach in self._detach:
            detach()

    # What the watches tell ---------------------------------------------------------------------

    def _begin(self, kind: str) -> None:
        editions = edition_kind(kind)
        told = partial(self._on_workload, kind)  # an item of a list does not say of what kind it is
        self._workloads[kind] = self._attach(KINDS[kind], Workload, told)
        if editions not in self._editions:
            self._editions[editions] = self._attach(editions, Edition, self._on_edition)
        if self._pods is None:
            self._pods = self._attach(POD, Pod, self._on_pod)

    async def _see_what_we_may(self) -> None:
        """Nodes and autoscalers: good to know, and done without where we may not."""
        if self._is_complete:
            return
        if self._nodes is None and await self._may_follow(NODE, ""):
            self._nodes = self._attach(NODE, Node, self._on_node, everywhere=True)
        if self._scalers is None and await self._may_follow(HPA, self.namespace):
            self._scalers = self._attach(HPA, Scaler, self._on_scaler)
        for reflector in (self._nodes, self._scalers):
            if reflector is not None:
                try:
                    await reflector.ready()
                except (ForbiddenError, MissingError):
                    await reflector.close()
        self._is_complete = True

    async def _may_follow(self, kind: Kind, namespace: str) -> bool:
        return all([await self.allowed(verb, kind, namespace) for verb in ("list", "watch")])

    def _attach(
        self,
        kind: Kind,
        as_: type[T],
        listener: Callable[[T | None, T | None], None],
        *,
        everywhere: bool = False,
    ) -> Reflector[T]:
        reflector = self.cluster.reflector(kind, "" if everywhere else self.namespace, as_)
        reflector.listen(listener)
        for present in [*reflector.items.values()]:
            listener(None, present)
        self._detach.append(lambda: reflector.ignore(listener))
        return reflector

    def _on_workload(self, kind: str, old: Workload | None, new: Workload | None) -> None:
        one = new or old
        assert one is not None
        if kind == ROLLOUT.name:
            self._names.learn(old, new)
        self._tell(Key(kind, one.metadata.namespace, one.metadata.name))

    def _on_edition(self, old: Edition | None, new: Edition | None) -> None:
        one = new or old
        assert one is not None
        owner, uid = one.metadata.owner, one.metadata.uid
        if owner is None:
            return
        if new is None:
            self._edition.pop(uid, None)
            _drop(self._editions_of, owner.uid, one.metadata.name)
        else:
            self._edition[uid] = new
            self._editions_of[owner.uid][one.metadata.name] = new
        self._tell(Key(owner.kind, one.metadata.namespace, owner.name))

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        one = new or old
        assert one is not None
        owner = one.metadata.owner
        self._ended.pop(one.metadata.uid, None)
        if old is not None and (new is None or new.metadata.owner != old.metadata.owner):
            before = old.metadata.owner
            if before is not None:
                _drop(self._pods_of, before.uid, one.metadata.uid)
        if owner is None:
            return
        if new is not None:
            self._pods_of[owner.uid][one.metadata.uid] = new
        edition = self._edition.get(owner.uid)
        above = owner if edition is None else edition.metadata.owner
        if above is not None:
            key = Key(above.kind, one.metadata.namespace, above.name)
            if new is not None and new.has_ended and not new.is_over:
                self._ended[one.metadata.uid] = key
            self._tell(key)

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        one = new or old
        assert one is not None
        name, before = one.metadata.name, self._sick_nodes.pop(one.metadata.name, "")
        if new is not None and not new.is_ready:
            self._sick_nodes[name] = f"its node {name} is not ready"
        if before != self._sick_nodes.get(name, "") and self._pods is not None:
            for pod in self._pods.items.values():
                if pod.spec.node_name == name:
                    self._on_pod(pod, pod)

    def _on_scaler(self, old: Scaler | None, new: Scaler | None) -> None:
        if old is not None:
            self._scaler_of.pop(old.key, None)
        if new is not None:
            self._scaler_of[new.key] = new
        for one in (old, new):
            if one is not None:
                self._tell(one.key)

    def _tell(self, key: Key) -> None:
        if listeners := self._listeners.get(key):
            self._changes[key] += 1
            for listener in [*listeners]:
                listener()


def _drop(of: defaultdict[str, dict[str, T]], owner: str, name: str) -> None:
    if owner in of:
        of[owner].pop(name, None)
        if not of[owner]:
            del of[owner]


_Place = tuple[asyncio.AbstractEventLoop, Path | None, str | None, str]
_rosters: dict[_Place, Roster] = {}


def access_to(kubeconfig: Path | None, context: str | None) -> Access:
    """Raises: PermanentError: there is no such way; names those that there are."""
    try:
        return access(kubeconfig, context)
    except PermanentError as error:
        known = ", ".join(sorted(contexts(kubeconfig)))
        if not known or known in str(error):
            raise
        raise PermanentError(f"{error}; known contexts: {known}") from error


def roster_at(kubeconfig: Path | None, context: str | None, namespace: str, clock: Clock) -> Roster:
    """The one roster of that namespace on this event loop; to be left with `leave_roster`.

    Raises: PermanentError: there is no way to that cluster.
    """
    place = (asyncio.get_running_loop(), kubeconfig, context, namespace)
    if place not in _rosters:
        cluster = cluster_at(access_to(kubeconfig, context), clock)
        _rosters[place] = Roster(cluster, namespace, clock)
    _rosters[place].users += 1
    return _rosters[place]


async def leave_roster(roster: Roster) -> None:
    roster.users -= 1
    if roster.users:
        return
    for place, known in [*_rosters.items()]:
        if known is roster:
            del _rosters[place]
    roster.close()
    await leave(roster.cluster)
