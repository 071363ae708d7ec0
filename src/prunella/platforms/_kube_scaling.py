"""How many pods a workload has: set in its scale, or by way of what sets it by itself."""

from __future__ import annotations

from prunella.core.model import Action, ActionKind
from prunella.errors import ConflictError, TransientError
from prunella.kube.client import JSON_PATCH, InvalidError
from prunella.platforms._kube_scaler import lowered, raised
from prunella.platforms._kube_subject import TRIES, Subject


class Scaling:
    """Scales one workload."""

    def __init__(self, subject: Subject) -> None:
        self._of = subject

    async def scale(self, action: Action) -> None:
        """Set the number of pods, or the least one where something else sets it.

        Raises:
            ConflictError: somebody has set another number meanwhile.
            PermanentError: its autoscaler does not allow so many.
        """
        wanted, view = action.replicas, self._of.look()
        assert wanted is not None, "scaling without a number is vetoed"
        if view.desired == wanted:
            return
        if view.scaler is not None:
            present = view.desired
            if action.before and action.before != str(present):
                raise ConflictError(f"there are to be {present} by now, not {action.before}")
            if action.kind is ActionKind.SCALE_UP:
                await raised(self._of.cluster, view.scaler, present, wanted)
                self._of.views.released = None
                await self._of.until(lambda now: now.desired >= wanted, self._of.patience_s)
            else:
                self._of.views.released = await lowered(
                    self._of.cluster, view.scaler, present, wanted
                )
                self._of.views.forget()
            return
        await self._set(int(action.before or view.desired), wanted)
        if action.kind is ActionKind.SCALE_DOWN:
            await self._of.until(lambda now: len(now.active) <= wanted, self._of.patience_s)

    async def _set(self, before: int, wanted: int) -> None:
        for _ in range(TRIES):
            try:
                await self._of.cluster.patch(
                    self._of.kind,
                    self._of.key.name,
                    self._of.key.namespace,
                    [
                        {"op": "test", "path": "/spec/replicas", "value": before},
                        {"op": "replace", "path": "/spec/replicas", "value": wanted},
                    ],
                    content=JSON_PATCH,
                    sub="scale",
                )
            except (InvalidError, ConflictError) as error:
                scale = await self._of.cluster.get(
                    self._of.kind, self._of.key.name, self._of.key.namespace, sub="scale"
                )
                present = int(scale["spec"].get("replicas", 0))
                if present == wanted:
                    return
                if present != before:
                    said = f"there are to be {present} by now, not {before}"
                    raise ConflictError(said) from error
            else:
                return
        raise TransientError(f"{self._of.key} changes faster than it can be scaled")
