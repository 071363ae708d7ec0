"""What is known of the objects that circuits are in, from watches; and waiting until it is so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from prunella.core.model import ServiceId
from prunella.core.traffic import Valve
from prunella.errors import TransientError
from prunella.gateways._kube_circuits import Circuit
from prunella.gateways._kube_objects import Held, Note, Slice, listed, mapping, note_in
from prunella.gateways._kube_pods import is_able, is_behind, is_shut, selector_of
from prunella.kube.kinds import ENDPOINT_SLICE, POD, Kind
from prunella.kube.pods import CIRCUIT, SERVING, Pod
from prunella.kube.reflector import Reflector
from prunella.kube.shared import SharedCluster


class Point(NamedTuple):
    """Where the circuit of a service is."""

    circuit: Circuit
    namespace: str
    name: str
    owner: ServiceId  # how we sign

    def __str__(self) -> str:
        return f"{self.circuit.kind.name} {self.namespace}/{self.name}"


class View:
    """The newest knowledge of all points of one cluster, without I/O once it is ready."""

    def __init__(self, cluster: SharedCluster) -> None:
        self._cluster = cluster
        self._followed: set[Reflector[Pod]] = set()
        self._listener: Callable[[], None] | None = None

    def follow(self, listener: Callable[[], None]) -> None:
        """Have it called when pods have changed."""
        self._listener = listener

    async def ready(self, points: Iterable[Point]) -> None:
        """Raises: TransientError, PermanentError: it cannot be told how things are now."""
        needed: set[Reflector[Any]] = set()
        for point in points:
            needed.add(self._held(point.circuit.kind, point.namespace))
            if point.circuit.shuts:
                pods = self._pods(point.namespace)
                needed |= {pods, self._slices(point.namespace)}
                if pods not in self._followed:
                    self._followed.add(pods)
                    pods.listen(self._on_pod)
        await asyncio.gather(*(one.ready() for one in needed))

    def close(self) -> None:
        for pods in self._followed:
            pods.ignore(self._on_pod)
        self._followed.clear()

    def _on_pod(self, _old: Pod | None, _new: Pod | None) -> None:
        if self._listener is not None:
            self._listener()

    def held(self, point: Point) -> Held | None:
        return self._held(point.circuit.kind, point.namespace).get(point.namespace, point.name)

    def share(self, point: Point) -> int | None:
        """Percent that is let through; None: there is no such object.

        Raises: TransientError: what it says makes no sense.
        """
        held = self.held(point)
        return None if held is None else point.circuit.share(held.spec, _note(held))

    def selector(self, point: Point) -> Mapping[str, str]:
        """What a Service asks of its pods; empty: nothing that makes sense."""
        held = self.held(point)
        try:
            return {} if held is None else selector_of(held.spec)
        except TransientError:
            return {}

    def waiting(self, point: Point) -> Sequence[str]:
        """The pods whose gate nobody has opened or shut yet."""
        return [
            one.metadata.name
            for one in self.pods(point)
            if one.is_gated and not one.condition(SERVING).status and not one.is_ending
        ]

    def expired(self, point: Point, now: datetime) -> Valve:
        """What of ours is set past its lease."""

        def is_over(note: Note | None) -> bool:
            return note is not None and note.is_over(point.owner, now)

        held = self.held(point)
        try:
            share = self.share(point) if held is not None and is_over(_note(held)) else None
        except TransientError:
            share = None
        shut = frozenset(
            one.metadata.name
            for one in self.pods(point)
            if is_shut(one) and is_over(note_in(one.metadata.annotations.circuit))
        )
        return Valve(100 if share is None else share, shut)

    def pods(self, point: Point) -> Sequence[Pod]:
        """Those behind a Service, shut or not, by name."""
        if not point.circuit.shuts or not (selector := self.selector(point)):
            return ()
        found = self._pods(point.namespace).items.values()
        behind = [one for one in found if is_behind(one, point.namespace, selector)]
        return sorted(behind, key=lambda one: one.metadata.name)

    def served_by(self, point: Point) -> frozenset[str]:
        """The pods that requests to a Service are led to."""
        slices = self._slices(point.namespace).items.values()
        return frozenset(name for one in slices if one.service == point.name for name in one.ready)

    # Waiting -----------------------------------------------------------------------------------

    async def until_seen(self, point: Point, version: str, within_s: float) -> None:
        """Until the watch has told of that version of the object, or a newer one."""

        def seen() -> bool:
            held = self.held(point)
            return held is None or _number(held.metadata.resource_version) >= _number(version)

        await self._until([self._held(point.circuit.kind, point.namespace)], seen, within_s)

    async def until_served(self, point: Point, *, open_: bool, within_s: float) -> None:
        """Until the endpoints of a Service are what its circuit and its pods say.

        Raises: TransientError: they are not, in time.
        """

        def settled() -> bool:
            served = self.served_by(point)
            if open_:
                return not served
            pods = self.pods(point)
            shut = {one.metadata.name for one in pods if is_shut(one)}
            ready = {one.metadata.name for one in pods if is_able(one) and one.is_ready}
            return not served & shut and ready - shut <= served

        await self._until(
            [self._slices(point.namespace), self._pods(point.namespace)], settled, within_s
        )

    async def until_accepted(self, point: Point, within_s: float) -> None:
        """Until what implements a route says that it has taken up its newest generation; one
        that says nothing is not waited for.

        Raises: TransientError: it has not, in time.
        """

        def taken_up() -> bool:
            held = self.held(point)
            return held is None or all(has_taken_up(held))

        reflector = self._held(point.circuit.kind, point.namespace)
        await self._until([reflector], taken_up, within_s)

    async def until_shut(self, point: Point, name: str, *, shut: bool, within_s: float) -> None:
        """Until a pod is known to be as it was turned, and its Service's endpoints follow.

        Raises: TransientError: they are not, in time.
        """

        def settled() -> bool:
            pod = self._pods(point.namespace).get(point.namespace, name)
            if pod is None:
                return True
            served = name in self.served_by(point)
            if shut:
                return is_shut(pod) and not served
            waits = is_able(pod) and self.share(point) != 0
            return not is_shut(pod) and (served or not waits)

        await self._until(
            [self._slices(point.namespace), self._pods(point.namespace)], settled, within_s
        )

    async def _until(
        self, reflectors: Sequence[Reflector[Any]], done: Callable[[], bool], within_s: float
    ) -> None:
        news = asyncio.Event()

        def listener(_old: object, _new: object) -> None:
            news.set()

        for one in reflectors:
            one.listen(listener)
        try:
            async with asyncio.timeout(within_s):
                while not done():
                    await news.wait()
                    news.clear()
        except TimeoutError as error:
            raise TransientError(
                f"it is set, and {self._cluster.name} has not followed within {within_s:g} s"
            ) from error
        finally:
            for one in reflectors:
                one.ignore(listener)

    def _held(self, kind: Kind, namespace: str) -> Reflector[Held]:
        return self._cluster.reflector(kind, namespace, Held)

    def _pods(self, namespace: str) -> Reflector[Pod]:
        return self._cluster.reflector(POD, namespace, Pod)

    def _slices(self, namespace: str) -> Reflector[Slice]:
        return self._cluster.reflector(ENDPOINT_SLICE, namespace, Slice)


def has_taken_up(held: Held) -> list[bool]:
    """For each gateway that says something of a route, whether it is about this generation.

    What a status says is others', and may be nonsense: then it says nothing.
    """
    try:
        parents = listed(mapping(held.status, "status").get("parents"), "parents")
        conditions: Sequence[Mapping[str, Any]] = [
            one
            for parent in parents
            for one in listed(parent.get("conditions"), "conditions")
            if one.get("type") in ("Accepted", "Programmed")
        ]
    except TransientError:
        return []
    observed = [one.get("observedGeneration") for one in conditions]
    return [one >= held.metadata.generation for one in observed if isinstance(one, int)]


def _note(held: Held) -> Note | None:
    return note_in(held.metadata.annotations.get(CIRCUIT, ""))


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0
