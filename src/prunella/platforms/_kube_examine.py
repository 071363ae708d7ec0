"""Whether a workload can be looked after, and what will not be done to it: for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from prunella.core.model import ActionKind
from prunella.kube.kinds import HPA, NODE, POD, Kind
from prunella.kube.workloads import KINDS, Key, edition_kind
from prunella.platforms._kube_owners import SCALING, foreign, objections
from prunella.platforms._kube_roster import Roster
from prunella.platforms._kube_scaler import changed_at
from prunella.platforms._kube_view import View
from prunella.ports import Remark

_Right = tuple[str, Kind, str]  # verb, resource and subresource


async def examine(
    roster: Roster, key: Key, view: View, *, rolling: bool, pause: str | None
) -> Sequence[Remark]:
    """Raises: TransientError, PermanentError: it cannot be told."""
    if reason := foreign(view.workload):
        return (Remark(f"{key}: {reason}: nothing is done to it", fault=True),)
    lacking = objections(key.kind, view.workload, view.scaler, rolling=rolling, pause=pause)
    by_reason = groupby(sorted(lacking.items(), key=lambda one: one[1]), key=lambda one: one[1])
    found = [_without([kind for kind, _ in kinds], reason) for reason, kinds in by_reason]
    for kind, rights in _needed(key, view, rolling=rolling):
        if kind in lacking:
            continue
        for verb, resource, sub in rights:
            if not await roster.allowed(verb, resource, key.namespace, sub=sub):
                what = f"{resource.plural}/{sub}" if sub else resource.plural
                where = f"in namespace {key.namespace}"
                words = f"{kind} will fail: we may not {verb} {what} {where}"
                found.append(Remark(words, about=kind))
    if not await roster.allowed("watch", NODE, ""):
        found.append(Remark("we may not watch nodes: a sick one is seen by its pods only"))
    if view.scaler is not None:
        name, spec = view.scaler.metadata.name, view.scaler.spec
        found.append(
            Remark(
                f"HorizontalPodAutoscaler {name} sets its number of pods, {view.scaler.least} to "
                f"{spec.max_replicas}: scaling up raises its least number for a time"
            )
        )
    elif not await roster.allowed("watch", HPA, key.namespace):
        found.append(
            Remark("we may not watch horizontalpodautoscalers: one would undo what we scale")
        )
    if view.desired == 0:
        found.append(Remark(f"{key} is scaled to 0: there is nothing to look after"))
    return tuple(found)


def _without(kinds: Sequence[ActionKind], reason: str) -> Remark:
    about = kinds[0] if len(kinds) == 1 else None
    return Remark(f"no {' or '.join(kinds)}: {reason}", about=about)


def _needed(
    key: Key, view: View, *, rolling: bool
) -> Iterable[tuple[ActionKind, Sequence[_Right]]]:
    kind = KINDS[key.kind]
    restart: Sequence[_Right] = (
        (("patch", kind, ""),) if rolling else (("create", POD, "eviction"), ("get", POD, ""))
    )
    yield ActionKind.RESTART, restart
    yield ActionKind.ROLLBACK, (("patch", kind, ""), ("get", edition_kind(key.kind), ""))
    if view.scaler is not None:
        scaler, _, _ = changed_at(view.scaler)
        yield SCALING[0], (("patch", scaler, ""), ("get", scaler, ""))
    else:
        yield SCALING[0], (("patch", kind, "scale"), ("get", kind, "scale"))
