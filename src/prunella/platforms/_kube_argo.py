"""What is otherwise with Argo's Rollouts: how their versions are told apart, and gone back to.

A Rollout's template stands there as somebody has written it, and in its ReplicaSets with what the
API server has filled in and Argo's controller has put in. So these never add up to the same, and a
version is told by the hash that the controller has given it, which its status and a label of its
ReplicaSet say.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, cast

from msgspec.structs import replace

from prunella.kube.kinds import Json
from prunella.kube.workloads import ROLLOUT_HASH, Workload, with_digest
from prunella.platforms._kube_keepers import part

_AFFINITY = ("affinity", "podAntiAffinity")
_PUT_IN = "rollout.argoproj.io/ephemeral-metadata"  # labels and annotations, as JSON


class RolloutNames:
    """The versions that Rollouts are to run.

    A controller that has not seen the newest change has not said whether that is another version:
    the same template is the one that it was before.
    """

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, str]] = {}  # by uid: the template, and its hash

    def learn(self, old: Workload | None, new: Workload | None) -> None:
        if new is None:
            if old is not None:
                self._said.pop(old.metadata.uid, None)
        elif new.is_noticed and new.status.current_pod_hash:
            said = (new.spec.template.revision, new.status.current_pod_hash)
            self._said[new.metadata.uid] = said

    def named(self, workload: Workload) -> Workload:
        """The same with the name of its version, where it is a Rollout and that is known."""
        written = workload.spec.template.revision
        pod_hash = workload.status.current_pod_hash if workload.is_noticed else ""
        if not pod_hash:
            before, pod_hash = self._said.get(workload.metadata.uid, ("", ""))
            pod_hash = pod_hash if before == written else ""
        if not (written and pod_hash):  # without a template it is described elsewhere
            return workload
        template = replace(workload.spec.template, revision=with_digest(written, pod_hash))
        return replace(workload, spec=replace(workload.spec, template=template))


def as_written(template: Json, replica_set: Json) -> Json:
    """The template of a ReplicaSet without what Argo's controller has put in, as long as it lasts.

    With it, going back to a version would be the way to yet another one.

    Args:
        replica_set: its metadata.
    """
    metadata, put_in = part(template, "metadata"), _put_in(replica_set)
    for kind in ("labels", "annotations"):
        there = part(metadata, kind)
        for name, value in part(put_in, kind).items():
            if there.get(name) == value:
                del there[name]
        if kind in metadata and not there:
            del metadata[kind]
    affinity, apart = (part(template, "spec", *path) for path in (_AFFINITY[:1], _AFFINITY))
    for rule, terms in [*apart.items()]:
        apart[rule] = [one for one in terms if not _keeps_versions_apart(one)]
        if not apart[rule]:
            del apart[rule]
    if _AFFINITY[1] in affinity and not apart:
        del affinity[_AFFINITY[1]]
    if _AFFINITY[0] in template["spec"] and not affinity:
        del template["spec"][_AFFINITY[0]]
    return template


def _put_in(replica_set: Json) -> Json:
    text = str(part(replica_set, "annotations").get(_PUT_IN, "{}"))
    with contextlib.suppress(ValueError):
        found: Any = json.loads(text)
        if isinstance(found, dict):
            return cast("Json", found)
    return {}


def _keeps_versions_apart(term: Json) -> bool:
    whole: Json = term.get("podAffinityTerm") or term
    expressions: list[Json] = part(whole, "labelSelector").get("matchExpressions") or []
    return any(one.get("key") == ROLLOUT_HASH for one in expressions)
