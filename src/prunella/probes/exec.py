"""The exec probe: a command that exits 0 when the service is well, and may print its load."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from prunella.argv import Completed, run_argv
from prunella.core.model import Cause, Observation
from prunella.errors import PermanentError, TransientError
from prunella.plugins import ProbeContext, ProbePlugin
from prunella.probes._number import Number, Reading, weigh
from prunella.probes._wire import Trouble, no_answer, observe
from prunella.spec import ProbeSpec

_LINE_BYTES = 4096


class ExecSpec(ProbeSpec):
    """Run a command; exit code 0 means well, unless the number that it prints is too high."""

    command: list[str] = Field(
        min_length=1, description="Program and its arguments, as a list. No shell is involved."
    )
    env: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Environment variables, besides those of Prunella itself.",
    )
    cwd: Path = Field(
        default=Path(), description="The folder to run in. Default: the config file's."
    )
    number: Number | None = Field(
        default=None,
        description="The command prints a number on its first line, and this is its limit.",
    )

    @field_validator("command")
    @classmethod
    def _can_be_run(cls, value: list[str]) -> list[str]:
        if not value[0] or any("\0" in word for word in value):
            raise ValueError("the command has no name, or contains a NUL character")
        return value


class ExecProbe:
    """Runs one command per check; a command that outlives its timeout is killed."""

    kind: ClassVar[str] = "exec"

    def __init__(self, spec: ExecSpec, context: ProbeContext) -> None:
        self._spec = spec
        self._clock = context.clock

    async def check(self) -> Observation:
        started = self._clock.now()
        trouble, load = await self._run()
        return observe(self._clock, started, trouble, load)

    async def close(self) -> None:
        """Nothing is kept between checks."""

    async def _run(self) -> Reading:
        spec = self._spec
        env = {**os.environ, **spec.env} if spec.env else None
        try:
            done = await run_argv(spec.command, timeout_s=spec.timeout, cwd=str(spec.cwd), env=env)
        except TransientError as error:
            return Reading(Trouble(None, str(error)))
        except PermanentError as error:
            return Reading(Trouble(Cause.ERROR, str(error)))
        trouble = self._judge(done)
        if trouble is not None or spec.number is None:
            return Reading(trouble)
        return weigh(_line(done.output[:_LINE_BYTES], 0), spec.number)

    def _judge(self, done: Completed) -> Trouble | None:
        if done.timed_out:
            return no_answer(self._spec.timeout)
        if done.exit_code is None:
            return Trouble(None, "somebody else collected the command's exit code")
        if done.exit_code == 0:
            return None
        how = (
            f"exit {done.exit_code}"
            if done.exit_code > 0
            else f"killed by signal {-done.exit_code}"
        )
        last = _line(done.output[-_LINE_BYTES:], -1)
        return Trouble(Cause.ERROR, f"{how}: {last}" if last else how)


def _line(output: bytes, index: int) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[index].strip() if lines else ""


PLUGIN = ProbePlugin(kind=ExecProbe.kind, spec=ExecSpec, build=ExecProbe)
