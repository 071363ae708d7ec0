"""What Argo CD and Flux have in a cluster, as far as it is read here."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from tests.platforms.kube_bed import Bed

from prunella.kube.kinds import Json, Kind
from prunella.platforms._kube_keepers import APPLICATION, HELM_RELEASE, KUSTOMIZATION, SOURCES
from prunella.platforms._kube_pause import PAUSED_SYNC

KINDS_BY_NAME = {
    one.name: one for one in (APPLICATION, KUSTOMIZATION, HELM_RELEASE, *SOURCES.values())
}


def definition(kind: Kind) -> Json:
    """The least that an API server has to know of a kind.

    Argo CD's have no status of their own as a subresource, Flux's have; here none has, so that
    tests can write it.
    """
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "kind": kind.name,
                "listKind": f"{kind.name}List",
            },
            "versions": [version],
        },
    }


def body(kind: Kind, name: str, spec: Any, status: Any, **metadata: Any) -> Json:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {"name": name, **metadata},
        "spec": spec,
        "status": status,
    }


class Kept:
    """The Deployment ``shop``, kept by something that has read revision r1 of its source.

    Attributes:
        source: what tells the revision that there is.
    """

    def __init__(self, bed: Bed, kind: Kind, source: Kind) -> None:
        self.kind = kind
        self.source = source
        self._bed = bed

    @property
    def labels(self) -> Json:
        return {f"{self.kind.group}/name": "keeper"}

    async def set_up(self) -> None:
        bed = self._bed
        for kind in {self.kind, self.source}:
            await _know(bed, kind)
        spec, status = self.as_written()
        await self._make(body(self.kind, "keeper", spec, status))
        if self.source is not self.kind:
            await self._make(body(self.source, "keeper", {}, {"artifact": {"revision": "r1"}}))
        await bed.apply()
        if self.kind is APPLICATION:
            tracking = {"argocd.argoproj.io/tracking-id": "keeper:apps/Deployment:x/shop"}
            await bed.change({"metadata": {"annotations": tracking}})
        else:
            await bed.change({"metadata": {"labels": self.labels}})

    def as_written(self) -> tuple[Json, Json]:
        if self.kind is APPLICATION:
            policy = {"automated": {"prune": True, "selfHeal": True}, "retry": {"limit": 2}}
            return {"project": "shop", "syncPolicy": policy}, {"sync": {"revision": "r1"}}
        reference = {"kind": self.source.name, "name": "keeper"}
        if self.kind is KUSTOMIZATION:
            return {"path": "./shop", "sourceRef": reference}, {"lastAttemptedRevision": "r1"}
        if self.source is SOURCES["HelmChart"]:
            made = f"{self._bed.namespace}/keeper"
            return {"values": {"image": "bad"}, "suspend": False}, {"helmChart": made}
        return {"chartRef": reference}, {}

    async def push(self, revision: str) -> None:
        """Its source has another revision."""
        told = {"sync" if self.kind is APPLICATION else "artifact": {"revision": revision}}
        if self._bed.fake is None:
            await self._merge(self.source, {"status": told})
            return
        found = self._bed.fake.find(self.source, "keeper", self._bed.namespace)
        assert found is not None
        self._bed.fake.put({**found, "status": told}, self._bed.namespace)

    async def change(self, patch: Json) -> None:
        await self._merge(self.kind, patch)

    async def whole(self) -> Json:
        return dict(await self._bed.call("GET", self.kind.path(self._bed.namespace, "keeper")))

    async def spec(self) -> Json:
        return dict((await self.whole())["spec"])

    async def note(self) -> Json | None:
        text = ((await self.whole())["metadata"].get("annotations") or {}).get(PAUSED_SYNC)
        return None if text is None else dict(json.loads(text))

    @property
    def pause(self) -> Json:
        """As Prunella, or a person, sets it."""
        if self.kind is APPLICATION:
            return {"spec": {"syncPolicy": {"automated": None}}}
        return {"spec": {"suspend": True}}

    @property
    def resume(self) -> Json:
        """Another way than it was before, as only a person may set it."""
        if self.kind is APPLICATION:
            return {"spec": {"syncPolicy": {"automated": {"prune": False}}}}
        return {"spec": {"suspend": None}}

    async def is_paused(self) -> bool:
        spec = await self.spec()
        if self.kind is APPLICATION:
            return "automated" not in spec["syncPolicy"]
        return spec.get("suspend") is True

    async def _make(self, whole: Json) -> None:
        if self._bed.fake is not None:  # its objects have no status of a client's making
            self._bed.fake.put(whole, self._bed.namespace)
            return
        path = KINDS_BY_NAME[whole["kind"]].path(self._bed.namespace)
        await self._bed.call("POST", path, whole)

    async def _merge(self, kind: Kind, patch: Json) -> None:
        path = kind.path(self._bed.namespace, "keeper")
        await asyncio.to_thread(self._bed.cluster.merge, path, patch)


async def _know(bed: Bed, kind: Kind) -> None:
    """Have the cluster know a kind, as it does in the moment after it was told."""
    if bed.fake is not None:
        bed.fake.register(kind)
        return
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    with suppress(RuntimeError):  # of an earlier test
        await bed.call("POST", path, definition(kind))
    async with asyncio.timeout(30):
        while True:
            with suppress(RuntimeError):
                await bed.call("GET", kind.path(bed.namespace))
                return
            await asyncio.sleep(0.05)
