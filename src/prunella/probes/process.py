"""The process probe: the service's processes live, and keep within their limits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import psutil
from pydantic import Field

from prunella.core.model import Cause, InstanceId, Instant, Observation
from prunella.plugins import ProbeContext, ProbePlugin
from prunella.probes._number import Reading
from prunella.probes._wire import Trouble, observe
from prunella.spec import ProbeSpec, Size

_INLINE_PIDS = 2  # measured: 0.2 ms each; more of them would stall the event loop
_DEAD = frozenset({psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})


class ProcessSpec(ProbeSpec):
    """Look at the service's processes, as its platform knows them."""

    instance: str | None = Field(
        default=None,
        description="Look at the processes of this replica alone; with `{instance}`, at those of "
        "each replica by itself. Default: at all of them together.",
    )
    cpu: float | None = Field(
        default=None,
        gt=0,
        description="CPU time that all processes together may use between two checks, as a ratio "
        "of one core: 0.8 is 80 % of a core, 2 is two cores.",
    )
    memory: Size | None = Field(
        default=None, description="Resident memory that all processes together may hold."
    )
    descriptors: int | None = Field(
        default=None, gt=0, description="File descriptors that any one process may have open."
    )


class _Usage(NamedTuple):
    """What the living processes use now. CPU times by pid and start of the process, in seconds."""

    cpu_s: dict[tuple[int, float], float]
    memory_bytes: int
    descriptors: int


class ProcessProbe:
    """Reads the process table; remembers CPU times from check to check.

    Passes while at least one process lives: that one of several has died is for the platform to
    say. A zombie is dead.
    """

    kind: ClassVar[str] = "process"

    def __init__(self, spec: ProcessSpec, context: ProbeContext) -> None:
        self._spec = spec
        self._clock = context.clock
        of = None if spec.instance is None else InstanceId(spec.instance)
        self._pids = partial(context.pids, of)
        self._cpu_s: dict[tuple[int, float], float] = {}
        self._cpu_at: Instant | None = None
        self._reading: asyncio.Future[_Usage | Trouble] | None = None

    async def check(self) -> Observation:
        started = self._clock.now()
        trouble, load = await self._look()
        return observe(self._clock, started, trouble, load)

    async def close(self) -> None:
        """Nothing is held between checks but numbers."""

    async def _look(self) -> Reading:
        pids = self._pids()
        if not pids:
            return Reading(Trouble(Cause.REFUSED, "no process"))
        if len(pids) <= _INLINE_PIDS:
            usage = _read(pids, self._spec)
        else:
            usage = await self._read_aside(pids)
        return Reading(usage) if isinstance(usage, Trouble) else self._judge(usage)

    async def _read_aside(self, pids: Sequence[int]) -> _Usage | Trouble:
        reading = self._reading
        if reading is None or reading.done():
            loop = asyncio.get_running_loop()
            reading = self._reading = loop.run_in_executor(None, _read, pids, self._spec)
        done, _ = await asyncio.wait([reading], timeout=self._spec.timeout)
        if not done:
            return Trouble(None, f"the process table was not read within {self._spec.timeout:g} s")
        return reading.result()

    def _judge(self, usage: _Usage) -> Reading:
        """The load is that of the resource that is nearest to its limit."""
        spec, memory_bytes = self._spec, usage.memory_bytes
        ratio = self._cpu_ratio(usage.cpu_s)
        loads: list[tuple[float, str]] = []
        if spec.cpu is not None and ratio is not None:
            loads.append((ratio / spec.cpu, f"CPU {ratio:.2f} of a core, limit {spec.cpu:g}"))
        if spec.memory is not None:
            said = f"memory {_mebibytes(memory_bytes)}, limit {_mebibytes(spec.memory)}"
            loads.append((memory_bytes / spec.memory, said))
        if spec.descriptors is not None:
            said = f"{usage.descriptors} descriptors, limit {spec.descriptors}"
            loads.append((usage.descriptors / spec.descriptors, said))
        above = "; ".join(said for load, said in loads if load > 1.0)
        load = max((load for load, _ in loads), default=None)
        return Reading(Trouble(Cause.SATURATED, above) if above else None, load)

    def _cpu_ratio(self, now_s: dict[tuple[int, float], float]) -> float | None:
        """CPU time per time since the last check; None at the first one, or with no time between.

        A process that was not there at the last check counts from its start; one that is gone
        no longer counts.
        """
        at, before_at = self._clock.now(), self._cpu_at
        before_s, self._cpu_s, self._cpu_at = self._cpu_s, now_s, at
        if before_at is None or at <= before_at:
            return None
        used_s = sum(cpu_s - before_s.get(run, 0.0) for run, cpu_s in now_s.items())
        return used_s / (at - before_at)


def _read(pids: Sequence[int], spec: ProcessSpec) -> _Usage | Trouble:
    usage = _Usage({}, 0, 0)
    try:
        for pid in pids:
            alive = _read_one(pid, spec)
            if alive is not None:
                usage = _Usage(
                    {**usage.cpu_s, **alive.cpu_s},
                    usage.memory_bytes + alive.memory_bytes,
                    max(usage.descriptors, alive.descriptors),
                )
    except psutil.AccessDenied as error:
        return Trouble(None, f"no right to read process {error.pid}")
    except OSError as error:
        return Trouble(None, f"cannot read the process table: {error.strerror}")
    return usage if usage.cpu_s else Trouble(Cause.REFUSED, "no process")


def _read_one(pid: int, spec: ProcessSpec) -> _Usage | None:
    """What one process uses; None if it does not live."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() in _DEAD:
                return None
            times = process.cpu_times()
            return _Usage(
                {(pid, process.create_time()): times.user + times.system},
                process.memory_info().rss if spec.memory is not None else 0,
                process.num_fds() if spec.descriptors is not None else 0,
            )
    except psutil.NoSuchProcess:  # a zombie read at the wrong moment is one of these too
        return None


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


PLUGIN = ProbePlugin(kind=ProcessProbe.kind, spec=ProcessSpec, build=ProcessProbe)
