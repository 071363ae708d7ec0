"""Run one command to its end: an argument list, never a shell. For plugins of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prunella.errors import PermanentError, TransientError

_CHUNK_BYTES = 65536
LINE_LENGTH = 200  # characters of a line that are kept
_DRAIN_S = 0.1  # for output still in the pipe when the command has ended
_REAP_S = 1.0  # for a killed command to be gone
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


class Completed(NamedTuple):
    """How a command ended.

    ``exit_code`` is negative for a signal, and None when the command was killed at its timeout
    or when somebody else collected it. ``output`` is stdout and stderr together, the first
    `output_cap_bytes` of them; where they were kept apart it is stdout, and ``errors`` is stderr.
    """

    exit_code: int | None
    output: bytes
    timed_out: bool
    errors: bytes = b""


def lines(output: bytes) -> list[str]:
    """The lines that say something, printable and short, in their order."""
    raw = output.decode(errors="replace").splitlines()
    printable = ("".join(c for c in line if c.isprintable()).strip() for line in raw)
    return [line[:LINE_LENGTH].rstrip() for line in printable if line]


async def run_argv(
    argv: Sequence[str],
    *,
    timeout_s: float,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    output_cap_bytes: int = 65536,
    output_to: int | None = None,
    apart: bool = False,
) -> Completed:
    """Run `argv` with nothing on stdin, in a session of its own, and wait for it to end.

    On timeout and on cancellation the whole process group is killed and collected; what has
    left the group on purpose (a daemon) is not. A command that has ended is not waited for
    again because a child of its own still holds its output open. `env` is the whole environment,
    None inherits ours; output beyond `output_cap_bytes` is read and dropped. With `output_to`, a
    descriptor, all output goes there and none into the answer. With `apart`, stderr is told apart
    from stdout, where one is to be read by a program and the other by people.

    Raises:
        PermanentError: there is no such command or folder, or it may not be executed.
        TransientError: this machine is short of descriptors, memory or processes.
    """
    child = _spawn(argv, cwd, env, output_to, apart=apart)
    run = _Run(child, output_cap_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            await run.ended
    except TimeoutError:
        run.kill()
        await run.collected(_REAP_S)
        return run.completed(timed_out=True)
    except asyncio.CancelledError:
        run.kill()
        await run.collected(_REAP_S)
        raise
    finally:
        run.stop_reading()
    return run.completed(timed_out=False)


class _Child(NamedTuple):
    pid: int
    pidfd: int
    outs: tuple[int, ...]  # where its output is read, and its errors if apart; none: elsewhere


def _spawn(
    argv: Sequence[str],
    cwd: str | None,
    env: Mapping[str, str] | None,
    output_to: int | None,
    *,
    apart: bool,
) -> _Child:
    if not argv:
        raise PermanentError("the command is empty")
    try:
        process = subprocess.Popen(  # noqa: S603 - an argument list from configuration, no shell
            list(argv),
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if output_to is None else output_to,
            stderr=subprocess.PIPE if apart else subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise _explain(error, argv[0], cwd) from error
    except ValueError as error:
        raise PermanentError(f"command {argv[0]!r} cannot be run: {error}") from error
    process.returncode = 0  # collected below through its pidfd, not by the object
    pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]
    outs = list[int]()
    try:
        for pipe in pipes:
            outs.append(os.dup(pipe.fileno()))
            os.set_blocking(outs[-1], False)
        pidfd = os.pidfd_open(process.pid)
    except OSError as error:
        for out in outs:
            os.close(out)
        os.killpg(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
        raise _explain(error, argv[0], cwd) from error
    finally:
        for pipe in pipes:
            pipe.close()
    return _Child(process.pid, pidfd, tuple(outs))


def _explain(error: OSError, command: str, cwd: str | None) -> TransientError | PermanentError:
    reason = error.strerror or str(error)
    if error.errno in _SHORTAGES:
        return TransientError(f"cannot start {command}: {reason}")
    if cwd is not None and error.filename == cwd:
        return PermanentError(f"cannot enter folder {cwd}: {reason}")
    if error.errno == errno.ENOENT:
        return PermanentError(f"command not found: {command}")
    return PermanentError(f"command {command} cannot be run: {reason}")


class _Run:
    """One running command: reads its output, notices its end, collects it exactly once."""

    def __init__(self, child: _Child, cap_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._cap_bytes = cap_bytes
        self._reading = set(child.outs)
        self._gone = self._loop.create_future()  # collected: the pid may belong to another now
        self._drain: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.exit_code: int | None = None
        self._outputs = [bytearray() for _ in child.outs]
        for out, output in zip(child.outs, self._outputs, strict=True):
            self._loop.add_reader(out, self._on_output, out, output)
        self._loop.add_reader(child.pidfd, self._on_exit)

    def completed(self, *, timed_out: bool) -> Completed:
        output, errors, *_ = [*map(bytes, self._outputs), b"", b""]
        return Completed(None if timed_out else self.exit_code, output, timed_out, errors)

    def _on_output(self, out: int, output: bytearray) -> None:
        try:
            chunk = os.read(out, _CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        if not chunk:
            self._close(out)
            if self._gone.done() and not self._reading:
                self._finish()
            return
        room = self._cap_bytes - len(output)
        if room > 0:
            output += chunk[:room]

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._child.pidfd)
        with contextlib.suppress(ChildProcessError):  # somebody collects all children: unknown end
            status = os.waitid(os.P_PIDFD, self._child.pidfd, os.WEXITED)
            assert status is not None
            exited = status.si_code == os.CLD_EXITED
            self.exit_code = status.si_status if exited else -status.si_status
        os.close(self._child.pidfd)
        self._gone.set_result(None)
        if self._reading:
            self._drain = self._loop.call_later(_DRAIN_S, self._finish)
        else:
            self._finish()

    def _finish(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def kill(self) -> None:
        """Kill the process group, unless its leader was collected and the number is free."""
        if not self._gone.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    async def collected(self, within_s: float) -> None:
        """Wait until the killed command is collected; later it is collected in passing."""
        await asyncio.wait([self._gone], timeout=within_s)

    def stop_reading(self) -> None:
        if self._drain is not None:
            self._drain.cancel()
        for out in tuple(self._reading):
            self._close(out)

    def _close(self, out: int) -> None:
        self._loop.remove_reader(out)
        os.close(out)
        self._reading.discard(out)
