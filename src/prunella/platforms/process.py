"""Platform ``process``: Prunella itself runs the service, as children that outlive it.

A child is in a session of its own and writes to a file, so that nothing breaks when Prunella is
killed; the next Prunella finds it by its record or by its environment and adopts it. An end is
told by the kernel, within the time of one wake-up, and is a fact.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prunella.core.model import Action, ActionKind, Epoch, InstanceId, Instant, Scope, Status
from prunella.errors import PermanentError, TransientError
from prunella.platforms import _testimony
from prunella.platforms._child import Launch
from prunella.platforms._records import Records
from prunella.platforms._replica import RUN_VARIABLE, Replica, Terms
from prunella.plugins import PlatformContext, PlatformPlugin
from prunella.spec import Duration, Size, Spec

_MARKER_VARIABLE = "PRUNELLA_INSTANCE"
_LOG_CADENCE_S = 5.0
_CAPABILITIES = {ActionKind.RESTART: Scope.INSTANCE}


class ProcessSpec(Spec):
    """A service that Prunella starts, watches and ends by itself."""

    command: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="What to run, as a list; there is no shell. `{replica}` in it is replaced by "
        "the replica's number, from 0. It must stay in the foreground."
    )
    cwd: Path = Field(Path(), description="The folder to run in. Default: the config file's.")
    env: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Added to Prunella's own environment, as are PRUNELLA_SERVICE and "
        "PRUNELLA_REPLICA.",
    )
    replicas: int = Field(1, ge=1, le=64, description="How many of them run at the same time.")
    on_exit: Literal["stop", "leave"] = Field(
        "stop",
        description="What becomes of the service when Prunella ends: stopped with it, or left "
        "running for the next Prunella to adopt.",
    )
    stop_signal: Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "KILL"] = Field(
        "TERM", description="The signal that asks the whole process group to end."
    )
    stop_timeout: Duration = Field(
        10.0, description="What has not ended so long after that signal is killed."
    )
    log_size: Size = Field(
        10 * 2**20, description="A replica's output file is put aside when it is larger."
    )
    log_keep: int = Field(3, ge=0, le=100, description="How many older output files are kept.")


class ProcessPlatform:
    """The replicas of one service, each with at most one living run."""

    kind: ClassVar[str] = "process"

    def __init__(self, spec: ProcessSpec, context: PlatformContext) -> None:
        self._spec = spec
        self._context = context
        self._records = Records(context.state_dir)
        self._instance_id = ""
        self._terms = self._agree()
        self._replicas = tuple(Replica(number, self._terms) for number in range(spec.replicas))
        self._rotation: asyncio.Task[None] | None = None

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        return _CAPABILITIES

    async def observe(self) -> Status:
        """What is known of each replica, from memory: the kernel tells of every end.

        Raises:
            TransientError: `ensure` has not looked yet.
        """
        instances = tuple(replica.instance() for replica in self._replicas)
        return Status(instances, desired=self._spec.replicas)

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:  # noqa: ARG002 - one holder
        """Restart one replica, or all of them one after the other.

        Raises:
            PermanentError: another kind of action, no such replica, or no such command.
            TransientError: a run cannot be ended or started now.
        """
        if action.kind not in _CAPABILITIES:
            raise PermanentError(f"platform process cannot {action.kind}")
        chosen = [r for r in self._replicas if action.instance in (None, r.id)]
        if not chosen:
            raise PermanentError(f"{self._context.service} has no replica {action.instance}")
        for replica in chosen:
            await replica.restart(action.identity)

    async def testimony(self, instance: InstanceId | None, /) -> str:
        """What the replica's process looks like now, for the record."""
        seen = [
            _testimony.of_process(pid, Path(self._log(int(replica.id))))
            for replica in self._replicas
            if instance in (None, replica.id)
            for pid in replica.instance().pids
        ]
        return "\n".join(seen)

    async def ensure(self) -> Sequence[str]:
        """Adopt what lives, start what has not run in this boot, end what is one too many.

        Raises:
            TransientError: the state folder cannot be used, so nothing was started.
        """
        self._prepare()
        words = [await Replica(n, self._terms).retire() for n in self._surplus()]
        words += [await replica.ensure() for replica in self._replicas]
        if self._rotation is None:
            self._rotation = asyncio.create_task(self._bound_logs())
        return tuple(word for word in words if word)

    async def shutdown(self) -> None:
        """End the service with Prunella, or leave it for the next one, as its spec says.

        Raises:
            TransientError: something is there in spite of SIGKILL.
        """
        if self._spec.on_exit == "stop" and self._rotation is not None:
            await self.stop()

    async def stop(self) -> None:
        """End all replicas at the same time; every one is tried before trouble is told.

        Raises:
            TransientError: something is there in spite of SIGKILL.
        """
        self._prepare()
        stops = (replica.stop() for replica in self._replicas)
        for result in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def close(self) -> None:
        for replica in self._replicas:
            replica.release()
        rotation, self._rotation = self._rotation, None
        if rotation is not None:
            rotation.cancel()
            await asyncio.wait([rotation])
            if not rotation.cancelled():
                rotation.result()  # it never ends by itself: a defect

    def _prepare(self) -> None:
        self._instance_id = self._records.instance_id()
        folder = self._log(0).parent
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise TransientError(f"cannot make {folder}: {error.strerror}") from error

    def _surplus(self) -> list[int]:
        return [n for n in self._records.numbers() if n >= self._spec.replicas]

    async def _bound_logs(self) -> None:
        clock = self._context.clock
        while True:
            await clock.sleep_until(Instant(clock.now() + _LOG_CADENCE_S))
            for replica in self._replicas:
                await replica.bound_log()

    def _agree(self) -> Terms:
        return Terms(
            launch=self._launch,
            marker=lambda number: f"{_MARKER_VARIABLE}={self._mark(number)}",
            log=self._log,
            stop_signal=signal.Signals[f"SIG{self._spec.stop_signal}"],
            stop_timeout_s=self._spec.stop_timeout,
            log_size_bytes=self._spec.log_size,
            log_keep=self._spec.log_keep,
            records=self._records,
            clock=self._context.clock,
            on_fact=self._context.on_fact,
        )

    def _launch(self, number: int, run: int) -> Launch:
        own = {
            "PRUNELLA_SERVICE": self._context.service,
            "PRUNELLA_REPLICA": str(number),
            _MARKER_VARIABLE: self._mark(number),
            RUN_VARIABLE: str(run),
        }
        argv = [part.replace("{replica}", str(number)) for part in self._spec.command]
        return Launch(
            argv, {**os.environ, **self._spec.env, **own}, self._spec.cwd, self._log(number)
        )

    def _mark(self, number: int) -> str:
        return f"{self._instance_id}:{number}"

    def _log(self, number: int) -> Path:
        return self._context.state_dir / "log" / f"{number}.log"


PLUGIN = PlatformPlugin("process", ProcessSpec, ProcessPlatform)
