"""Configuration: load a file, check all of it, freeze it. Knows plugins only by their registry."""

from __future__ import annotations

from prunella.config.changes import Changes, changes
from prunella.config.drafts import written
from prunella.config.faults import ConfigFaults, Fault, Places
from prunella.config.jsonschema import json_schema
from prunella.config.load import beside, from_mapping, load, parse
from prunella.config.model import (
    Config,
    GatewayConfig,
    OperatorConfig,
    ProbeConfig,
    ServiceConfig,
)
from prunella.config.places import make_state_folder, state_folder
from prunella.config.registry import Registry

__all__ = [
    "Changes",
    "Config",
    "ConfigFaults",
    "Fault",
    "GatewayConfig",
    "OperatorConfig",
    "Places",
    "ProbeConfig",
    "Registry",
    "ServiceConfig",
    "beside",
    "changes",
    "from_mapping",
    "json_schema",
    "load",
    "make_state_folder",
    "parse",
    "state_folder",
    "written",
]
