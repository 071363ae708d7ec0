"""The schema that editors use, against the validator and against ``load``."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from prunella.config import ConfigFaults, Registry, from_mapping, json_schema

jsonschema_rs = pytest.importorskip("jsonschema_rs")

SOUND: dict[str, Any] = {
    "store": "sqlite:///p.db",
    "state_dir": "./state",
    "api": {"listen": "127.0.0.1:7110", "monitoring": "0.0.0.0:9110"},
    "retention": "90d",
    "defaults": {"interval": "5s", "timeout": 2, "heal": "off", "guards": {"fall": 3}},
    "fleet": {
        "pace": "10s",
        "pace_above": "10%",
        "burst": 4,
        "storm": {"share": 0.3, "services": 3},
    },
    "gateways": {"front": {"kind": "edge", "socket": "./admin.sock", "interval": "2s"}},
    "services": {
        "shop": {
            "name": "Web shop",
            "depends_on": ["other", {"service": "third", "optional": True}],
            "gateway": {"name": "front", "backend": "be_shop"},
            "circuit": {"open_for": "30s", "step": "5s", "requests": 9, "body": "soon"},
            "platform": "process",
            "process": {"command": ["a", "8001"], "env": {"A": "b"}, "stop_timeout": "1h30m"},
            "probes": [
                {"kind": "http", "url": "http://127.0.0.1/", "expect": {"status": [200]}},
                {"kind": "tcp", "port": 80, "interval": "250ms"},
            ],
            "ladder": {"down": ["restart"], "slow": []},
            "cadence": {"suspect": "1s", "long_down": 30, "long_down_after": "5m"},
            "guards": {
                "budget": {"actions": 3, "window": "30m"},
                "flapping": {"recoveries": 3, "window": "1h"},
                "min_healthy": "51%",
            },
            "scale": {"min": 1, "max": 4, "ttl": "10m"},
            "release": {"kind": "folder", "cwd": "./releases", "soak": "1h"},
        },
        "third": {"platform": "command"},
        "other": {"platform": "command", "release": {"soak": "5m", "irreversible": ["v2*"]}},
    },
}

EDITS: list[tuple[str, Any]] = [
    ("gateways/front", {}),
    ("gateways/front/kind", "edges"),
    ("gateways/front/sockets", "x"),
    ("gateways/front/interval", "soon"),
    ("services/shop/gateway/backend", ""),
    ("services/shop/gateway/backends", "x"),
    ("services/shop/circuit/requests", 0),
    ("services/shop/depends_on", "other"),
    ("services/shop/depends_on", [{"optional": True}]),
    ("stor", "sqlite:///x"),
    ("services", {}),
    ("services", None),
    ("services/Shop", {"platform": "command"}),
    ("services/shop/platform", "docker"),
    ("services/shop/platform", "command"),
    ("services/shop/command", {}),
    ("services/shop/process/comand", []),
    ("services/shop/process/command", []),
    ("services/shop/process/command", ["a", 8001]),
    ("services/shop/process/replicas", 0),
    ("services/shop/process/stop_timeout", "soon"),
    ("services/shop/probes/0/kind", "htp"),
    ("services/shop/probes/0/port", 80),
    ("services/shop/probes/1/port", 70000),
    ("services/shop/probes/0/body_limit", "1kb"),
    ("services/shop/heal", "maybe"),
    ("services/shop/grace", True),
    ("services/shop/ladder", {"dwn": ["restart"]}),
    ("services/shop/ladder", {"down": ["reboot"]}),
    ("services/shop/guards/fall", 101),
    ("services/shop/guards/min_healthy", "half"),
    ("services/shop/guards/flapping", 3),
    ("services/shop/guards/flapping/recoveries", 0),
    ("services/shop/cadence", "1s"),
    ("services/shop/cadence/suspect", "often"),
    ("services/shop/cadence/long", "1s"),
    ("fleet/burst", 17),
    ("services/shop/interval", "5s"),
    ("services/shop/scale", {"min": 1}),
    ("services/shop/scale/min", 0),
    ("services/shop/scale/max", "many"),
    ("services/shop/scale/most", 4),
    ("services/shop/release", None),
    ("services/shop/release/kind", "folders"),
    ("services/shop/release/cwdd", "."),
    ("services/shop/release/soak", "soon"),
    ("services/other/release/cwd", "."),
    ("services/other/release/irreversible", "v2"),
    ("services/other/name", ""),
    ("defaults/intervall", "5s"),
    ("defaults/thresholds", {"failed_error_rate": 10}),
    ("fleet/storm/share", "x"),
    ("api", "on"),
    ("api/listen", 7110),
    ("api/monitoring", 9110),
]


def _edited(path: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(SOUND)
    *parents, last = path.split("/")
    here: Any = data
    for key in parents:
        here = here[int(key)] if isinstance(here, list) else here.setdefault(key, {})
    here[last] = value
    return data


@pytest.fixture(scope="module")
def validator(registry: Registry) -> Any:
    return jsonschema_rs.validator_for(json_schema(registry))


def test_it_is_a_schema_of_2020_12_and_plain_json(registry: Registry) -> None:
    schema = json_schema(registry)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema_rs.meta.validate(schema)
    assert json.loads(json.dumps(schema)) == schema


def test_it_accepts_what_is_accepted(validator: Any, registry: Registry) -> None:
    validator.validate(SOUND)
    assert from_mapping(SOUND, registry).services


@pytest.mark.parametrize("off", ["off", False])
def test_off_may_be_a_word_or_what_old_parsers_make_of_it(
    off: object, validator: Any, registry: Registry
) -> None:
    data = _edited("services/shop/heal", off) | {"api": off}
    validator.validate(data)
    assert from_mapping(data, registry).api is None


@pytest.mark.parametrize(("path", "value"), EDITS, ids=[f"{p}={v}" for p, v in EDITS])
def test_it_refuses_what_is_refused(
    path: str, value: Any, validator: Any, registry: Registry
) -> None:
    data = _edited(path, value)
    assert not validator.is_valid(data)
    with pytest.raises(ConfigFaults):
        from_mapping(data, registry)


def _schemas(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for below in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from _schemas(below)


def test_every_key_has_a_description_and_every_mapping_refuses_unknown_keys(
    registry: Registry,
) -> None:
    for schema in _schemas(json_schema(registry)):
        properties = schema.get("properties", {})
        if schema.get("type") == "object" and properties:
            assert schema["additionalProperties"] is False
            kinds = {"kind", *registry.platforms}
            assert [
                k for k, v in properties.items() if k not in kinds and "description" not in v
            ] == []


def test_defaults_are_written_as_a_user_writes_them(registry: Registry) -> None:
    schema = json_schema(registry)
    assert schema["properties"]["retention"]["default"] == "90d"
    assert schema["$defs"]["file.Thresholds"]["properties"]["failed_error_rate"]["default"] == "10%"
    assert schema["$defs"]["file.Backoff"]["properties"]["half_life"]["default"] == "10m"
    assert schema["$defs"]["file.Guards"]["properties"]["fall"]["default"] == 3


def test_a_registry_without_plugins_still_has_a_schema() -> None:
    schema = json_schema(Registry({}, {}, {}))
    jsonschema_rs.meta.validate(schema)
    assert not jsonschema_rs.validator_for(schema).is_valid({"services": {"a": {"platform": "x"}}})


def test_what_is_installed_has_a_schema_that_a_validator_takes() -> None:
    jsonschema_rs.meta.validate(json_schema())
