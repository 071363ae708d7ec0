"""What every installed probe, platform and source of releases gives to its users' configuration."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunella import plugins
from prunella.config import ConfigFaults, changes, json_schema, load, parse
from prunella.core.model import Mode, ServiceId
from prunella.core.policy import FleetPolicy, Need, Policy
from prunella.spec import Spec

EXAMPLE = Path(__file__).parents[2] / "examples" / "prunella.yaml"
SECTIONS: list[tuple[str, str, type[Spec]]] = [
    ("probe", kind, plugin.spec) for kind, plugin in plugins.probes().items()
]
SECTIONS += [("platform", kind, plugin.spec) for kind, plugin in plugins.platforms().items()]
SECTIONS += [("release", kind, plugin.spec) for kind, plugin in plugins.releases().items()]


def _faults(text: str) -> list[str]:
    try:
        parse(text, Path("p.yaml"))
    except ConfigFaults as error:
        return [str(fault) for fault in error.faults]
    return []


def _file(role: str, kind: str, key: str) -> str:
    if role == "platform":
        return f"services:\n  s:\n    platform: {kind}\n    {kind}:\n      {key}: 1\n"
    if role == "release":
        return (
            f"services:\n  s:\n    platform: x\n    release:\n      kind: {kind}\n      {key}: 1\n"
        )
    return f"services:\n  s:\n    platform: x\n    probes:\n    - kind: {kind}\n      {key}: 1\n"


@pytest.mark.parametrize(
    ("role", "kind", "spec"), SECTIONS, ids=[f"{role}-{kind}" for role, kind, _ in SECTIONS]
)
def test_every_key_of_a_plugin_can_be_written_and_a_misspelt_one_is_named(
    role: str, kind: str, spec: type[Spec]
) -> None:
    assert spec.model_fields
    for name in spec.model_fields:
        right = _faults(_file(role, kind, name))
        assert not [fault for fault in right if "unknown key" in fault]
        wrong = _faults(_file(role, kind, f"{name}q"))
        place = "5:7" if role == "platform" else "6:7"
        assert f"p.yaml:{place}: unknown key '{name}q', did you mean '{name}'?" in wrong


@pytest.mark.parametrize(
    ("role", "kind", "spec"), SECTIONS, ids=[f"{role}-{kind}" for role, kind, _ in SECTIONS]
)
def test_every_key_of_a_plugin_is_described_for_editors(
    role: str, kind: str, spec: type[Spec]
) -> None:
    properties = json_schema()["$defs"][f"{role}.{kind}"]["properties"]
    assert set(spec.model_fields) <= set(properties)
    assert [name for name in spec.model_fields if "description" not in properties[name]] == []


@pytest.mark.parametrize(
    ("role", "kind", "spec"), SECTIONS, ids=[f"{role}-{kind}" for role, kind, _ in SECTIONS]
)
def test_a_value_of_a_wrong_shape_is_refused_in_plain_words(
    role: str, kind: str, spec: type[Spec]
) -> None:
    nested = "{a: {b: [[true]]}}"
    for name in spec.model_fields:
        faults = _faults(_file(role, kind, name).replace(f"{name}: 1", f"{name}: {nested}"))
        place = 5 if role == "platform" else 6
        ours = [fault for fault in faults if fault.startswith(f"p.yaml:{place}:")]
        assert [fault for fault in ours if f"'{name}'" in fault or "'a'" in fault]
        assert not [fault for fault in ours if re.search(r"Input|pydantic|_type\b", fault)]


def test_paths_of_the_built_in_plugins_start_at_the_file() -> None:
    text = """
    services:
      s:
        platform: process
        process: {command: [a], cwd: run}
        probes:
          - {kind: http, url: "https://h/", socket: s.sock, tls: {ca_file: certs/ca.pem}}
          - {kind: exec, command: [./check.sh]}
      c: {platform: command, command: {observe: [a], restart: [b]}}
    """
    config = parse(text, Path("/etc/prunella/p.yaml"))
    here = Path("/etc/prunella")
    service, bare = (config.services[ServiceId(name)] for name in ("s", "c"))
    platform: Any = service.platform_spec
    command: Any = bare.platform_spec
    probes: list[Any] = [probe.spec for probe in service.probes]
    http, script = probes
    assert (platform.cwd, command.cwd, script.cwd) == (here / "run", here, here)
    assert (http.socket, http.tls.ca_file) == (here / "s.sock", here / "certs/ca.pem")


def test_the_example_is_accepted_and_states_the_defaults() -> None:
    config = load(EXAMPLE)
    shop, basket = (config.services[ServiceId(name)] for name in ("shop", "basket"))
    needs = (Need(ServiceId("cart")), Need(ServiceId("basket"), optional=True))
    assert shop.policy == dataclasses.replace(Policy(), domain="eu", needs=needs)
    assert config.fleet == FleetPolicy()
    assert config.api == ("127.0.0.1", 7110)
    assert basket.policy.mode is Mode.OBSERVE
    assert config.store == f"sqlite:///{EXAMPLE.parent}/prunella.db"


def test_the_example_says_nothing_else_than_the_same_file_without_its_defaults() -> None:
    data: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    for key in ("defaults", "fleet", "api", "retention"):
        del data[key]
    for key in ("interval", "timeout", "expect"):
        del data["services"]["shop"]["probes"][0][key]
    for key in ("cwd", "env", "stop_timeout", "replicas"):
        del data["services"]["shop"]["process"][key]
    short = parse(yaml.safe_dump(data, sort_keys=False), EXAMPLE)
    full = load(EXAMPLE)
    assert short.fleet == full.fleet
    assert short.retention_s == full.retention_s
    for id_, service in full.services.items():
        assert short.services[id_].policy == service.policy
        assert short.services[id_].platform_spec == service.platform_spec
    assert changes(full, short).restart_needed == ()


def test_the_example_is_valid_for_editors() -> None:
    validators = pytest.importorskip("jsonschema_rs")
    data = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    validators.validator_for(json_schema()).validate(data)
