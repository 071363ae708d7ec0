"""What a policy aims at, in its own words: workloads of a kind, by name or by labels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from prunella.config.schema import SERVICE_ID
from prunella.core.model import ServiceId
from prunella.kube.kinds import Json
from prunella.kube.workloads import KINDS


class Workload(NamedTuple):
    """One that is there, as far as policies care."""

    kind: str
    namespace: str
    name: str
    labels: Mapping[str, str] = {}

    @property
    def words(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def of(self) -> tuple[str, str, str]:
        return self.kind, self.namespace, self.name


class Unfit(Exception):
    """A policy that cannot be used, in the words of its condition."""


def service_id(workload: Workload) -> ServiceId:
    """``<namespace>.<name>``; one that would be too long is cut, and told from others by a hash."""
    whole = f"{workload.namespace}.{workload.name}"
    if not re.fullmatch(SERVICE_ID, whole):
        whole = f"{whole[:54]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return ServiceId(whole)


def kinds_of(spec: Json) -> str | None:
    """The kind of workload that a policy looks for; None: it does not say it well."""
    try:
        return aim(spec)[0]
    except Unfit:
        return None


def aim(spec: Json) -> tuple[str, str, Mapping[str, str]]:
    """Kind, and name or labels. Raises: Unfit."""
    target, selector = spec.get("target"), spec.get("selector")
    if (target is None) == (selector is None):
        raise Unfit("expected either 'target' or 'selector'")
    told = selector if target is None else target
    if not isinstance(told, dict):
        raise Unfit("'target' and 'selector' are mappings")
    one = cast("Json", told)
    kind = str(one.get("kind", "Deployment"))
    if kind not in KINDS:
        raise Unfit(f"no kind {kind!r} of workload, expected one of: {', '.join(KINDS)}")
    known = {"kind", "name"} if target is not None else {"kind", "matchLabels"}
    if extra := one.keys() - known:
        raise Unfit(f"unknown key {min(extra)!r}, expected {' and '.join(sorted(known))}")
    if target is not None:
        if not one.get("name"):
            raise Unfit("'target' has no 'name'")
        return kind, str(one["name"]), {}
    labels = one.get("matchLabels")
    if not isinstance(labels, dict) or not labels:
        raise Unfit("'matchLabels' is empty and would match everything: name at least one label")
    return kind, "", {str(key): str(value) for key, value in cast("Json", labels).items()}


def chosen(
    there: Mapping[str, Workload], name: str, labels: Mapping[str, str]
) -> Sequence[Workload]:
    if name:
        return [there[name]] if name in there else []
    return [one for one in there.values() if labels.items() <= one.labels.items()]
