"""Whether the objects that circuits are to be in can have one, and who else changes them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from prunella.core.model import ServiceId
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.gateways._kube_objects import mapping, note_of
from prunella.gateways._kube_pods import is_behind, selector_of, why_not
from prunella.gateways._kube_view import Point
from prunella.kube.client import Cluster, ForbiddenError, MissingError
from prunella.kube.kinds import ENDPOINT_SLICE, POD, SERVICE, Json, Kind
from prunella.kube.pods import Pod
from prunella.ports import Remark

_KEEPERS = (
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
    ("meta.helm.sh/release-name", "Helm"),
)
_PODS = 20  # looked at, behind one Service
_READ = ("get", "list", "watch")


class _Pods(msgspec.Struct, frozen=True):
    items: tuple[Pod, ...] = ()


async def examine(cluster: Cluster, points: Mapping[ServiceId, Point]) -> Sequence[Remark]:
    """What is amiss with each of them; raises nothing for what it finds."""
    found = await asyncio.gather(
        _rights(cluster, [*points.values()]),
        *(_examined(cluster, service, point) for service, point in points.items()),
    )
    remarks = [remark for several in found for remark in several]
    return [*remarks, *_shared(points)]


def _shared(points: Mapping[ServiceId, Point]) -> Iterator[Remark]:
    places = Counter((point.circuit.kind, point.namespace, point.name) for point in points.values())
    for (kind, namespace, name), count in places.items():
        if count > 1:
            yield Remark(
                f"{kind.name} {namespace}/{name} is the route of {count} services: a circuit of "
                "one would be one of all",
                fault=True,
            )


async def _rights(cluster: Cluster, points: Sequence[Point]) -> list[Remark]:
    """What we would have to do, and may not."""
    wanted: set[tuple[str, Kind, str, str]] = set()
    for point in points:
        wanted |= {(verb, point.circuit.kind, "", point.namespace) for verb in (*_READ, "patch")}
        if point.circuit.shuts:
            wanted |= set(product((*_READ, "patch"), [POD], [""], [point.namespace]))
            wanted |= set(product(("list", "watch"), [ENDPOINT_SLICE], [""], [point.namespace]))
            wanted.add(("patch", POD, "status", point.namespace))
    asked = sorted(wanted)
    try:
        allowed = await asyncio.gather(
            *(cluster.allowed(verb, kind, where, sub=sub) for verb, kind, sub, where in asked)
        )
    except PrunellaError as error:
        return [Remark(f"what we may do in {cluster.name} cannot be known: {error}")]
    return [
        Remark(
            f"not allowed in namespace {where}: {verb} {kind.plural}{sub and '/' + sub}",
            fault=True,
        )
        for (verb, kind, sub, where), may in zip(asked, allowed, strict=True)
        if not may
    ]


async def _examined(cluster: Cluster, service: ServiceId, point: Point) -> list[Remark]:
    try:
        item = await cluster.get(point.circuit.kind, point.name, point.namespace)
        found = [*_of_object(point, item)]
        if point.circuit.shuts and not any(one.fault for one in found):
            found += await _of_pods(cluster, point, item)
    except MissingError:
        found = [await _missing(cluster, point)]
    except ForbiddenError as error:
        found = [Remark(str(error), fault=True)]
    except (TransientError, PermanentError) as error:
        found = [Remark(f"{point} cannot be looked at: {error}", fault=True)]
    return [Remark(f"{service}: {one.message}", fault=one.fault) for one in found]


async def _missing(cluster: Cluster, point: Point) -> Remark:
    kind = point.circuit.kind
    try:
        await cluster.ask("GET", kind.path(point.namespace), query={"limit": "1"})
    except MissingError:
        return Remark(
            f"the cluster does not know {kind.plural}.{kind.group}/{kind.version}: its "
            "CustomResourceDefinition is not installed",
            fault=True,
        )
    return Remark(f"there is no {point}", fault=True)


def _of_object(point: Point, item: Json) -> Iterator[Remark]:
    spec, note = item.get("spec"), note_of(item)
    if point.circuit.kind == SERVICE:
        yield from _of_service(point, mapping(spec, "spec"))
    else:
        share = point.circuit.share(spec, note)  # says why it makes no sense
        try:
            point.circuit.opened(spec, note if share < 100 else None, 0)
        except ConflictError as error:
            yield Remark(f"{point}: {error}: put it back by hand", fault=True)
        except PermanentError as error:
            yield Remark(f"{point} can have no circuit: {error}", fault=True)
        if _refused(item.get("status")):
            yield Remark(f"{point} is accepted by no gateway: a circuit in it does nothing")
    marks: Json = {
        **(item["metadata"].get("annotations") or {}),
        **(item["metadata"].get("labels") or {}),
    }
    keepers = {name for mark, name in _KEEPERS if mark in marks}
    for keeper in sorted(keepers):
        yield Remark(f"{point} is kept by {keeper}, which may undo a circuit in it")


def _of_service(point: Point, spec: Mapping[str, Any]) -> Iterator[Remark]:
    if spec.get("type") == "ExternalName":
        yield Remark(f"{point} is an ExternalName: requests do not pass the cluster", fault=True)
    elif not selector_of(spec):
        yield Remark(
            f"{point} has no selector: its endpoints are somebody else's, and it can have no "
            "circuit",
            fault=True,
        )
    elif spec.get("clusterIP") == "None":
        yield Remark(
            f"{point} is headless: callers that know the addresses of its pods go on asking them"
        )
    if spec.get("publishNotReadyAddresses"):
        yield Remark(f"{point} publishes pods that are not ready: a readiness gate shuts none")


def _refused(status: Any) -> bool:
    try:
        found = mapping(status, "status")
    except TransientError:
        return False
    return found.get("parents") == []


async def _of_pods(cluster: Cluster, point: Point, item: Json) -> list[Remark]:
    selector = selector_of(item.get("spec"))
    labels = ",".join(f"{name}={value}" for name, value in sorted(selector.items()))
    query = {"labelSelector": labels, "limit": str(_PODS)}
    answer = await cluster.ask("GET", POD.path(point.namespace), query=query)
    try:
        pods = msgspec.json.decode(answer, type=_Pods).items
    except msgspec.DecodeError as error:
        return [Remark(f"the pods of {point} make no sense: {error}")]
    behind = [one for one in pods if is_behind(one, point.namespace, selector)]
    if not behind:
        return [Remark(f"{point} selects no pod")]
    owners = {(one.metadata.owner, one.is_gated): one for one in behind}
    reasons = await asyncio.gather(*(why_not(cluster, one, selector) for one in owners.values()))
    return [Remark(reason) for reason in sorted(set(filter(None, reasons)))]
