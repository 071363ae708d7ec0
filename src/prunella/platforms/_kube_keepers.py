"""What Argo CD and Flux keep of a workload: by which object, what it wants, and whether it syncs.

What one wants is told by the revision of its source, and by its own spec without the field that
pauses it. Argo CD compares with its source also while it does not sync; what Flux has suspended
is not looked at any more, so that its source is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import msgspec

from prunella.errors import PermanentError, TransientError
from prunella.kube.client import Cluster
from prunella.kube.kinds import Json, Kind, NotedMeta

APPLICATION = Kind("argoproj.io", "v1alpha1", "applications", "Application")
KUSTOMIZATION = Kind("kustomize.toolkit.fluxcd.io", "v1", "kustomizations", "Kustomization")
HELM_RELEASE = Kind("helm.toolkit.fluxcd.io", "v2", "helmreleases", "HelmRelease")
_SOURCE = ("source.toolkit.fluxcd.io", "v1")
SOURCES = {
    name: Kind(*_SOURCE, plural, name)
    for plural, name in (
        ("gitrepositories", "GitRepository"),
        ("ocirepositories", "OCIRepository"),
        ("buckets", "Bucket"),
        ("helmcharts", "HelmChart"),
        ("externalartifacts", "ExternalArtifact"),
    )
}
_TRACKING, _INSTANCE = "argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance"
_DIGEST_LENGTH = 8


class Keeper(NamedTuple):
    """The object by which a workload is kept as it is written elsewhere."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.name} {self.name} in namespace {self.namespace}"


def keeper_of(metadata: NotedMeta, argo: str) -> Keeper | None:
    """None: it is not kept by Argo CD or Flux.

    Args:
        argo: namespace of the Applications whose namespace is not told.
    """
    marks = {**metadata.annotations, **metadata.labels}
    if named := marks.get(_TRACKING, "").partition(":")[0] or marks.get(_INSTANCE, ""):
        namespace, _, name = named.rpartition("_")  # one of another namespace than Argo CD's
        return Keeper(APPLICATION, namespace or argo, name)
    for kind in (KUSTOMIZATION, HELM_RELEASE):
        if name := marks.get(f"{kind.group}/name", ""):
            return Keeper(kind, marks.get(f"{kind.group}/namespace", metadata.namespace), name)
    return None


def part(whole: Json, *path: str) -> Json:
    """A part of an object; empty: it is not there."""
    found = whole
    for name in path:
        found = cast("Json", found.get(name) or {})
    return found


def restorer(keeper: Keeper, whole: Json) -> str:
    """Who would undo a pause, since it looks after the keeper itself; empty: nobody is known."""
    if keeper.kind is not APPLICATION:
        return ""  # Flux applies the fields that are written, and `suspend` is hardly one of them
    metadata = msgspec.convert(whole["metadata"], NotedMeta)
    if metadata.owner is not None:
        return f"{metadata.owner.kind} {metadata.owner.name}"
    above = keeper_of(metadata, keeper.namespace)
    return "" if above is None else str(above)


def automation(keeper: Keeper, whole: Json) -> Any:
    """The field that says whether it syncs by itself, as it stands; None: it is not there."""
    if keeper.kind is APPLICATION:
        return part(whole, "spec", "syncPolicy").get("automated")
    return part(whole, "spec").get("suspend")


def is_syncing(keeper: Keeper, field: Any) -> bool:
    if keeper.kind is APPLICATION:
        return field is not None and field.get("enabled") is not False
    return not field


def is_as_paused(keeper: Keeper, field: Any) -> bool:
    """Whether the field stands as `pausing` has set it."""
    return field is None if keeper.kind is APPLICATION else field is True


def pausing(keeper: Keeper) -> Mapping[str, Any]:
    """The merge patch of its spec after which it does not sync by itself."""
    return resuming(keeper, None if keeper.kind is APPLICATION else True)


def resuming(keeper: Keeper, field: Any) -> Mapping[str, Any]:
    """The merge patch of its spec that puts the field back."""
    if keeper.kind is APPLICATION:
        return {"syncPolicy": {"automated": field}}
    return {"suspend": field}


async def wanted(cluster: Cluster, keeper: Keeper, whole: Json) -> str:
    """What it is to deploy now, with one question more for Flux.

    Raises:
        TransientError: it does not tell now.
        PermanentError: its source is missing, of no known kind, or may not be read.
    """
    if keeper.kind is APPLICATION:
        sync = part(whole, "status", "sync")
        revisions: list[str] = sync.get("revisions") or [sync.get("revision") or ""]
        revision = ",".join(revisions)
    else:
        kind, namespace, name = _source(keeper, whole)
        source = await cluster.get(kind, name, namespace)
        revision = str(part(source, "status", "artifact").get("revision") or "")
    if not revision:
        raise TransientError(f"{keeper} does not tell which revision it wants")
    return f"{revision}#{_digest(keeper, whole)}"


def deployed(keeper: Keeper, whole: Json, now: str) -> str:
    """What it has tried to deploy last: what is rolled back from.

    A Kustomization says so itself; of the others it is what they want `now`.
    """
    last = part(whole, "status").get("lastAttemptedRevision")
    if keeper.kind is KUSTOMIZATION and last:
        return f"{last}#{_digest(keeper, whole)}"
    return now


def _source(keeper: Keeper, whole: Json) -> tuple[Kind, str, str]:
    reference = part(whole, "spec", "sourceRef" if keeper.kind is KUSTOMIZATION else "chartRef")
    if not reference and keeper.kind is HELM_RELEASE:  # it has had a HelmChart made for itself
        made = str(part(whole, "status").get("helmChart") or "")
        if not made:
            raise TransientError(f"{keeper} has no chart yet")
        namespace, _, name = made.rpartition("/")
        reference = {"kind": "HelmChart", "namespace": namespace, "name": name}
    kind = SOURCES.get(str(reference.get("kind", "")))
    if kind is None:
        raise PermanentError(
            f"{keeper} has a source of kind {reference.get('kind')}, expected one of: "
            + ", ".join(SOURCES)
        )
    return kind, str(reference.get("namespace") or keeper.namespace), str(reference["name"])


def _digest(keeper: Keeper, whole: Json) -> str:
    paused_by = "syncPolicy" if keeper.kind is APPLICATION else "suspend"
    spec = {key: value for key, value in part(whole, "spec").items() if key != paused_by}
    text = msgspec.json.encode(spec, order="deterministic")
    return hashlib.sha256(text).hexdigest()[:_DIGEST_LENGTH]
