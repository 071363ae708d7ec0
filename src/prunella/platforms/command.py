"""Platform ``command``: something else runs the service, and commands stand for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from prunella.argv import LINE_LENGTH, Completed, lines, run_argv
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
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.plugins import PlatformContext, PlatformPlugin
from prunella.spec import Duration, Spec

MAIN = InstanceId("main")

_RESTART = {ActionKind.RESTART: Scope.INSTANCE}
_SCALE = {ActionKind.SCALE_UP: Scope.SERVICE, ActionKind.SCALE_DOWN: Scope.SERVICE}
_ROLLBACK = {ActionKind.ROLLBACK: Scope.SERVICE}
_MANY = 1000  # replicas; more than that is a number of something else
_NOT_RUN = (126, 127)  # a shell's words for: may not be executed, not found

Argv = Annotated[tuple[str, ...], Field(min_length=1)]


class CommandSpec(Spec):
    """A service that is looked after with commands of its own.

    Commands are lists, there is no shell; `{service}` and `{instance}` in them are replaced.
    However many replicas it has, commands see and restart it as one.
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
    scale: Argv | None = Field(
        default=None,
        description="With `replicas`: has the service run `{replicas}` times, however often it "
        "runs now.",
    )
    replicas: Argv | None = Field(
        default=None, description="With `scale`: prints how many replicas there should be."
    )
    rollback: Argv | None = Field(
        default=None,
        description="With `version`: deploys the version `{revision}`, and has the service run it.",
    )
    version: Argv | None = Field(
        default=None,
        description="Prints the version that is deployed, in its first line. A failure of it "
        "means that it cannot tell.",
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

    @model_validator(mode="after")
    def _can_read_back(self) -> Self:
        if (self.scale is None) != (self.replicas is None):
            raise ValueError("scale and replicas belong together")
        if self.rollback is not None and self.version is None:
            raise ValueError("rollback needs version, which says what is deployed")
        for argv, word in ((self.scale, "{replicas}"), (self.rollback, "{revision}")):
            if argv is not None and not any(word in part for part in argv):
                raise ValueError(f"expected {word} in {argv[0]!r} or its arguments")
        return self


class CommandPlatform:
    """One service, one instance, seen and changed through commands."""

    kind: ClassVar[str] = "command"

    def __init__(self, spec: CommandSpec, context: PlatformContext) -> None:
        self._spec = spec
        self._context = context
        self._identity = ""  # of the newest run that was seen, so that its end names it
        self._desired = 1  # how many there should be, as far as that was told

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        scale = _SCALE if self._spec.scale is not None else {}
        return _RESTART | scale | (_ROLLBACK if self._spec.rollback is not None else {})

    async def observe(self) -> Status:
        """Run the observing commands once each.

        Raises:
            TransientError: one did not end in time, or was killed; or the service runs, and one
                cannot tell its number or its version.
            PermanentError: one cannot be run, or prints what it should not.
        """
        now = await self._look()
        try:
            number, version = await self._number(), await self._version()
        except TransientError:
            # One that asks the service itself has nobody to ask.
            if now.state is InstanceState.RUNNING:
                raise
            number, version = self._desired, None
        self._desired = number
        return Status((now,), desired=number, revision=version)

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:  # noqa: ARG002 - no fence
        """Restart the service, set its number, or deploy another version of it.

        Raises:
            ConflictError: neither the number or version wanted nor that before is there.
            PermanentError: another kind of action, another instance, or no such command.
            TransientError: a command failed or took too long, or it cannot be told what is there.
        """
        if action.kind not in self.capabilities:
            raise PermanentError(f"platform command cannot {action.kind}")
        if action.instance not in (None, MAIN):
            raise PermanentError(f"{self._context.service} has no instance {action.instance}")
        match action.kind:
            case ActionKind.SCALE_UP | ActionKind.SCALE_DOWN if self._spec.scale is not None:
                await self._change(
                    self._spec.scale, "{replicas}", str(action.replicas), action.before
                )
            case ActionKind.ROLLBACK if self._spec.rollback is not None:
                await self._change(
                    self._spec.rollback, "{revision}", action.revision or "", action.before
                )
            case _:
                await self._restart(action.identity)

    async def _change(self, argv: Sequence[str], word: str, wanted: str, before: str) -> None:
        """Have what `word` stands for be `wanted`, unless it is neither that nor as before."""
        present = await self._present(word)
        if present == wanted:
            return
        if present != before:
            raise ConflictError(
                f"{word[1:-1]}: found {present}, not {before}: somebody else has changed it"
            )
        await self._effect(argv, {word: wanted})
        after = await self._present(word)
        if after != wanted:
            raise TransientError(f"{argv[0]} has ended, and {word[1:-1]} is {after}, not {wanted}")

    async def _present(self, word: str) -> str:
        return str(await (self._number() if word == "{replicas}" else self._version()))

    async def _restart(self, identity: str) -> None:
        now = await self._look()
        running = now.state is InstanceState.RUNNING
        if running and identity and now.identity not in ("", identity):
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

    async def _number(self) -> int:
        if self._spec.replicas is None:
            return 1
        line = await self._ask(self._spec.replicas)
        if not line.isdecimal() or int(line) > _MANY:
            raise PermanentError(f"{self._spec.replicas[0]}: expected a number, not {line!r}")
        return int(line)

    async def _version(self) -> str | None:
        if self._spec.version is None:
            return None
        line = await self._ask(self._spec.version)
        if not line or line.startswith("-") or len(line) == LINE_LENGTH:
            # It becomes an argument of a command: neither an option, nor a part of a version.
            raise PermanentError(f"{self._spec.version[0]}: expected a version, not {line!r}")
        return line

    async def _ask(self, argv: Sequence[str]) -> str:
        """The first line that a command prints."""
        done = await self._run(argv)
        line = next(iter(lines(done.output)), "")
        if done.exit_code in _NOT_RUN:
            raise PermanentError(f"{argv[0]}: exit code {done.exit_code}")
        if done.exit_code != 0:
            raise TransientError(f"{argv[0]}: {_how(done)}" + (f": {line}" if line else ""))
        return line

    async def _effect(self, argv: Sequence[str], words: Mapping[str, str] | None = None) -> None:
        done = await self._run(argv, words)
        if done.exit_code != 0:
            last = (lines(done.output) or [""])[-1]
            raise TransientError(f"{argv[0]}: {_how(done)}" + (f": {last}" if last else ""))

    async def _run(self, argv: Sequence[str], more: Mapping[str, str] | None = None) -> Completed:
        words = {"{service}": str(self._context.service), "{instance}": MAIN, **(more or {})}
        done = await run_argv(
            [_fill(part, words) for part in argv],
            timeout_s=self._spec.timeout,
            cwd=str(self._spec.cwd),
            env={**os.environ, **self._spec.env},
        )
        if done.timed_out:
            raise TransientError(f"{argv[0]}: no end within {self._spec.timeout:g} s")
        return done


def _how(done: Completed) -> str:
    return "unknown end" if done.exit_code is None else f"exit code {done.exit_code}"


def _fill(part: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        part = part.replace(placeholder, word)
    return part


PLUGIN = PlatformPlugin(
    "command", CommandSpec, CommandPlatform, can=(*_RESTART, *_SCALE, *_ROLLBACK)
)
