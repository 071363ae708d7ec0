"""What a real API server was asked for, in its own words: nobody has to be believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

_RESTLESS = [
    {"group": "", "resources": ["events", "nodes/status", "pods/status", "pods/binding"]},
    {"group": "apps", "resources": ["deployments/status", "replicasets/status"]},
    {"group": "coordination.k8s.io"},
    {"group": "authorization.k8s.io"},
]
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Metadata",
            "verbs": ["list"],
            "resources": [{"group": "apps", "resources": ["deployments"]}],
        },
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "resources": _RESTLESS},
        {"level": "Metadata"},
    ],
}


class Audit:
    """Every request to change something that lasts, and every list of Deployments.

    The server writes it down before it answers, so what has been answered is there.
    """

    def __init__(self, folder: Path) -> None:
        self._policy, self._log = folder / "audit.yaml", folder / "audit.log"
        self._policy.write_text(yaml.safe_dump(_POLICY))

    def options(self) -> tuple[str, ...]:
        """Of the API server."""
        return f"--audit-policy-file={self._policy}", f"--audit-log-path={self._log}"

    def asked(self, namespace: str, agent: str = "prunella") -> list[str]:
        """What `agent` has asked for there, in order: ``201 create pods/eviction shop-1``."""
        entries = map(json.loads, self._log.read_text().splitlines())
        return [
            _words(one)
            for one in entries
            if one.get("userAgent", "").startswith(agent)
            and one.get("objectRef", {}).get("namespace") == namespace
        ]


def _words(entry: dict[str, Any]) -> str:
    what = entry["objectRef"]
    resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
    code = entry["responseStatus"]["code"]
    return f"{code} {entry['verb']} {resource} {what.get('name', '')}".strip()
