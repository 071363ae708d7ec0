"""HAProxy's Runtime API: commands over a unix socket, and what each of them is answered with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from prunella.errors import PermanentError, TransientError

_REPLIES_BYTES = 64 * 2**20  # some thousand servers are a few MiB
_COMMANDS_BYTES = 8 * 2**10  # HAProxy reads one line of less than tune.bufsize, 16 KiB
_CHUNK_BYTES = 2**18
DENIED = "Permission denied"


class AdminSocket:
    """One connection per call: HAProxy may be another process each time."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.path = path
        self._timeout_s = timeout_s

    async def ask(self, *commands: str) -> Sequence[str]:
        """The reply to each command, in their order; an error of HAProxy's is a reply as well.

        Raises:
            TransientError: it cannot be reached, takes too long, or what it says is no answer.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                text = await self._converse(f"{';'.join(commands)}\n")
        except TimeoutError as error:
            raise TransientError(
                f"HAProxy has not answered at {self.path} within {self._timeout_s:g} s"
            ) from error
        except OSError as error:
            why = error.strerror or error
            raise TransientError(f"HAProxy cannot be asked at {self.path}: {why}") from error
        replies = list(_parts(text))
        if len(replies) != len(commands):
            raise TransientError(f"what answers at {self.path} does not speak like HAProxy")
        return replies

    async def order(self, commands: Sequence[str]) -> None:
        """Have commands carried out that say nothing when they have worked.

        Raises:
            PermanentError: HAProxy refuses one; those before it are done, and perhaps some after.
            TransientError: as for `ask`; any number of them may be done.
        """
        for batch in _batches(commands):
            for command, reply in zip(batch, await self.ask(*batch), strict=True):
                if reply.startswith(DENIED):
                    raise PermanentError(f"HAProxy lets nobody change anything at {self.path}")
                if reply:
                    raise PermanentError(f"HAProxy refuses {command!r}: {reply.strip()}")

    async def _converse(self, line: str) -> str:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=_CHUNK_BYTES)
        try:
            writer.write(line.encode())
            found = bytearray()
            while chunk := await reader.read(_CHUNK_BYTES):
                found += chunk
                if len(found) > _REPLIES_BYTES:
                    raise TransientError(f"what answers at {self.path} does not come to an end")
        finally:
            writer.close()
        return found.decode(errors="replace")


def _parts(text: str) -> Iterator[str]:
    """An empty line ends each reply; what has no end was cut off and is left out."""
    at = 0
    while at < len(text):
        if text[at] == "\n":
            yield ""
            at += 1
            continue
        end = text.find("\n\n", at)
        if end < 0:
            return
        yield text[at:end]
        at = end + 2


def _batches(commands: Sequence[str]) -> Iterator[Sequence[str]]:
    batch: list[str] = []
    size = 0
    for command in commands:
        if batch and size + len(command) >= _COMMANDS_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(command)
        size += len(command) + 1
    if batch:
        yield batch
