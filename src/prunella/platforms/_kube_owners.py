"""Who else looks after a workload, and what we therefore leave alone."""

from __future__ import annotations

from collections.abc import Mapping

from prunella.core.model import ActionKind
from prunella.kube.kinds import DAEMON_SET, DEPLOYMENT, ROLLOUT, NotedMeta
from prunella.kube.workloads import Scaler, Workload

SCALING = (ActionKind.SCALE_UP, ActionKind.SCALE_DOWN)

_ARGO, _FLUX, _HELM = "Argo CD", "Flux", "Helm"
_MARKS = (
    ("argocd.argoproj.io/tracking-id", _ARGO),
    ("argocd.argoproj.io/instance", _ARGO),
    ("kustomize.toolkit.fluxcd.io/name", _FLUX),
    ("helm.toolkit.fluxcd.io/name", _FLUX),
)
_MANAGED_BY = "app.kubernetes.io/managed-by"


def keeper(metadata: NotedMeta) -> str:
    """What keeps the object as it is written elsewhere; empty: nothing that is known."""
    marks = {**metadata.annotations, **metadata.labels}
    for mark, name in _MARKS:
        if mark in marks:
            return name
    return _HELM if marks.get(_MANAGED_BY) == _HELM else ""


def foreign(workload: Workload) -> str:
    """Why nothing at all is done to it; empty: something may be."""
    owner = workload.metadata.owner
    if owner is None:
        return ""
    return (
        f"it belongs to {owner.kind} {owner.name}, a controller that Prunella does not know, "
        "and which may undo or repeat whatever is done to it"
    )


def objections(
    kind: str,
    workload: Workload,
    scaler: Scaler | None,
    *,
    rolling: bool,
    pause: str | None = None,
) -> Mapping[ActionKind, str]:
    """What cannot be done to it, and why.

    Args:
        rolling: it is restarted as a whole, by its controller.
        pause: why the sync of what looks after it cannot be paused; empty: it can; None: it is
            not to be.
    """
    if reason := foreign(workload):
        return dict.fromkeys((ActionKind.RESTART, *SCALING, ActionKind.ROLLBACK), reason)
    found: dict[ActionKind, str] = {}
    by = keeper(workload.metadata)
    if still := _standing_still(kind, workload):
        found[ActionKind.ROLLBACK] = still
        if rolling:
            found[ActionKind.RESTART] = still
    if by and (by == _HELM or pause is None):
        where = (
            "in its own history, with `release: {kind: helm}`, or where it is written, with"
            if by == _HELM
            else "where it is written, with"
        )
        found[ActionKind.ROLLBACK] = (
            f"{by} looks after it and would undo a rollback: roll back {where} "
            "`release: {kind: git-revert}`"
        )
    elif by and pause:
        found[ActionKind.ROLLBACK] = f"{by} looks after it, and {pause}"
    if kind == DAEMON_SET.name:
        found |= dict.fromkeys(SCALING, "it runs once on every node")
    elif scaler is None and by in (_ARGO, _FLUX):
        found |= dict.fromkeys(SCALING, f"{by} looks after it and would undo it")
    elif scaler is not None and (above := keeper(scaler.metadata)) in (_ARGO, _FLUX):
        found |= dict.fromkeys(SCALING, f"{above} looks after its autoscaler and would undo it")
    return found


def _standing_still(kind: str, workload: Workload) -> str:
    """Why its controller would not replace pods by itself."""
    if kind in (DEPLOYMENT.name, ROLLOUT.name) and workload.spec.paused:
        return "it is paused (spec.paused): nothing that is changed would be rolled out"
    if workload.spec.update_strategy.type == "OnDelete":
        return "its update strategy is OnDelete: its pods stay as they are until they are deleted"
    if not workload.revision:
        return "its pods are described elsewhere (workloadRef)"
    return ""
