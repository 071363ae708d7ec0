"""Platform ``command``: something else runs the service, and four commands stand for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from prunella.argv import Completed, lines, run_argv
from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    Instance,
    InstanceId,
    InstanceState,
    Scope,
    Status,
)
from prunella.errors import PermanentError, TransientError
from prunella.plugins import PlatformContext, PlatformPlugin
from prunella.spec import Duration, Spec

MAIN = InstanceId("main")

_CAPABILITIES = {ActionKind.RESTART: Scope.INSTANCE}
_NOT_RUN = (126, 127)  # a shell's words for: may not be executed, not found

Argv = Annotated[tuple[str, ...], Field(min_length=1)]


class CommandSpec(Spec):
    """A service that is looked after with commands of its own.

    Commands are lists, there is no shell; `{service}` and `{instance}` in them are replaced.
    """

    observe: Argv = Field(
        description="Tells whether the service runs: exit code 0 if it does. The first line that "
        "it prints names this run (a pid, a container's id), so that a restart can be seen and "
        "is not done twice; 126, 127 and a timeout mean that it cannot tell."
    )
    restart: Argv | None = Field(
        None,
        description="Starts the service anew, and ends by itself. What it leaves running must "
        "not write to its output, which is closed when it ends.",
    )
    stop: Argv | None = Field(
        None, description="With `start`, in place of `restart`: ends the service if it runs."
    )
    start: Argv | None = Field(
        None, description="With `stop`, in place of `restart`: starts the service."
    )
    timeout: Duration = Field(30.0, description="A command that takes longer is killed.")
    env: dict[str, str] = Field(
        default_factory=dict[str, str], description="Added to Prunella's own environment."
    )
    cwd: Path = Field(Path(), description="The folder to run in. Default: the config file's.")

    @model_validator(mode="after")
    def _can_restart(self) -> Self:
        if (self.stop is None) != (self.start is None):
            msg = "stop and start belong together"
            raise ValueError(msg)
        if (self.restart is None) == (self.start is None):
            msg = "either restart, or stop and start, must be given"
            raise ValueError(msg)
        return self


class CommandPlatform:
    """One service, one instance, seen and restarted through commands."""

    kind: ClassVar[str] = "command"

    def __init__(self, spec: CommandSpec, context: PlatformContext) -> None:
        self._spec = spec
        self._context = context
        self._identity = ""  # of the newest run that was seen, so that its end names it

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        return _CAPABILITIES

    async def observe(self) -> Status:
        """Run the observing command once.

        Raises:
            TransientError: it did not end in time, or was killed.
            PermanentError: it cannot be run.
        """
        return Status((await self._look(),), desired=1)

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:  # noqa: ARG002 - no fence
        """Restart the service, unless another run than ``action.identity`` is there already.

        Raises:
            PermanentError: another kind of action, another instance, or no such command.
            TransientError: a command failed or took too long, or it cannot be told what runs.
        """
        if action.kind not in _CAPABILITIES:
            raise PermanentError(f"platform command cannot {action.kind}")
        if action.instance not in (None, MAIN):
            raise PermanentError(f"{self._context.service} has no instance {action.instance}")
        now = await self._look()
        running = now.state is InstanceState.RUNNING
        if running and action.identity and now.identity not in ("", action.identity):
            return
        if self._spec.restart is not None:
            await self._effect(self._spec.restart)
            return
        assert self._spec.stop is not None
        assert self._spec.start is not None
        if running:
            await self._effect(self._spec.stop)
        await self._effect(self._spec.start)

    async def close(self) -> None:
        pass

    async def _look(self) -> Instance:
        done = await self._run(self._spec.observe)
        if done.exit_code in _NOT_RUN:
            raise PermanentError(f"{self._spec.observe[0]}: exit code {done.exit_code}")
        if done.exit_code is None or done.exit_code < 0:
            raise TransientError(f"{self._spec.observe[0]} was killed by a signal")
        line = next(iter(lines(done.output)), "")
        if done.exit_code != 0:
            detail = f"exit code {done.exit_code}" + (f": {line}" if line else "")
            return Instance(MAIN, InstanceState.EXITED, self._identity, detail)
        self._identity = line
        return Instance(MAIN, InstanceState.RUNNING, line)

    async def _effect(self, argv: Sequence[str]) -> None:
        done = await self._run(argv)
        if done.exit_code != 0:
            how = "unknown end" if done.exit_code is None else f"exit code {done.exit_code}"
            last = (lines(done.output) or [""])[-1]
            raise TransientError(f"{argv[0]}: {how}" + (f": {last}" if last else ""))

    async def _run(self, argv: Sequence[str]) -> Completed:
        words = {"{service}": str(self._context.service), "{instance}": MAIN}
        done = await run_argv(
            [_fill(part, words) for part in argv],
            timeout_s=self._spec.timeout,
            cwd=str(self._spec.cwd),
            env={**os.environ, **self._spec.env},
        )
        if done.timed_out:
            raise TransientError(f"{argv[0]}: no end within {self._spec.timeout:g} s")
        return done


def _fill(part: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        part = part.replace(placeholder, word)
    return part


PLUGIN = PlatformPlugin("command", CommandSpec, CommandPlatform)
