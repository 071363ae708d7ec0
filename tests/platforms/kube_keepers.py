"""What Argo CD and Flux have in a cluster, as their definitions ask for it."""

import asyncio
import json
from typing import Any

from tests.platforms.kube_bed import Bed
from tests.real.definitions import define, least

from prunella.kube.kinds import Json, Kind
from prunella.platforms._kube_keepers import APPLICATION, HELM_RELEASE, KUSTOMIZATION, SOURCES
from prunella.platforms._kube_pause import PAUSED_SYNC

KINDS_BY_NAME = {
    one.name: one for one in (APPLICATION, KUSTOMIZATION, HELM_RELEASE, *SOURCES.values())
}

_SOURCE = {"repoURL": "https://example.org/shop.git", "path": "./shop"}


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
            await self._make(body(self.source, "keeper", self._source_spec(), _artifact("r1")))
        await bed.apply()
        if self.kind is APPLICATION:
            tracking = {"argocd.argoproj.io/tracking-id": "keeper:apps/Deployment:x/shop"}
            await bed.change({"metadata": {"annotations": tracking}})
        else:
            await bed.change({"metadata": {"labels": self.labels}})

    def as_written(self) -> tuple[Json, Json]:
        """Its spec and status, with what its kind insists on."""
        if self.kind is APPLICATION:
            policy = {"automated": {"prune": True, "selfHeal": True}, "retry": {"limit": 2}}
            where = {"server": "https://kubernetes.default.svc", "namespace": "shop"}
            spec = {"project": "shop", "source": _SOURCE, "destination": where}
            return {**spec, "syncPolicy": policy}, _synced("r1")
        reference = {"kind": self.source.name, "name": "keeper"}
        if self.kind is KUSTOMIZATION:
            source = {"path": "./shop", "sourceRef": reference}
            return {**source, "interval": "10m", "prune": True}, {"lastAttemptedRevision": "r1"}
        values: Json = {"interval": "10m", "values": {"image": "bad"}}
        if self.source is not SOURCES["HelmChart"]:
            return {**values, "chartRef": reference}, {}
        origin = {"kind": "HelmRepository", "name": "charts"}
        chart = {"spec": {"chart": "shop", "version": "1.x", "sourceRef": origin}}
        made = {"helmChart": f"{self._bed.namespace}/keeper"}
        return {**values, "chart": chart, "suspend": False}, made

    def _source_spec(self) -> Json:
        if self.source is SOURCES["HelmChart"]:
            origin = {"kind": "HelmRepository", "name": "charts"}
            return {"interval": "10m", "chart": "shop", "sourceRef": origin}
        scheme = "oci" if self.source is SOURCES["OCIRepository"] else "https"
        return {"interval": "10m", "url": f"{scheme}://example.org/shop"}

    @property
    def otherwise(self) -> Json:
        """Another spec of the keeper itself, as a person may want it."""
        if self.kind is APPLICATION:
            return {"source": {"path": "./other"}}
        return {"path": "./other"} if self.kind is KUSTOMIZATION else {"values": {"image": "good"}}

    async def push(self, revision: str) -> None:
        """Its source has another revision."""
        told = _synced(revision) if self.kind is APPLICATION else _artifact(revision)
        if self._bed.fake is None:
            await self._tell(self.source, told)
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
        kind = KINDS_BY_NAME[whole["kind"]]
        await self._bed.call("POST", kind.path(self._bed.namespace), whole)
        await self._tell(kind, whole["status"])

    async def _tell(self, kind: Kind, status: Json) -> None:
        """As its controller does."""
        sub = "" if kind is APPLICATION else "status"
        path = kind.path(self._bed.namespace, "keeper", sub)
        await asyncio.to_thread(self._bed.cluster.merge, path, {"status": status})

    async def _merge(self, kind: Kind, patch: Json) -> None:
        path = kind.path(self._bed.namespace, "keeper")
        await asyncio.to_thread(self._bed.cluster.merge, path, patch)


def _synced(revision: str) -> Json:
    compared = {"source": _SOURCE, "destination": {}}
    return {"sync": {"status": "Synced", "revision": revision, "comparedTo": compared}}


def _artifact(revision: str) -> Json:
    where = {"path": "shop.tar.gz", "url": "http://source.flux-system/shop.tar.gz"}
    about = {"digest": f"sha256:{'0' * 64}", "lastUpdateTime": "2026-01-01T00:00:00Z"}
    return {"artifact": {**where, **about, "revision": revision}}


async def _know(bed: Bed, kind: Kind) -> None:
    """Have the cluster know a kind: Argo CD's has no status as a subresource, Flux's have."""
    if bed.fake is not None:
        bed.fake.register(kind)
        return
    one = least(kind, subresources={} if kind is APPLICATION else {"status": {}})
    await asyncio.to_thread(define, bed.cluster, [one])
