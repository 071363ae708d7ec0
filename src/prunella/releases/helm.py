"""Releases ``helm``: the history that Helm keeps of a release, gone back in by Helm itself."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from prunella.core.model import Epoch, Instant
from prunella.errors import PrunellaError, TransientError
from prunella.plugins import ReleaseContext, ReleasePlugin
from prunella.ports import Remark
from prunella.releases._helm import Helm, Revision
from prunella.releases._helm_history import Standing, must_be_free, must_follow, standing, target
from prunella.releases._helm_rights import lacking
from prunella.releases._helm_trouble import HelmBusyError
from prunella.releases._trouble import judge
from prunella.spec import Duration, ReleaseSpec

_PATIENCE_S = 5.0  # for an answer, before what is asked now is answered without it
_LOOK_S = 1.0  # between looks at what another helm is doing
_TRIED = ("v3.", "v4.")


def _place(value: object) -> object:
    """A path for what has a slash, so that it starts at the config file."""
    return Path(value) if isinstance(value, str) and "/" in value else value


class HelmSpec(ReleaseSpec):
    """A release of Helm that is there already."""

    name: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        max_length=53,
        description="The release's name, as `helm list` shows it.",
    )
    namespace: str = Field(
        default="default",
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        max_length=63,
        description="Where it is.",
    )
    context: str | None = Field(
        default=None,
        description="Which cluster, by its name in the kubeconfig. Default: the current context, "
        "and in a pod without a kubeconfig its service account.",
    )
    kubeconfig: Path | None = Field(
        default=None, description="Default: $KUBECONFIG, else ~/.kube/config."
    )
    driver: Literal["secret", "configmap"] | None = Field(
        default=None,
        description="Where Helm keeps the history. Default: $HELM_DRIVER, else secret.",
    )
    program: Annotated[Path | str, BeforeValidator(_place)] = Field(
        default="helm", description="Helm 3 or 4, on the PATH or by its path."
    )
    interval: Duration = Field(default=10.0, description="Helm is asked for news at most so often.")
    timeout: Duration = Field(
        default=300.0,
        description="A rollback with its hooks that takes longer is ended; so long is another "
        "operation of Helm waited for.",
    )


class HelmRelease:
    """The deployed version is what was deployed: chart and digest of what it was rendered to."""

    kind: ClassVar[str] = "helm"
    restarts: ClassVar[bool] = False

    def __init__(self, spec: HelmSpec, context: ReleaseContext) -> None:
        self._spec = spec
        self._clock = context.clock
        self._helm = self._helm_in(context.state_dir / "helm")
        self._one_by_one = asyncio.Lock()
        self._asked_at: Instant | None = None
        self._answer: Standing | PrunellaError | None = None  # None: there is none yet
        self._asking: asyncio.Task[None] | None = None

    @property
    def whole(self) -> bool:
        """Whether all of the version that was told last is in place, as far as Helm knows."""
        return isinstance(self._answer, Standing) and self._answer.whole

    def doubt(self) -> None:
        """Ask anew next time: something speaks for another version."""
        self._asked_at = None

    async def observe(self) -> str:
        """The version of the newest revision, also while it is being put in place.

        One that has failed counts too, since parts of it may be there; not so where it was to
        bring back what had been in place before. A cluster that keeps silent holds up nobody.

        Raises:
            TransientError: the cluster could not be reached, or the release is being removed.
            PermanentError: there is no such release, program or context, or no right to look.
        """
        now = self._clock.now()
        if self._asked_at is None or now >= self._asked_at + self._spec.interval:
            self._asked_at = now
            if self._asking is None or self._asking.done():
                self._answer = None
                self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=self._asked_at + _PATIENCE_S - now)
            if self._asking.done():
                self._asking.result()  # a defect, if it has met one
        match self._answer:
            case None:
                raise TransientError(f"helm has not told of {self._helm.words} yet")
            case Standing():
                return self._answer.version
            case trouble:
                raise trouble.with_traceback(None)

    async def switch(self, revision: str, /, *, before: str, reason: str, epoch: Epoch) -> None:  # noqa: ARG002 - no fence, and Helm keeps no reason of a rollback
        """Have Helm put the newest revision of that version in place once more.

        Another operation of Helm is waited for; what it has led to is judged then.

        Raises:
            ConflictError: neither `revision` nor `before` is deployed, or somebody has deployed
                at the same moment.
            PermanentError: it is not in the history any more, or a right is lacking.
            TransientError: the rollback has failed, or another operation does not end.
        """
        end = self._clock.now() + self._spec.timeout
        while True:
            async with self._one_by_one:
                history = await self._history()
                if not history[0].is_pending or self._clock.now() >= end:
                    try:
                        return await self._roll_back(history, revision, before)
                    except HelmBusyError:
                        if self._clock.now() >= end:
                            raise
            # Not under the lock: what is deployed can be told meanwhile.
            await self._clock.sleep_until(Instant(self._clock.now() + _LOOK_S))

    async def examine(self) -> Sequence[Remark]:
        return [remark async for remark in self._examine()]

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _roll_back(self, history: Sequence[Revision], revision: str, before: str) -> None:
        must_be_free(self._helm, history, self._spec.timeout)
        found = await self._read(history)
        if judge(found.version, revision, before) and found.whole:
            return
        goal = await target(self._helm, history, revision)
        trouble: PrunellaError | None = None
        try:
            await self._helm.roll_back(goal.number)
        except HelmBusyError:
            raise  # nothing was done, and what another one does is judged at its end
        except PrunellaError as error:
            trouble = error
        # Whatever it has said: what counts is what can be read back.
        try:
            after = await self._history()
        except PrunellaError as error:
            raise trouble or error from None
        was, found = found.newest, await self._read(after)
        if judge(found.version, revision, before) and found.whole:
            await must_follow(self._helm, after, was, revision)
            return
        newest = f"revision {found.newest.number} is {found.newest.status}"
        if trouble is None:
            raise TransientError(f"helm has not put {revision} in place: {newest}")
        raise trouble if found.newest == was else type(trouble)(f"{trouble} ({newest})")

    def _helm_in(self, folder: Path) -> Helm:
        spec = self._spec
        return Helm(
            spec.name,
            spec.namespace,
            folder,
            program=str(spec.program),
            context=spec.context,
            kubeconfig=spec.kubeconfig,
            driver=spec.driver or "",
            timeout_s=spec.timeout,
        )

    async def _ask(self) -> None:
        async with self._one_by_one:
            with contextlib.suppress(PrunellaError):  # which is the answer
                await self._read(await self._history())

    async def _history(self) -> Sequence[Revision]:
        try:
            return await self._helm.history()
        except PrunellaError as error:
            self._answer = error
            raise

    async def _read(self, history: Sequence[Revision]) -> Standing:
        try:
            self._answer = await standing(self._helm, history)
        except PrunellaError as error:
            self._answer = error
            raise
        return self._answer

    async def _examine(self) -> AsyncIterator[Remark]:
        """Ask with caches of its own, which are not kept: nothing may change."""
        with tempfile.TemporaryDirectory() as folder:
            helm = self._helm_in(Path(folder))
            try:
                version = await helm.program_version()
                if not version.startswith(_TRIED):
                    yield Remark(f"{self._spec.program} is {version}; tried are Helm 3 and 4")
                history = await helm.history()
                spec = self._spec
                for missing in await lacking(
                    helm.driver, spec.namespace, spec.kubeconfig, spec.context, self._clock
                ):
                    yield Remark(f"rollback will fail: {missing}", fault=True)
            except PrunellaError as error:
                yield Remark(str(error), fault=True)
                return
        if not any(one.was_in_place for one in history[1:]):
            yield Remark(f"{helm.words} has no earlier revision to roll back to yet")
        if history[0].status != "deployed":
            yield Remark(f"revision {history[0].number} of {helm.words} is {history[0].status}")


PLUGIN = ReleasePlugin("helm", HelmSpec, HelmRelease)
