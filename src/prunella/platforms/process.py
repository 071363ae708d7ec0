"""Platform ``process``: Prunella itself runs the service, as children that outlive it.

A child is in a session of its own and writes to a file, so that nothing breaks when Prunella is
killed; the next Prunella finds it by its record or by its environment and adopts it. An end is
told by the kernel, within the time of one wake-up, and is a fact.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from prunella.core.model import Action, ActionKind, Epoch, InstanceId, Instant, Scope, Status
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.platforms import _testimony
from prunella.platforms._child import Launch, why_not
from prunella.platforms._listeners import survey
from prunella.platforms._ports import PortRange, Ports, parse_range
from prunella.platforms._records import Records, Wish
from prunella.platforms._replica import PORT_VARIABLE, RUN_VARIABLE, Replica, Terms
from prunella.plugins import PlatformContext, PlatformPlugin
from prunella.ports import Remark
from prunella.spec import Duration, Size, Spec

_MARKER_VARIABLE = "PRUNELLA_INSTANCE"
_WORD = re.compile(r"(?<!\$)\{(replica|port)\}")  # ${port} is a shell's affair
_LOG_CADENCE_S = 5.0
_CAPABILITIES = {
    ActionKind.RESTART: Scope.INSTANCE,
    ActionKind.SCALE_UP: Scope.SERVICE,
    ActionKind.SCALE_DOWN: Scope.SERVICE,
}


class ProcessSpec(Spec):
    """A service that Prunella starts, watches and ends by itself."""

    command: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="What to run, as a list; there is no shell. `{replica}` in it is replaced by "
        "the replica's number, from 0, and `{port}` by a free port, which stays the replica's "
        "own. It must stay in the foreground."
    )
    cwd: Path = Field(Path(), description="The folder to run in. Default: the config file's.")
    env: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Added to Prunella's own environment, as are PRUNELLA_SERVICE, "
        "PRUNELLA_REPLICA and PRUNELLA_PORT. `{replica}` and `{port}` are replaced here as well.",
    )
    ports: PortRange = Field(
        "20000-29999", description="The ports that `{port}` may become, the first and the last."
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

    @property
    def has_ports(self) -> bool:
        """Whether each replica has a port of its own."""
        texts = (*self.command, *self.env.values())
        return any("port" in _WORD.findall(text) for text in texts)

    @model_validator(mode="after")
    def _has_enough_ports(self) -> Self:
        count = len(parse_range(self.ports))
        if self.has_ports and count < self.replicas:
            raise ValueError(f"{self.replicas} replicas need a port each, but ports has {count}")
        return self


class ProcessPlatform:
    """The replicas of one service, each with at most one living run.

    How many there should be is what the configuration says, until they are scaled: then it is
    what a scaling has written down last, before it did anything.
    """

    kind: ClassVar[str] = "process"

    def __init__(self, spec: ProcessSpec, context: PlatformContext) -> None:
        self._spec = spec
        self._context = context
        self._records = Records(context.state_dir)
        self._log_dir = context.state_dir / "log"
        self._instance_id = ""
        self._terms = self._agree()
        self._replicas: tuple[Replica, ...] = ()  # there is one at least, once it has been looked
        self._rotation: asyncio.Task[None] | None = None

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        return _CAPABILITIES

    async def observe(self) -> Status:
        """What is known of each replica, from memory: the kernel tells of every end.

        Raises:
            TransientError: `ensure` has not looked yet.
        """
        self._require_a_look()
        instances = tuple(replica.instance() for replica in self._replicas)
        return Status(instances, desired=len(instances))

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:  # noqa: ARG002 - one holder
        """Restart one replica, or all of them one after the other; or run more or fewer of them.

        Raises:
            PermanentError: another kind of action, no such replica, or no such command.
            ConflictError: there is another number of replicas by now than the action starts from.
            TransientError: a run cannot be ended or started now, there is no free port, or the
                number cannot be written down.
        """
        if action.kind not in _CAPABILITIES:
            raise PermanentError(f"platform process cannot {action.kind}")
        self._require_a_look()
        if action.kind is ActionKind.RESTART:
            await self._restart(action)
        else:
            await self._scale(action)

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
        words = [await self._retire(Replica(n, self._terms)) for n in self._surplus()]
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

    async def examine(self) -> Sequence[Remark]:
        """Whether the command and its folder are there."""
        reason = why_not(self._launch(0, 0, 1))
        return (Remark(reason, fault=True),) if reason else ()

    async def _restart(self, action: Action) -> None:
        chosen = [r for r in self._replicas if action.instance in (None, r.id)]
        if not chosen:
            raise PermanentError(f"{self._context.service} has no replica {action.instance}")
        for replica in chosen:
            await replica.restart(action.identity)

    async def _scale(self, action: Action) -> None:
        present, wanted = len(self._replicas), action.replicas
        if not wanted:
            raise PermanentError(f"platform process cannot {action.kind} to no replica at all")
        if wanted == present:
            return
        if action.before not in ("", str(present)):
            raise ConflictError(
                f"{self._context.service} has {present} replicas by now, not {action.before}"
            )
        self._want(wanted)
        await (self._grow(wanted) if wanted > present else self._shrink(wanted))

    async def _grow(self, wanted: int) -> None:
        """Begin with more replicas. When one of them cannot be started, none of them stays."""
        added: list[Replica] = []
        try:
            for number in range(len(self._replicas), wanted):
                added.append(Replica(number, self._terms))
                await added[-1].begin()
        except PrunellaError:
            for replica in reversed(added):
                await self._retire(replica)
            self._want(len(self._replicas))
            raise
        self._replicas += tuple(added)

    async def _shrink(self, wanted: int) -> None:
        """End the replicas with the highest numbers; one that cannot be ended stays wanted."""
        while len(self._replicas) > wanted:
            last = self._replicas[-1]
            self._replicas = self._replicas[:-1]
            try:
                await last.retire()
            except PrunellaError:
                self._replicas += (last,)
                self._want(len(self._replicas))
                raise

    async def _retire(self, replica: Replica) -> str:
        try:
            return await replica.retire()
        finally:
            replica.release()

    def _require_a_look(self) -> None:
        if not self._replicas:
            raise TransientError(f"{self._context.service} has not been looked at yet")

    def _prepare(self) -> None:
        self._instance_id = self._records.instance_id()
        self._replicas = self._replicas or tuple(
            Replica(number, self._terms) for number in range(self._wanted())
        )
        try:
            self._log_dir.mkdir(exist_ok=True)
        except OSError as error:
            raise TransientError(f"cannot make {self._log_dir}: {error.strerror}") from error

    def _wanted(self) -> int:
        """What a scaling has left, unless the configuration asks for another number since."""
        wish, configured = self._records.wish(), self._spec.replicas
        if wish is None:
            return configured
        if wish.configured == configured:
            return wish.wanted
        self._want(configured)
        return configured

    def _want(self, wanted: int) -> None:
        self._records.want(Wish(wanted, self._spec.replicas))

    def _surplus(self) -> list[int]:
        return [n for n in self._records.numbers() if n >= len(self._replicas)]

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
            ports=Ports(parse_range(self._spec.ports)) if self._spec.has_ports else None,
            clock=self._context.clock,
            on_fact=self._context.on_fact,
        )

    def _launch(self, number: int, run: int, port: int) -> Launch:
        words = {"replica": str(number), "port": str(port)}
        own = {
            "PRUNELLA_SERVICE": self._context.service,
            "PRUNELLA_REPLICA": str(number),
            _MARKER_VARIABLE: self._mark(number),
            RUN_VARIABLE: str(run),
        }
        if port:
            own[PORT_VARIABLE] = str(port)
        argv = [_filled(part, words) for part in self._spec.command]
        env = {name: _filled(value, words) for name, value in self._spec.env.items()}
        return Launch(argv, {**_environment(), **env, **own}, self._spec.cwd, self._log(number))

    def _mark(self, number: int) -> str:
        return f"{self._instance_id}:{number}"

    def _log(self, number: int) -> str:
        return f"{self._log_dir}/{number}.log"


@cache
def _environment() -> Mapping[str, str]:
    """Prunella's own environment; decoding it anew for each start takes a while."""
    return dict(os.environ)


def _filled(text: str, words: Mapping[str, str]) -> str:
    return _WORD.sub(lambda found: words[found[1]], text)


PLUGIN = PlatformPlugin(
    "process", ProcessSpec, ProcessPlatform, can=tuple(_CAPABILITIES), survey=survey
)
