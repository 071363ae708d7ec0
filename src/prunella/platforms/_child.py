"""One run of a command, ours or adopted: started, watched through its pidfd, ended.

Nothing here waits for SIGCHLD or collects by number: a pidfd tells of the end of any process,
and of no other one. A run is the leader of a session of its own, so its whole group can be ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from prunella.errors import PermanentError, TransientError
from prunella.platforms._proc import (
    Identity,
    holds_its_pid,
    is_unused,
    open_pidfd,
    read_stat,
    session_members,
)

_KILL_S = 5.0  # what has got SIGKILL and is there for longer is stuck in the kernel
_SHORTAGES = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC})


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: an argument list, its whole environment, its folder and its log file."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: str


class Child:
    """A living run. ``on_exit`` is called once, from the event loop, when it has ended.

    Attributes:
        end: how it ended, in words; empty while it lives.
    """

    def __init__(self, identity: Identity, pidfd: int, on_exit: Callable[[Child], None]) -> None:
        self.identity = identity
        self.end = ""
        self._survivors: tuple[Identity, ...] = ()
        self._pidfd = pidfd
        self._on_exit = on_exit
        self._gone = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, self._on_readable)

    @classmethod
    def spawn(cls, launch: Launch, boot: str, on_exit: Callable[[Child], None]) -> Self:
        """Start a run in a session of its own, its output appended to the log.

        Raises:
            PermanentError: the command or its folder is not there, or it may not be executed.
            TransientError: this machine is short of descriptors, memory, processes or disk.
        """
        try:
            pid = _start(launch)
        except OSError as error:
            raise _explain(error, launch) from error
        except ValueError as error:
            raise PermanentError(f"command {launch.argv[0]!r} cannot be run: {error}") from error
        # Not collected by anybody but us: alive or dead, the number is this run's.
        try:
            stat = read_stat(pid)
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise _explain(error, launch) from error
        assert stat is not None
        return cls(Identity(pid, stat.ticks, boot), pidfd, on_exit)

    @classmethod
    def adopt(cls, identity: Identity, on_exit: Callable[[Child], None]) -> Self | None:
        """Watch a run that somebody else started; None when it does not live.

        Raises:
            TransientError: no descriptors left.
        """
        pidfd = _open(identity)
        return None if pidfd is None else cls(identity, pidfd, on_exit)

    @property
    def alive(self) -> bool:
        return not self.end

    async def stop(self, signum: signal.Signals, timeout_s: float) -> None:
        """End the whole session: with `signum`, after `timeout_s` with SIGKILL.

        Raises:
            TransientError: something is there in spite of SIGKILL.
            PermanentError: it may not be signalled, as another user runs it.
        """
        # SIGCONT second: what was suspended wakes up with the signal already waiting.
        self._signal_group(signum)
        self._signal_group(signal.SIGCONT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._gone.wait()
                await _outlast(self._survivors)
        try:
            async with asyncio.timeout(_KILL_S):
                await self._kill()
        except TimeoutError:
            raise TransientError(f"pid {self.identity.pid} is there in spite of SIGKILL") from None

    async def survivors(self) -> tuple[Identity, ...]:
        """What lives on in its session, once it has ended."""
        await self._gone.wait()
        return self._survivors

    def release(self) -> None:
        """Stop watching, without touching the run."""
        if self.alive:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)

    async def _kill(self) -> None:
        if self.alive:
            _send(self._pidfd, signal.SIGKILL)
            self._signal_group(signal.SIGKILL)
        await _end(await self.survivors(), lambda: session_members(self.identity))
        self._survivors = ()

    def _signal_group(self, signum: signal.Signals) -> None:
        # An adopted run may be gone and its number another's: a group is only known by number.
        if not self.alive or not holds_its_pid(self.identity):
            return
        try:
            os.killpg(self.identity.pid, signum)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise PermanentError(f"pid {self.identity.pid} may not be signalled") from error

    def _on_readable(self) -> None:
        # Told first: while it is buried, its healing has begun.
        self._loop.remove_reader(self._pidfd)
        self.end = _how_it_ended(self._pidfd)
        self._on_exit(self)
        self._loop.call_soon(self._bury)

    def _bury(self) -> None:
        with contextlib.suppress(ChildProcessError):  # adopted: not ours to collect
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        if not is_unused(self.identity.pid, self._pidfd):
            self._survivors = session_members(self.identity)
        os.close(self._pidfd)
        self._gone.set()


async def end_survivors(
    survivors: Sequence[Identity], rest: Callable[[], Sequence[Identity]]
) -> None:
    """Kill what a dead run has left behind, however often it forks meanwhile.

    Args:
        survivors: what was found; none of them is signalled if its number is another's now.
        rest: looks again for what is there of it.

    Raises:
        TransientError: something is there in spite of SIGKILL, or there are no descriptors left.
    """
    try:
        async with asyncio.timeout(_KILL_S):
            await _end(survivors, rest)
    except TimeoutError:
        pids = ", ".join(str(survivor.pid) for survivor in rest())
        raise TransientError(f"pid {pids} is there in spite of SIGKILL") from None


async def _end(survivors: Sequence[Identity], rest: Callable[[], Sequence[Identity]]) -> None:
    while survivors:
        for survivor in survivors:
            pidfd = _open(survivor)
            if pidfd is not None:
                try:
                    _send(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)
        await _outlast(survivors)
        survivors = rest()


async def _outlast(runs: Sequence[Identity]) -> None:
    loop = asyncio.get_running_loop()
    for run in runs:
        pidfd = _open(run)
        if pidfd is None:
            continue
        gone = asyncio.Event()
        loop.add_reader(pidfd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)


def _open(identity: Identity) -> int | None:
    try:
        return open_pidfd(identity)
    except OSError as error:
        raise TransientError(f"cannot watch pid {identity.pid}: {error.strerror}") from error


def _send(pidfd: int, signum: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise PermanentError("it may not be signalled, as another user runs it") from error


def _start(launch: Launch) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = os.open(launch.log, flags, 0o640)
    try:
        process = subprocess.Popen(  # noqa: S603 - an argument list from configuration, no shell
            launch.argv,
            cwd=str(launch.cwd),
            env=launch.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)
    process.returncode = 0  # collected through its pidfd, not by this object
    return process.pid


def _explain(error: OSError, launch: Launch) -> TransientError | PermanentError:
    command, reason = launch.argv[0], error.strerror or str(error)
    if error.errno in _SHORTAGES:
        return TransientError(f"cannot start {command}: {reason}")
    if error.filename == str(launch.cwd):
        return PermanentError(f"cannot start {command} in folder {launch.cwd}: {reason}")
    if error.filename == launch.log:
        return PermanentError(f"cannot start {command}: log {launch.log}: {reason}")
    if error.errno == errno.ENOENT:
        return PermanentError(f"command not found: {command}")
    return PermanentError(f"command {command} cannot be run: {reason}")


def why_not(launch: Launch) -> str:
    """Why a launch would fail, as far as can be seen without trying it; empty: it may work."""
    command = launch.argv[0]
    if not launch.cwd.is_dir():
        return f"cannot start {command} in folder {launch.cwd}: there is no such folder"
    target = str(launch.cwd / command) if "/" in command else command
    search = launch.env.get("PATH", os.defpath)
    if shutil.which(target, path=search):
        return ""
    if shutil.which(target, os.F_OK, search):
        return f"command {command} cannot be run: it is not executable"
    return f"command not found: {command}"


def _how_it_ended(pidfd: int) -> str:
    try:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return "exited"  # adopted: only its parent is told how
    if ended is None:
        return "exited"
    if ended.si_code == os.CLD_EXITED:
        return f"exit code {ended.si_status}"
    return f"killed by {_signal_name(ended.si_status)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal between the first and the last
