"""What the Engine says of one container, and what that means: values and no I/O."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_pascal

from prunella.core.model import Instance, InstanceId, InstanceState, Verdict
from prunella.errors import TransientError

SERVICE_LABEL = "prunella.dev/service"
ORIGIN_LABEL = "prunella.dev/origin"  # the name of the container that a replica was made after
REPLICA_LABEL = "prunella.dev/replica"
REPLACES_LABEL = "prunella.dev/replaces"  # the id of the container that another was made instead of

ASIDE = ".prunella-old"  # ends the name of a container that is kept as the way back
COMING = ".prunella-new"  # ends the name of one that is to take another's place

_ENDING_SIGNALS = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM})
_REAL_TIME = re.compile(r"RTMIN(?:\+(\d+))?")
_DOUBTFUL_CODES = frozenset({0, 130, 137, 143})  # how what was asked to end, ends
_NEVER = "0001-01-01T00:00:00Z"


def _filled(value: object) -> object:
    return {} if value is None else value


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_pascal)


StringMap = Annotated[dict[str, str], BeforeValidator(_filled)]


class _Health(_Answer):
    status: str


class _State(_Answer):
    status: str
    oom_killed: bool = Field(default=False, alias="OOMKilled")
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = _NEVER
    health: _Health | None = None


class _Config(_Answer):
    image: str = ""
    labels: StringMap = Field(default_factory=dict[str, str])
    stop_signal: str = ""
    stop_timeout: int | None = None


class _RestartPolicy(_Answer):
    name: str = ""


class _Published(_Answer):
    host_ip: str = ""
    host_port: str = ""


PortMap = Annotated[dict[str, list[_Published] | None], BeforeValidator(_filled)]


class _HostConfig(_Answer):
    network_mode: str = ""
    auto_remove: bool = False
    port_bindings: PortMap = Field(default_factory=dict[str, list[_Published] | None])
    restart_policy: _RestartPolicy = _RestartPolicy()


class _Endpoint(_Answer):
    ip_address: Annotated[str, BeforeValidator(lambda v: v or "")] = Field("", alias="IPAddress")


class _NetworkSettings(_Answer):
    ports: PortMap = Field(default_factory=dict[str, list[_Published] | None])
    networks: Annotated[dict[str, _Endpoint], BeforeValidator(_filled)] = Field(
        default_factory=dict[str, _Endpoint]
    )


class Container(_Answer):
    """A container as one look at it found it."""

    id: str
    name: str
    image: str
    created: str
    restart_count: int = 0
    state: _State
    config: _Config
    host_config: _HostConfig
    network_settings: _NetworkSettings

    @property
    def plain_name(self) -> str:
        return self.name.removeprefix("/")

    @property
    def labels(self) -> Mapping[str, str]:
        return self.config.labels

    @property
    def identity(self) -> str:
        """Names one run: a start is another run, and so is another container."""
        return f"{self.id[:12]}@{self.state.started_at}"

    @property
    def never_ran(self) -> bool:
        return self.state.started_at == _NEVER

    @property
    def is_running(self) -> bool:
        return self.state.status == "running"

    @property
    def stop_timeout_s(self) -> float:
        return 10.0 if self.config.stop_timeout is None else float(self.config.stop_timeout)

    @property
    def fixed_ports(self) -> tuple[str, ...]:
        """The ports of the host that it takes, and that no second one could take as well."""
        bindings = self.host_config.port_bindings.values()
        taken = (one.host_port for several in bindings for one in several or ())
        return tuple(port for port in taken if port not in ("", "0"))

    @property
    def stands_alone(self) -> str:
        """Why there can be no second one like it; empty when there can."""
        if self.fixed_ports:
            ports = ", ".join(self.fixed_ports)
            return f"it takes the host's port {ports}, which a second container cannot have"
        if self.host_config.network_mode.startswith(("host", "container:")):
            return "it shares a network with others, where its ports are taken already"
        return ""

    @property
    def restarts_itself(self) -> bool:
        return self.host_config.restart_policy.name in ("always", "unless-stopped", "on-failure")


def read_container(answer: Any) -> Container:
    """The answer to an inspection.

    Raises:
        TransientError: it is not one.
    """
    try:
        return Container.model_validate(answer)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise TransientError(
            f"the Docker Engine describes a container without a proper {where}"
        ) from error


class Culprit(StrEnum):
    """Who has ended a run, if it was neither itself nor a person."""

    PRUNELLA = "prunella"
    ENGINE = "engine"  # the Engine itself was restarted, and took it along


@dataclass(slots=True)
class Trail:
    """What events have told of a container since its newest start."""

    signals: set[str] = field(default_factory=set[str])
    stopped: bool = False
    died: bool = False

    def follow(self, action: str, attributes: Mapping[str, str]) -> None:
        match action:
            case "start":
                self.signals, self.stopped, self.died = set(), False, False
            case "kill":
                self.signals.add(attributes.get("signal", ""))
            case "stop":
                self.stopped = True
            case "die":
                self.died = True
            case _:
                pass

    def was_asked_to_end(self, stop_signal: str) -> bool:
        """Whether somebody stopped it, or sent it a signal that is meant to end it."""
        ending = {*_ENDING_SIGNALS, _signal_number(stop_signal)} - {0}
        return self.stopped or any(_signal_number(one) in ending for one in self.signals)


def _signal_number(name: str) -> int:
    """As Docker writes it, by name or by number; 0 for none that is known."""
    short = name.upper().removeprefix("SIG")
    if short.isdigit():
        return int(short)
    if real_time := _REAL_TIME.fullmatch(short):
        return signal.SIGRTMIN + int(real_time[1] or 0)
    return next((one.value for one in signal.Signals if one.name == f"SIG{short}"), 0)


class Ending(NamedTuple):
    """In which state a container is, in our words, and why."""

    state: InstanceState
    detail: str = ""


def judge(one: Container, trail: Trail, culprit: Culprit | None) -> Ending:
    """Whether it runs, has failed, or was stopped on purpose; the last whenever in doubt.

    Docker remembers a person's stop for itself and does not tell. What tells is the trail of its
    events: a signal or a stop before the end. Where the end was not witnessed, an exit code that
    a stop would have left as well counts as one.
    """
    match one.state.status:
        case "running":
            return Ending(InstanceState.RUNNING)
        case "restarting":
            words = f"exit code {one.state.exit_code}; Docker is to restart it"
            return Ending(InstanceState.EXITED, words)
        case "paused":
            return Ending(InstanceState.STOPPED, "paused by somebody")
        case "removing":
            return Ending(InstanceState.STOPPED, "being removed")
        case "created":
            return _judge_unstarted(one)
        case _:
            return _judge_end(one, trail, culprit)


def _judge_unstarted(one: Container) -> Ending:
    if one.state.error:
        return Ending(InstanceState.EXITED, one.state.error)
    if one.labels.keys() & {REPLICA_LABEL, REPLACES_LABEL}:
        return Ending(InstanceState.EXITED, "made by Prunella and not started")
    return Ending(InstanceState.STOPPED, "never started")


def _judge_end(one: Container, trail: Trail, culprit: Culprit | None) -> Ending:
    state, code = one.state, one.state.exit_code
    if state.oom_killed:
        return Ending(InstanceState.EXITED, f"out of memory, exit code {code}")
    if state.error:
        return Ending(InstanceState.EXITED, state.error)
    if culprit is Culprit.PRUNELLA:
        return Ending(InstanceState.EXITED, "ended by Prunella and not started again")
    if culprit is Culprit.ENGINE:
        return Ending(InstanceState.EXITED, f"ended with the Docker Engine, exit code {code}")
    if trail.was_asked_to_end(one.config.stop_signal):
        return Ending(InstanceState.STOPPED, f"stopped by somebody, exit code {code}")
    if trail.died or code not in _DOUBTFUL_CODES:
        return Ending(InstanceState.EXITED, f"exit code {code}")
    words = f"exit code {code} while nobody watched: taken for a wish"
    return Ending(InstanceState.STOPPED, words)


_VERDICTS = {"healthy": Verdict.PASS, "unhealthy": Verdict.FAIL}


def instance_of(name: InstanceId, one: Container, ending: Ending, machine: str) -> Instance:
    """The container as a replica. `machine`: where its ports are published; empty: on this one."""
    running = ending.state is InstanceState.RUNNING
    health, pid = one.state.health, one.state.pid
    address, port = _reached_at(one, machine) if running else ("", 0)
    return Instance(
        name,
        ending.state,
        one.identity,
        ending.detail,
        pids=(pid,) if running and not machine and pid > 0 else (),
        revision=one.image,
        verdict=_VERDICTS.get(health.status) if running and health is not None else None,
        restart_count=one.restart_count,
        address=address,
        port=port,
    )


def _reached_at(one: Container, machine: str) -> tuple[str, int]:
    """Where its lowest TCP port answers: as it is published, else inside Docker's own network."""
    ports = one.network_settings.ports
    numbers = (key.removesuffix("/tcp") for key in ports if key.endswith("/tcp"))
    lowest = min((int(number) for number in numbers if number.isdigit()), default=0)
    for published in ports.get(f"{lowest}/tcp") or ():
        if published.host_port.isdigit():
            everywhere = published.host_ip in ("", "0.0.0.0", "::")  # noqa: S104 - read, not bound
            address = "127.0.0.1" if everywhere and not machine else published.host_ip
            return (machine or address), int(published.host_port)
    inside = (endpoint.ip_address for endpoint in one.network_settings.networks.values())
    address = next((address for address in inside if address), "")
    return (address, lowest) if lowest and address and not machine else ("", 0)
