"""What a cluster is told of kinds that are not its own: as their makers define them, or the least.

The makers' definitions are in no registry that tests may ask. Where ``$PRUNELLA_TEST_CRDS`` names
a folder of them, a cluster is given those, with all that they check, fill in and leave out; for
kinds that it does not hold, and where it is not set, it is given what the tests say of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from tests.real.kubernetes import Kubernetes

from prunella.kube.kinds import Kind
from prunella.testing.site import until

_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_WITHIN_S = 30.0

Json = dict[str, Any]


def name_of(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}"


@cache
def real() -> Mapping[str, Json]:
    """The makers' definitions, by name; none where there is no folder of them."""
    folder = os.environ.get("PRUNELLA_TEST_CRDS")
    if not folder:
        return {}
    texts = [one.read_text() for one in sorted(Path(folder).glob("*.yaml"))]
    return {
        one["metadata"]["name"]: one
        for text in texts
        for one in yaml.load_all(text, yaml.CSafeLoader)
        if one is not None and one["kind"] == "CustomResourceDefinition"
    }


def least(kind: Kind, *, subresources: Json) -> Json:
    """A definition that takes everything. Real ones say which fields there are."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "subresources": subresources,
        "schema": {"openAPIV3Schema": schema},
    }
    approved = {"api-approved.kubernetes.io": "unapproved, for tests only"}
    names = {"plural": kind.plural, "singular": kind.name.lower(), "kind": kind.name}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name_of(kind), "annotations": approved},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {**names, "listKind": f"{kind.name}List"},
            "versions": [version],
        },
    }


def define(cluster: Kubernetes, own: Iterable[Json]) -> None:
    """Have a cluster know these kinds, once it answers for them. Known already: all is well."""
    for one in own:
        definition = real().get(one["metadata"]["name"], one)
        with suppress(RuntimeError):
            cluster.call("POST", _PATH, definition)
        until(partial(_is_served, cluster, definition), _WITHIN_S)


def _is_served(cluster: Kubernetes, definition: Json) -> bool:
    spec = definition["spec"]
    with suppress(RuntimeError):
        for version in spec["versions"]:
            if version["served"]:
                where = f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
                cluster.call("GET", where)
        return True
    return False
