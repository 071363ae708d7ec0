"""What a cluster says of workloads and their versions, as far as it is read: no I/O.

A version is what the pods are made from, and two templates that differ only in when somebody had
the pods restarted are the same version. Templates are not kept, only what they add up to.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec

from prunella.kube.kinds import (
    CONTROLLER_REVISION,
    DAEMON_SET,
    DEPLOYMENT,
    REPLICA_SET,
    ROLLOUT,
    STATEFUL_SET,
    Kind,
    Meta,
    NotedMeta,
    Object,
    Struct,
)
from prunella.kube.pods import Condition

KINDS = {one.name: one for one in (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, ROLLOUT)}
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
ROLLOUT_HASH = "rollouts-pod-template-hash"
HASH_LABELS = frozenset({"pod-template-hash", ROLLOUT_HASH})
POD_REVISION_LABEL = "controller-revision-hash"

_DIGEST_LENGTH = 8
_SHA = "@sha256:"
_USUAL_GRACE_S = 30
_USUAL_DEADLINE_S = 600


class Key(NamedTuple):
    """Which workload."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} in namespace {self.namespace}"


class _TemplateMeta(Struct, frozen=True):
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    annotations: dict[str, str] = msgspec.field(default_factory=dict[str, str])


class Template(Struct, frozen=True):
    """What pods are made from. What it adds up to is kept and the rest forgotten, once read.

    Attributes:
        revision: image and digest, for people and to be found again: ``shop:2#1f0c9a77``.
        restarted_at: when somebody had all pods restarted; it is no part of the version.
    """

    metadata: _TemplateMeta | None = None
    spec: dict[str, Any] | None = None
    revision: str = ""
    restarted_at: str = ""
    grace_s: int = _USUAL_GRACE_S

    def __post_init__(self) -> None:
        if self.spec is None:
            return
        metadata = self.metadata or _TemplateMeta()
        labels = {k: v for k, v in metadata.labels.items() if k not in HASH_LABELS}
        notes = {k: v for k, v in metadata.annotations.items() if k != RESTARTED_AT}
        whole = msgspec.json.encode((labels, notes, self.spec), order="deterministic")
        digest = hashlib.sha256(whole).hexdigest()[:_DIGEST_LENGTH]
        found = {
            "revision": f"{_short(_image(self.spec))}#{digest}",
            "restarted_at": metadata.annotations.get(RESTARTED_AT, ""),
            "grace_s": int(self.spec.get("terminationGracePeriodSeconds") or _USUAL_GRACE_S),
            "metadata": None,
            "spec": None,
        }
        for name, value in found.items():
            msgspec.structs.force_setattr(self, name, value)


def with_digest(revision: str, digest: str) -> str:
    """The same image, and something else that tells its versions apart."""
    return f"{revision.partition('#')[0]}#{digest}"


def _image(spec: dict[str, Any]) -> str:
    containers: list[dict[str, Any]] = spec.get("containers") or []
    return str(containers[0].get("image", "")) if containers else ""


def _short(image: str) -> str:
    name = image.rpartition("/")[2]
    before, sha, digest = name.partition(_SHA)
    return f"{before}{sha}{digest[:12]}"


class _Strategy(Struct, frozen=True):
    type: str = ""


class _WorkloadSpec(Struct, frozen=True):
    replicas: int | None = None
    template: Template = Template()
    paused: bool = False
    update_strategy: _Strategy = _Strategy()
    progress_deadline_seconds: int | None = None
    restart_at: str = ""


class _WorkloadStatus(Struct, frozen=True):
    observed_generation: int | str = 0
    current_pod_hash: str = ""  # of a Rollout
    desired_number_scheduled: int = 0
    conditions: tuple[Condition, ...] = ()


class Workload(Object, frozen=True):
    """A Deployment, StatefulSet, DaemonSet or Rollout."""

    metadata: NotedMeta
    spec: _WorkloadSpec = _WorkloadSpec()
    status: _WorkloadStatus = _WorkloadStatus()

    @property
    def revision(self) -> str:
        """The version that it is to run."""
        return self.spec.template.revision

    @property
    def run(self) -> str:
        """Another one with everything that makes its controller replace all pods."""
        template = self.spec.template
        return f"{template.revision}@{self.spec.restart_at or template.restarted_at}"

    @property
    def identity(self) -> str:
        return f"{self.metadata.uid[:8]}@{self.run}"

    @property
    def is_noticed(self) -> bool:
        """Whether its controller has seen what it is to be."""
        return int(self.status.observed_generation or 0) >= self.metadata.generation

    @property
    def deadline_s(self) -> int:
        """How long a new version, and a new pod, may take to become ready."""
        return self.spec.progress_deadline_seconds or _USUAL_DEADLINE_S

    @property
    def is_overdue(self) -> bool:
        """Whether its controller has given up waiting for the version to become ready."""
        return any(
            one.type == "Progressing" and one.reason == "ProgressDeadlineExceeded"
            for one in self.status.conditions
        )


class _Body(Struct, frozen=True):
    template: Template = Template()


class _Data(Struct, frozen=True):
    spec: _Body = _Body()


class Edition(Object, frozen=True):
    """A version of a workload as the cluster keeps it: a ReplicaSet or a ControllerRevision."""

    metadata: Meta
    spec: _Body = _Body()
    data: _Data = _Data()
    revision: int = 0  # of a ControllerRevision: the higher, the newer

    @property
    def template(self) -> Template:
        return self.spec.template if self.spec.template.revision else self.data.spec.template

    @property
    def version(self) -> str:
        """Of a Rollout by the hash that Argo's controller has given it: see `_kube_argo`."""
        pod_hash = self.metadata.labels.get(ROLLOUT_HASH, "")
        written = self.template.revision
        return with_digest(written, pod_hash) if pod_hash and written else written


def edition_kind(kind: str) -> Kind:
    return REPLICA_SET if kind in (DEPLOYMENT.name, ROLLOUT.name) else CONTROLLER_REVISION


class _Target(Struct, frozen=True):
    kind: str = ""
    name: str = ""


class _ScalerSpec(Struct, frozen=True):
    scale_target_ref: _Target = _Target()
    min_replicas: int | None = None
    max_replicas: int = 0


class Scaler(Object, frozen=True):
    """A HorizontalPodAutoscaler."""

    metadata: NotedMeta
    spec: _ScalerSpec = _ScalerSpec()

    @property
    def least(self) -> int:
        return 1 if self.spec.min_replicas is None else self.spec.min_replicas

    @property
    def key(self) -> Key:
        target = self.spec.scale_target_ref
        return Key(target.kind, self.metadata.namespace, target.name)
