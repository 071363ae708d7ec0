"""Whether we may write the history that Helm keeps: it is asked of the cluster, not of Helm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunella.kube.access import access
from prunella.kube.kinds import Kind
from prunella.kube.shared import cluster_at, leave
from prunella.ports import Clock

_KINDS = {
    "secret": Kind("", "v1", "secrets", "Secret"),
    "configmap": Kind("", "v1", "configmaps", "ConfigMap"),
}
_VERBS = ("create", "update")  # a new revision, and what has become of the others


async def lacking(
    driver: str, namespace: str, kubeconfig: Path | None, context: str | None, clock: Clock
) -> Sequence[str]:
    """What we may not do, in words for people.

    Raises: TransientError, PermanentError: the cluster cannot be asked.
    """
    kind = _KINDS.get(driver.removesuffix("s"))
    if kind is None:  # Helm keeps it outside of the cluster
        return ()
    cluster = cluster_at(access(kubeconfig, context), clock)
    try:
        return [
            f"we may not {verb} {kind.plural} in namespace {namespace}, where Helm keeps its "
            "history"
            for verb in _VERBS
            if not await cluster.allowed(verb, kind, namespace)
        ]
    finally:
        await leave(cluster)
