"""What a cluster says of pods and nodes, as far as it is read: no I/O."""

from __future__ import annotations

import msgspec

from prunella.kube.kinds import Meta, Object, Struct

CIRCUIT = "prunella.dev/circuit"  # the annotation that says what was set
SERVING = "prunella.dev/serving"  # the readiness gate


class Condition(Struct, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


class _Port(Struct, frozen=True):
    container_port: int
    name: str = ""
    protocol: str = "TCP"


class _Container(Struct, frozen=True):
    ports: tuple[_Port, ...] = ()


class _Gate(Struct, frozen=True):
    condition_type: str = ""


class _PodSpec(Struct, frozen=True):
    containers: tuple[_Container, ...] = ()
    node_name: str = ""
    readiness_gates: tuple[_Gate, ...] = ()


class Waiting(Struct, frozen=True):
    reason: str = ""
    message: str = ""


class _Running(Struct, frozen=True):
    started_at: str | None = None


class Terminated(Struct, frozen=True):
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None  # null: it never started

    def __str__(self) -> str:
        reason = f"{self.reason}, " if self.reason not in ("", "Error", "Completed") else ""
        return f"{reason}exit code {self.exit_code}"


class ContainerState(Struct, frozen=True):
    waiting: Waiting | None = None
    running: _Running | None = None
    terminated: Terminated | None = None

    @property
    def started_at(self) -> str:
        one = self.running or self.terminated
        return (one.started_at if one is not None else None) or ""


class ContainerStatus(Struct, frozen=True):
    name: str = ""
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()

    @property
    def started_at(self) -> str:
        """When its newest run began; empty: it never ran."""
        return self.state.started_at or self.last_state.started_at

    @property
    def ending(self) -> Terminated | None:
        """How its newest run that has ended did so."""
        return self.state.terminated or self.last_state.terminated


class _PodStatus(Struct, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    address: str = msgspec.field(default="", name="podIP")
    start_time: str | None = None
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class _Notes(Struct, frozen=True):
    circuit: str = msgspec.field(default="", name=CIRCUIT)


class _PodMeta(Meta, frozen=True):
    annotations: _Notes = _Notes()


class Pod(Object, frozen=True):
    """All that anybody here reads of a pod: one struct, and so one watch."""

    metadata: _PodMeta  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()

    @property
    def is_ending(self) -> bool:
        return bool(self.metadata.deletion_timestamp)

    @property
    def is_over(self) -> bool:
        """It will never run again: evicted by its node, for example."""
        return self.status.phase in ("Failed", "Succeeded")

    @property
    def restart_count(self) -> int:
        return sum(one.restart_count for one in self.status.container_statuses)

    @property
    def started_at(self) -> str:
        """When the newest run of any of its containers began."""
        return max((one.started_at for one in self.status.container_statuses), default="")

    @property
    def identity(self) -> str:
        """Names one run: a restart by the kubelet is another one, and so is another pod.

        When it began is no part of it: of one that could not start the kubelet tells now this, now
        that.
        """
        return f"{self.metadata.uid}@{self.restart_count}"

    def condition(self, kind: str) -> Condition:
        return next((one for one in self.status.conditions if one.type == kind), Condition())

    @property
    def is_ready(self) -> bool:
        return self.condition("Ready").status == "True"

    @property
    def is_gated(self) -> bool:
        """Whether it is to have our condition before it gets requests."""
        return any(one.condition_type == SERVING for one in self.spec.readiness_gates)

    @property
    def has_ended(self) -> bool:
        """Whether one of its containers has, and has not begun anew."""
        return any(one.state.terminated is not None for one in self.status.container_statuses)

    def port(self, name: str) -> int:
        """Its port of that name, or else the first one; 0: it has none."""
        ports = [one for each in self.spec.containers for one in each.ports]
        chosen = [one for one in ports if one.name == name] if name else ports
        return next((one.container_port for one in chosen if one.protocol == "TCP"), 0)


class _NodeStatus(Struct, frozen=True):
    conditions: tuple[Condition, ...] = ()


class Node(Object, frozen=True):
    metadata: Meta
    status: _NodeStatus = _NodeStatus()

    @property
    def is_ready(self) -> bool:
        ready = (one.status for one in self.status.conditions if one.type == "Ready")
        return next(ready, "True") == "True"
