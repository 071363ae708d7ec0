"""How far an action has come, read back from the platform: what makes adopting it possible."""

from __future__ import annotations

from prunella.core.breaker import CIRCUIT, share_of
from prunella.core.model import (
    Action,
    ActionKind,
    InstanceState,
    Run,
    Status,
    Verdict,
)
from prunella.core.traffic import Flow


def pieces(action: Action) -> tuple[Run, ...]:
    """The runs that an action replaces, in their order; empty for the service as a whole."""
    if action.kind in CIRCUIT:
        return ()
    if action.runs:
        return action.runs
    return () if action.instance is None else (Run(action.instance, action.identity),)


def left(action: Action, status: Status) -> tuple[Run, ...]:
    """Those of them that have not been replaced yet; what is gone altogether is not waited for."""
    present = {instance.id: instance for instance in status.instances}
    return tuple(
        run
        for run in pieces(action)
        if (now := present.get(run.instance)) is not None
        and (now.identity == run.identity or now.state is not InstanceState.RUNNING)
    )


def has_begun(action: Action, status: Status | None, flow: Flow | None) -> bool:
    """Whether any part of the effect is there: then it is adopted and not done again."""
    if action.kind in CIRCUIT:
        return flow is not None and share_of(flow.valve, action.instance) == action.share
    if status is None:
        return False
    match action.kind:
        case ActionKind.RESTART if action.instance is None:
            return bool(status.identity) and status.identity != action.identity
        case ActionKind.RESTART:
            replaced = len(pieces(action)) - len(left(action, status))
            return replaced > 0 and any(run.identity for run in pieces(action))
        case ActionKind.ROLLBACK:
            return action.revision is not None and status.revision == action.revision
        case ActionKind.SCALE_UP | ActionKind.SCALE_DOWN:
            return status.desired == action.replicas
        case _:
            raise AssertionError(f"{action.kind} is a circuit's")


def is_borne(status: Status) -> bool:
    """Whether as many instances as there should be run the deployed version, and are well by
    their platform's own check, where it has one.

    Before that the version proves nothing: what is still being rolled out may never come up.
    """
    runs = [
        one
        for one in status.instances
        if one.state is InstanceState.RUNNING and one.revision in ("", status.revision)
    ]
    if any(one.verdict is not None for one in status.instances):
        runs = [one for one in runs if one.verdict is Verdict.PASS]
    return status.whole and len(runs) >= status.desired
