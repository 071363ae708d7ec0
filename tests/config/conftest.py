"""Small plugins to configure: what is tested here is the configuration, not them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, field_validator, model_validator

from prunella.config import Config, ConfigFaults, Registry, parse
from prunella.plugins import GatewayPlugin, PlatformPlugin, ProbePlugin, ReleasePlugin, StorePlugin
from prunella.spec import Duration, GatewaySpec, ProbeSpec, ReleaseSpec, RouteSpec, Size, Spec


class Expect(Spec):
    status: str | tuple[int, ...] = Field(default="200-399", description="Good codes.")


class HttpSpec(ProbeSpec):
    url: str = Field(description="What to ask for.")
    expect: Expect = Field(default=Expect(), description="What a good answer is.")
    follow: bool = Field(default=False, description="Follow redirects.")
    body_limit: Size = Field(default=65536, description="Read at most this much.")

    @field_validator("url")
    @classmethod
    def _has_a_scheme(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("expected a URL such as http://127.0.0.1:8000/")
        return value


class TcpSpec(ProbeSpec):
    timeout: Duration = Field(default=0.5, description="A check that takes longer has failed.")
    port: int = Field(ge=1, le=65535, description="Where to connect.")
    cwd: Path | None = Field(default=None, description="Only here to be resolved.")


class Limits(Spec):
    cwd: Path = Field(default=Path(), description="Only here to be resolved.")


class ProcessSpec(Spec):
    command: tuple[str, ...] = Field(min_length=1, description="Program and arguments.")
    cwd: Path | None = Field(default=None, description="Working directory.")
    files: tuple[Path, ...] = Field(default=(), description="Only here to be resolved.")
    mounts: dict[str, Path] = Field(default={}, description="Only here to be resolved.")
    layers: list[Limits] = Field(default=[], description="Only here to be resolved.")
    env: dict[str, str] = Field(default={}, description="Environment.")
    stop_timeout: Duration = Field(default=10.0, description="Then it is killed.")
    replicas: int = Field(default=1, ge=1, description="How many.")
    limits: Limits = Field(default=Limits(), description="Limits.")

    @property
    def has_ports(self) -> bool:
        return "{port}" in self.command

    @model_validator(mode="after")
    def _not_too_many(self) -> "ProcessSpec":
        if self.replicas > 1 and self.command == ("single",):
            raise ValueError("a single program cannot have replicas")
        return self


class CommandSpec(Spec):
    restart: tuple[str, ...] = Field(default=("true",), description="Program and arguments.")


class FolderSpec(ReleaseSpec):
    cwd: Path = Field(description="Only here to be resolved.")
    keep: int = Field(default=3, ge=1, description="How many.")


class EdgeSpec(GatewaySpec):
    socket: Path = Field(description="Only here to be resolved.")


class BackendSpec(RouteSpec):
    backend: str = Field(min_length=1, description="What it is called there.")


def _unused(*_args: object) -> Any:
    raise AssertionError("a configuration builds nothing")


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry(
        probes={
            "http": ProbePlugin("http", HttpSpec, _unused),
            "tcp": ProbePlugin("tcp", TcpSpec, _unused),
        },
        platforms={
            "process": PlatformPlugin("process", ProcessSpec, _unused),
            "command": PlatformPlugin("command", CommandSpec, _unused),
        },
        stores={"sqlite": StorePlugin("sqlite", _unused)},
        releases={"folder": ReleasePlugin("folder", FolderSpec, _unused)},
        gateways={"edge": GatewayPlugin("edge", EdgeSpec, BackendSpec, _unused)},
    )


@pytest.fixture(scope="session")
def faults_of(registry: Registry) -> Callable[[str | bytes], list[str]]:
    """The fault lines of a text, as a user sees them; none if it is accepted."""

    def check(text: str | bytes) -> list[str]:
        try:
            parse(text, Path("p.yaml"), registry)
        except ConfigFaults as error:
            return str(error).splitlines()
        return []

    return check


@pytest.fixture(scope="session")
def config_of(registry: Registry) -> Callable[[str], Config]:
    """The configuration in a text that stands in /etc/prunella."""
    return lambda text: parse(text, Path("/etc/prunella/p.yaml"), registry)
