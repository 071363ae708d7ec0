"""The JSON Schema of the file, for editors and documentation: made from the same specs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel

from prunella.config import schema
from prunella.config.registry import Registry
from prunella.config.words import show_duration, show_ratio, unit_of
from prunella.spec import ReleaseSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Json = dict[str, Any]


def json_schema(registry: Registry | None = None) -> Json:
    """The whole file's schema (2020-12), with the plugins of `registry` or all installed.

    Rules between values are not in it; ``load`` checks them.
    """
    registry = registry or Registry.discovered()
    defs: Json = {}
    root = _spec(schema.File, "file", defs)
    service = _spec(schema.Service, "service", defs)
    platforms = {
        kind: _spec(plugin.spec, f"platform.{kind}", defs)
        for kind, plugin in sorted(registry.platforms.items())
    }
    probes = {
        kind: _with_kind(_spec(plugin.spec, f"probe.{kind}", defs), kind)
        for kind, plugin in sorted(registry.probes.items())
    }
    releases = {
        kind: _with_kind(_spec(plugin.spec, f"release.{kind}", defs), kind)
        for kind, plugin in sorted(registry.releases.items())
    }
    gateways = {
        kind: _with_kind(_spec(plugin.spec, f"gateway.{kind}", defs), kind)
        for kind, plugin in sorted(registry.gateways.items())
    }
    routes = {
        kind: _spec(plugin.route, f"route.{kind}", defs)
        for kind, plugin in sorted(registry.gateways.items())
    }
    defs |= {f"gateway.{kind}": spec for kind, spec in gateways.items()}
    defs |= {f"route.{kind}": spec for kind, spec in routes.items()}
    defs |= {f"platform.{kind}": spec for kind, spec in platforms.items()}
    defs |= {f"probe.{kind}": spec for kind, spec in probes.items()}
    defs |= {f"release.{kind}": spec for kind, spec in releases.items()}
    defs["release"] = _spec(ReleaseSpec, "release", defs)
    defs["service"] = _with_plugins(service, platforms, list(probes), list(releases))
    properties = defs["service"]["properties"]
    properties["gateway"] = _one_of(properties["gateway"], "route", routes, several=True)
    root["properties"]["gateways"] = {
        "description": root["properties"]["gateways"]["description"],
        "type": "object",
        "additionalProperties": _one_of({}, "gateway", gateways),
    }
    services = root["properties"]["services"]
    root["if"] = {"not": {"required": ["operator"]}}
    root["then"] = {"required": ["services"], "properties": {"services": {"minProperties": 1}}}
    services |= {
        "propertyNames": {"pattern": schema.SERVICE_ID},
        "additionalProperties": {"$ref": "#/$defs/service"},
    }
    root["$defs"] = defs
    readable = cast("Json", _readable(root))
    return {"$schema": DIALECT, "title": "Prunella configuration", **readable}


def _spec(model: type[BaseModel], name: str, defs: Json) -> Json:
    """The schema of one spec; what it refers to goes to `defs` under a name of its own."""
    prefix = f"{name}."
    made: Json = model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    defs |= {f"{prefix}{key}": value for key, value in made.pop("$defs", {}).items()}
    return made


def _with_kind(spec: Json, kind: str) -> Json:
    """A probe's or a release's schema with the key that chooses it."""
    required = [key for key in spec.get("required", ()) if key != "kind"]
    properties = {"kind": {"const": kind}, **{k: v for k, v in _properties(spec) if k != "kind"}}
    return {**spec, "properties": properties, "required": ["kind", *required]}


def _one_of(
    described: Json, prefix: str, specs: Mapping[str, Json], *, several: bool = False
) -> Json:
    """One of these; `several`: more than one may fit, since another key says which it is."""
    kept = {key: described[key] for key in ("description",) if key in described}
    choices = [{"$ref": f"#/$defs/{prefix}.{kind}"} for kind in specs]
    return {**kept, ("anyOf" if several else "oneOf"): choices} if choices else {"not": {}}


def _with_plugins(
    service: Json, platforms: Mapping[str, Json], probes: list[str], releases: list[str]
) -> Json:
    """A service's schema with the sections of all platforms, of which one may stand there."""
    properties = dict(_properties(service))
    properties["platform"] = {**properties["platform"], "enum": list(platforms)}
    properties["probes"] = {
        **properties["probes"],
        "items": {"oneOf": [{"$ref": f"#/$defs/probe.{kind}"} for kind in probes]},
    }
    named = [f"release.{kind}" for kind in releases]
    properties["release"] = {
        "description": properties["release"]["description"],
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in ("release", *named)],
    }
    if not probes:
        properties["probes"]["items"] = False
    if not platforms:
        return {**service, "properties": {**properties, "platform": False}}
    properties |= {kind: {"$ref": f"#/$defs/platform.{kind}"} for kind in platforms}
    return {**service, "properties": properties, "allOf": [*_choices(platforms)]}


def _choices(platforms: Mapping[str, Json]) -> list[Json]:
    return [
        {
            "if": {"properties": {"platform": {"const": kind}}, "required": ["platform"]},
            "then": {
                "properties": {other: False for other in platforms if other != kind},
                "required": [kind] if spec.get("required") else [],
            },
        }
        for kind, spec in platforms.items()
    ]


def _properties(spec: Json) -> list[tuple[str, Any]]:
    return list(cast("Json", spec.get("properties", {})).items())


def _readable(value: Any) -> Any:
    """Durations and ratios as they would be written; what says nothing new left out."""
    if isinstance(value, list):
        return [_readable(item) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    node: Json = {str(key): _readable(item) for key, item in cast("Json", value).items()}
    if isinstance(node.get("title"), str):
        del node["title"]  # the key once more
    default = node.get("default")
    if default is None or default in ({}, []) or "$ref" in node:
        node.pop("default", None)  # a mapping's defaults stand at its keys
    if isinstance(default, int | float) and not isinstance(default, bool):
        node["default"] = _written(node, default)
    return node


def _written(node: Json, default: float) -> Any:
    for one in [node, *node.get("anyOf", ())]:
        unit = unit_of(one)
        if unit is not None and unit[2] in (show_duration, show_ratio):
            return unit[2](default)
    return default
