"""What a manager says of a service and of its tasks, and the specs that change it: no I/O."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_pascal

from prunella.platforms._docker_api import part

Spec = dict[str, Any]

_NS = 1e9
_USUAL_GRACE_S = 10.0


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_pascal)


class _Version(_Answer):
    index: int


class _UpdateStatus(_Answer):
    state: str = ""
    message: str = ""


class _ContainerStatus(_Answer):
    pid: int = Field(default=0, alias="PID")
    exit_code: int = 0


class _Port(_Answer):
    protocol: str = "tcp"
    target_port: int = 0
    published_port: int = 0


class _Ports(_Answer):
    ports: Annotated[tuple[_Port, ...], BeforeValidator(lambda v: v or ())] = ()


class Service(_Answer):
    """A service; its specs are kept as they are, to be sent back with one thing changed."""

    id: str = Field(alias="ID")
    version: _Version
    spec: dict[str, Any]
    previous_spec: dict[str, Any] | None = None
    update_status: _UpdateStatus = _UpdateStatus()

    @property
    def name(self) -> str:
        return str(self.spec.get("Name", ""))

    @property
    def replicas(self) -> int | None:
        """How many there should be; None: one on every node."""
        mode = part(self.spec, "Mode")
        return int(part(mode, "Replicated").get("Replicas", 1)) if "Replicated" in mode else None

    @property
    def image(self) -> str:
        return image_of(self.spec)

    @property
    def force_count(self) -> int:
        return int(part(self.spec, "TaskTemplate").get("ForceUpdate", 0))

    @property
    def identity(self) -> str:
        """Another one with every change that makes Swarm replace the tasks."""
        template = json.dumps(part(self.spec, "TaskTemplate"), sort_keys=True)
        return f"{self.id[:12]}@{hashlib.sha256(template.encode()).hexdigest()[:12]}"

    @property
    def ports(self) -> tuple[_Port, ...]:
        """What it publishes, as its spec says."""
        return _Ports.model_validate(part(self.spec, "EndpointSpec")).ports

    def replacement_s(self, call_s: float) -> float:
        """How long it may take to end and start all tasks one after the other."""
        grace_ns = part(self.spec, "TaskTemplate", "ContainerSpec").get("StopGracePeriod")
        grace_s = _USUAL_GRACE_S if grace_ns is None else float(grace_ns) / _NS
        pause_s = float(part(self.spec, "UpdateConfig").get("Delay", 0)) / _NS
        return (self.replicas or 1) * (grace_s + pause_s + call_s)

    def oddities(self) -> list[str]:
        """What a person should know about it."""
        found: list[str] = []
        policy = part(self.spec, "TaskTemplate", "RestartPolicy")
        condition = policy.get("Condition", "any")
        if condition != "none":
            found.append(
                f"restart condition {condition}: Swarm replaces a task that has ended by itself "
                "as well. That counts in the budget."
            )
        if "@sha256:" not in self.image:
            found.append(
                f"{self.image} is named without its digest: a rollback to it brings whatever has "
                "that name by then."
            )
        if self.replicas is None:
            found.append("It cannot be scaled: it runs once on every node.")
        if part(self.spec, "UpdateConfig").get("FailureAction") == "rollback":
            found.append("Swarm rolls a failed update back by itself; that is not done again.")
        return found


class _TaskStatus(_Answer):
    state: str
    err: str = ""
    message: str = ""
    container_status: _ContainerStatus | None = None
    port_status: _Ports = _Ports()


class _TaskSpec(_Answer):
    container_spec: dict[str, Any] = Field(default_factory=dict[str, Any])
    force_update: int = 0


class Task(_Answer):
    """One run of one replica, or what is left of it."""

    id: str = Field(alias="ID")
    service_id: str = Field(alias="ServiceID")
    slot: int = 0
    node_id: str = Field(default="", alias="NodeID")
    created_at: str
    desired_state: str
    spec: _TaskSpec
    status: _TaskStatus

    @property
    def image(self) -> str:
        return str(self.spec.container_spec.get("Image", ""))


def image_of(spec: Mapping[str, Any] | None) -> str:
    """What a service's spec says to run; empty where it says nothing."""
    return str(part(spec or {}, "TaskTemplate", "ContainerSpec").get("Image", ""))


def forced(spec: Spec, count: int) -> Spec:
    """All tasks anew, though nothing else is different, one at a time."""
    spec["TaskTemplate"]["ForceUpdate"] = count
    return _one_at_a_time(spec)


def scaled(spec: Spec, replicas: int) -> Spec:
    spec["Mode"]["Replicated"]["Replicas"] = replicas
    return spec


def rolled_back(service: Service, image: str) -> Spec:
    """Its previous spec, if that is of the wanted image, else the present one with that image.

    The number of replicas stays. An update that fails is to be paused: Swarm's own rollback would
    undo this one.
    """
    previous = service.previous_spec
    if previous is not None and image_of(previous) == image:
        spec = copy.deepcopy({**previous, "Mode": service.spec["Mode"]})
    else:
        spec = copy.deepcopy(service.spec)
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = image
    spec = _one_at_a_time(spec)
    if spec["UpdateConfig"].get("FailureAction") == "rollback":
        spec["UpdateConfig"]["FailureAction"] = "pause"
    return spec


def _one_at_a_time(spec: Spec) -> Spec:
    spec["UpdateConfig"] = {"Order": "stop-first", **part(spec, "UpdateConfig"), "Parallelism": 1}
    return spec
