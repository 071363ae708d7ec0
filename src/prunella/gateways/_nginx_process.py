"""The program: testing its configuration, its processes, and having it read all of it anew."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunella.argv import lines, run_argv
from prunella.core.model import Instant
from prunella.errors import PermanentError, TransientError
from prunella.ports import Clock

_DUMP_BYTES = 64 * 2**20
_OLDEST = (1, 11)  # the first one with $request_id
_POLL_S = 0.005
_LEAVING = "is shutting down"
_FILE = re.compile(r"^# configuration file (.+):$", re.MULTILINE)
_PID = re.compile(r"^\s*pid\s+[\"']?([^;\"']+?)[\"']?\s*;", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Dump:
    """A configuration that nginx has found good. ``texts``: all files that it read for it."""

    texts: Mapping[Path, str]
    pid: str  # as its directive says; empty: there is none

    @property
    def files(self) -> frozenset[Path]:
        return frozenset(self.texts)


@dataclass(frozen=True, slots=True)
class Program:
    """One nginx: how it is called, and with which configuration."""

    program: str
    config: Path
    prefix: Path | None
    timeout_s: float
    clock: Clock

    async def built(self) -> tuple[Path, str]:
        """Its prefix and its pid file, as it was built.

        Raises: PermanentError: it is not there, or it is too old.
        """
        done = await run_argv([self.program, "-V"], timeout_s=self.timeout_s)
        text = done.output.decode(errors="replace")
        version = re.search(r"version: \S+/(\d+)\.(\d+)", text)
        if version is None:
            said = (lines(done.output) or ["nothing"])[0]
            raise PermanentError(f"{self.program} -V does not say that it is nginx: {said}")
        if (int(version[1]), int(version[2])) < _OLDEST:
            raise PermanentError(
                f"nginx {version[1]}.{version[2]} is too old: at least "
                f"{_OLDEST[0]}.{_OLDEST[1]} is needed, for $request_id"
            )
        prefix = re.search(r"--prefix=(\S+)", text)
        pid = re.search(r"--pid-path=(\S+)", text)
        return (
            self.prefix or Path(prefix[1] if prefix else "/usr/local/nginx"),
            pid[1] if pid else "logs/nginx.pid",
        )

    async def tested(self) -> Dump:
        """Have it test its configuration as it is on the disk now.

        Raises:
            PermanentError: in nginx's own words, what is wrong with it.
            TransientError: it takes too long.
        """
        argv = [self.program, "-T", "-c", str(self.config)]
        if self.prefix is not None:
            argv += ["-p", str(self.prefix)]
        done = await run_argv(argv, timeout_s=self.timeout_s, output_cap_bytes=_DUMP_BYTES)
        if done.timed_out:
            raise TransientError(f"nginx has not tested {self.config} in {self.timeout_s:g} s")
        if done.exit_code != 0:
            said = [line for line in lines(done.output) if "[emerg]" in line]
            words = said or lines(done.output)[-1:] or ["it says nothing"]
            raise PermanentError(f"nginx refuses its configuration: {words[0]}")
        text = done.output.decode(errors="replace")
        pid = _PID.search(text)
        _, *parts = _FILE.split(text)
        texts = zip(map(Path, parts[::2]), parts[1::2], strict=True)
        return Dump(dict(texts), pid[1] if pid else "")


@dataclass(frozen=True, slots=True)
class Master:
    """The processes of an nginx that runs, found by its pid file."""

    pid_file: Path
    clock: Clock

    def find(self) -> int:
        """Raises: TransientError: it does not run."""
        try:
            pid = int(self.pid_file.read_text())
            title = _title(pid)
        except (OSError, ValueError) as error:
            raise TransientError(
                f"nginx does not run: its pid file {self.pid_file} cannot be read"
            ) from error
        if not title.startswith("nginx: master process"):
            raise TransientError(f"nginx does not run: process {pid} of {self.pid_file} is not it")
        return pid

    def workers(self, master: int) -> frozenset[int]:
        """Those that take new requests."""
        return frozenset(
            pid
            for pid in _children(master)
            if (title := _title(pid)).startswith("nginx: worker process") and _LEAVING not in title
        )

    def require_moving(self) -> None:
        """Raises: TransientError: it does not run, or stands still."""
        master = self.find()
        workers = self.workers(master)
        if not workers:
            raise TransientError(f"nginx (process {master}) has no workers")
        for pid in (master, *workers):
            if _state(pid) in "Tt":
                raise TransientError(f"nginx stands still: its process {pid} is stopped")

    def runs(self) -> bool:
        try:
            self.find()
        except TransientError:
            return False
        return True

    def require_ours(self) -> None:
        """Raises: TransientError, PermanentError: it has gone, or we may not signal it."""
        self._signal(0)

    def writes(self, log: Path) -> bool:
        """Whether a worker has this file open, as it has once it runs with our configuration."""
        wanted = str(log.resolve())
        try:
            return any(
                str(one.readlink()) == wanted
                for pid in self.workers(self.find())
                for one in Path(f"/proc/{pid}/fd").iterdir()
            )
        except PermissionError:
            return True  # only root can know
        except FileNotFoundError:
            return False  # it has just gone, or closed a file

    def blind(self, folder: Path) -> str:
        """Why its workers cannot look into a folder; empty: they can."""
        worker = min(self.workers(self.find()), default=0)
        user, groups = _rights(worker)
        for one in (*reversed(folder.parents), folder):
            if user == 0 or not one.exists():
                break
            found = one.stat()
            shift = 6 if found.st_uid == user else 3 if found.st_gid in groups else 0
            if not (found.st_mode >> shift) & 1:
                return (
                    f"nginx's workers (user {user}) may not look into {one}, so that no circuit "
                    f"would ever open: chmod a+x {one}"
                )
        return ""

    def send(self, number: signal.Signals) -> None:
        """Raises: TransientError, PermanentError: it has gone, or we may not."""
        self._signal(number)

    def _signal(self, number: int) -> None:
        master = self.find()
        try:
            os.kill(master, number)
        except ProcessLookupError as error:
            raise TransientError("nginx does not run any more") from error
        except PermissionError as error:
            raise PermanentError(
                f"nginx (process {master}) belongs to another user, and must be signalled by root "
                "or by that one: run Prunella as either"
            ) from error

    async def reload(self, timeout_s: float) -> None:
        """Have it read its configuration; returns when all new requests meet that.

        An old worker takes no request once it says in its title that it leaves.

        Raises: TransientError: the master does not do it.
        """
        before = self.workers(self.find())
        self.send(signal.SIGHUP)
        ends_at = self.clock.now() + timeout_s
        while self.clock.now() < ends_at:
            now = self.workers(self.find())
            if now and not now & before:
                return
            await self.clock.sleep_until(Instant(self.clock.now() + _POLL_S))
        raise TransientError(
            f"nginx has no new workers {timeout_s:g} s after it was told to reload"
        )


def _read(path: str) -> str:
    """Empty for a process that has gone meanwhile."""
    try:
        return Path(path).read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _title(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline").replace("\0", " ")


def _children(pid: int) -> Iterator[int]:
    yield from map(int, _read(f"/proc/{pid}/task/{pid}/children").split())


def _state(pid: int) -> str:
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].strip()[:1] or "-"


def _rights(pid: int) -> tuple[int, Sequence[int]]:
    """The effective user of a process and all its groups."""
    words = {
        key: [int(word) for word in rest.split()]
        for line in _read(f"/proc/{pid}/status").splitlines()
        for key, _, rest in [line.partition(":")]
        if key in ("Uid", "Gid", "Groups")
    }
    return words.get("Uid", [0, 0])[1], [*words.get("Gid", [0, 0])[1:2], *words.get("Groups", [])]


async def ask_status(url: str, timeout_s: float) -> None:
    """Ask nginx for its own status: whether it answers at all.

    Raises: TransientError: it does not, or with something else.
    """
    found = re.fullmatch(r"http://(\[[^\]]+\]|[^:/]+)(?::(\d+))?(/\S*)?", url)
    assert found is not None
    host, port, path = found[1].strip("[]"), int(found[2] or 80), found[3] or "/"
    request = f"GET {path} HTTP/1.0\r\nHost: {found[1]}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request.encode())
                said = b""
                while len(said) < 65536 and (chunk := await reader.read(65536)):
                    said += chunk
            finally:
                writer.close()
    except TimeoutError as error:
        raise TransientError(f"nginx does not answer at {url} in {timeout_s:g} s") from error
    except OSError as error:
        raise TransientError(
            f"nginx does not answer at {url}: {error.strerror or error}"
        ) from error
    if b"Active connections:" not in said:
        status = said.split(b"\r\n", 1)[0].decode(errors="replace")[:100]
        raise TransientError(f"what answers at {url} is no stub_status of nginx: {status!r}")
