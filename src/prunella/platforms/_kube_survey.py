"""Whether a cluster can be reached from here, and what runs there that could be looked after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from prunella.errors import PrunellaError, TransientError
from prunella.kube.client import Cluster, ForbiddenError, MissingError
from prunella.kube.kinds import HPA, Json, Kind
from prunella.kube.workloads import KINDS, Key, Scaler, Workload
from prunella.platforms._kube_owners import foreign, keeper
from prunella.platforms._kube_roster import access_to
from prunella.plugins import Draft
from prunella.ports import Clock

T = TypeVar("T")

_PATIENCE_S = 3.0
_PAGE = "500"
_MORE = 2  # pods that a draft allows beyond those that are wanted


@asynccontextmanager
async def _default_cluster(clock: Clock) -> AsyncGenerator[Cluster]:
    """The one that is meant when a config names none. Raises: PermanentError: there is none."""
    access = await asyncio.to_thread(access_to, None, None)
    cluster = Cluster(access, clock, timeout_s=_PATIENCE_S)
    try:
        yield cluster
    finally:
        await cluster.close()


async def reach(clock: Clock, /) -> str:
    try:
        async with _default_cluster(clock) as cluster:
            await cluster.ask("GET", "/version")
    except PrunellaError as error:
        return str(error)
    return ""


async def survey(clock: Clock, /) -> Sequence[Draft]:
    """All workloads of the context's namespace that no unknown controller owns."""
    async with _default_cluster(clock) as cluster:
        access = cluster.access
        section = {"namespace": access.namespace}
        if access.context:
            section["context"] = access.context
        scalers = {
            one.key: one for one in map(_scaler, await _listed(cluster, HPA, access.namespace))
        }
        drafts: list[Draft] = []
        for name, kind in KINDS.items():
            for whole in await _listed(cluster, kind, access.namespace):
                workload = _as(whole, Workload)
                if foreign(workload):
                    continue
                key = Key(name, access.namespace, workload.metadata.name)
                drafts.append(_draft(section, key, whole, workload, scalers.get(key)))
    return tuple(drafts)


async def _listed(cluster: Cluster, kind: Kind, namespace: str) -> Sequence[Json]:
    """Empty also where the cluster has no such kind, or does not let us look."""
    found: list[Json] = []
    query = {"limit": _PAGE}
    while True:
        try:
            answer = await cluster.ask("GET", kind.path(namespace), query=query)
        except MissingError:
            return ()
        except ForbiddenError:
            if kind is HPA:
                return ()
            raise
        page: Json = msgspec.json.decode(answer)
        found += page.get("items") or ()
        if not (more := page.get("metadata", {}).get("continue")):
            return found
        query["continue"] = more


def _scaler(whole: Json) -> Scaler:
    return _as(whole, Scaler)


def _as(whole: Json, as_: type[T]) -> T:
    try:
        return msgspec.convert(whole, as_)
    except msgspec.ValidationError as error:
        raise TransientError(f"the cluster lists what it should not: {error}") from error


def _draft(
    section: Mapping[str, Any], key: Key, whole: Json, workload: Workload, scaler: Scaler | None
) -> Draft:
    notes: list[str] = []
    if by := keeper(workload.metadata):
        notes.append(f"{by} looks after it: no rollback here.")
    if scaler is not None:
        notes.append(f"HorizontalPodAutoscaler {scaler.metadata.name} sets its number of pods.")
    replicas = workload.spec.replicas or 0
    scale: Mapping[str, Any] = {}
    if scaler is not None:
        scale = {"min": scaler.least, "max": scaler.spec.max_replicas}
    elif replicas:
        scale = {"min": replicas, "max": replicas + _MORE}
    return Draft(
        key.name,
        {**section, "kind": key.kind, "name": key.name},
        _probes(whole),
        scale,
        " ".join(notes),
    )


def _probes(whole: Json) -> Sequence[Mapping[str, Any]]:
    """What the kubelet asks to know whether it is ready, asked by us as well."""
    template: Json = whole["spec"].get("template") or {}
    containers: Sequence[Json] = template.get("spec", {}).get("containers") or ()
    ports: list[Json] = [port for one in containers for port in one.get("ports") or ()]
    for container in containers:
        asked: Json = container.get("readinessProbe") or {}
        if "httpGet" in asked:
            how: Json = asked["httpGet"]
            scheme = str(how.get("scheme", "HTTP")).lower()
            if scheme != "http" or how.get("host"):
                continue
            where = f"{{address}}:{_port(how['port'], ports)}"
            return ({"kind": "http", "url": f"http://{where}{how.get('path') or '/'}"},)
        if "tcpSocket" in asked:
            port = _port(asked["tcpSocket"]["port"], ports)
            return ({"kind": "tcp", "host": "{address}", "port": port},)
    return ()


def _port(wanted: int | str, ports: Sequence[Json]) -> int | str:
    """The number; ``{port}`` where it is the one that a probe gets anyway."""
    first = ports[0] if ports else {}
    if wanted in (first.get("containerPort"), first.get("name")):
        return "{port}"
    named = (int(one["containerPort"]) for one in ports if one.get("name") == wanted)
    return wanted if isinstance(wanted, int) else next(named, 0)
