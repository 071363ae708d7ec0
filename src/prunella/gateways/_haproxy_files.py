"""Files that HAProxy reads when it is reloaded: always whole, and written again until it works."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

_MODE = 0o644  # HAProxy may read it as another user


class KeptFile:
    """One file that follows what is set in HAProxy.

    A file that cannot be written stops no circuit from being turned: it matters at the next reload
    only. It is tried again at each reading until it is there. With ``ours`` its folder is made.

    Attributes:
        trouble: why the newest text is not in the file; empty: it is.
    """

    def __init__(self, path: Path, *, ours: bool = False) -> None:
        self.path = path
        self._ours = ours
        self.trouble = ""
        self._written: str | None = None

    async def read(self) -> str:
        """What was kept; empty where nothing was, or nothing that can be read."""
        return await asyncio.to_thread(self._read)

    async def keep(self, text: str) -> None:
        if self._written is None:
            self._written = await self.read()
        if text == self._written and not self.trouble:
            return
        try:
            await asyncio.to_thread(self._write, text)
        except OSError as error:
            self.trouble = f"{self.path} cannot be written: {error.strerror or error}"
        else:
            self.trouble = ""
            self._written = text

    def _read(self) -> str:
        try:
            return self.path.read_text(errors="replace")
        except OSError:
            return ""

    def _write(self, text: str) -> None:
        if self._ours:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), _MODE)
                os.fsync(file.fileno())
            os.replace(name, self.path)  # noqa: PTH105 - both names as they are
        except BaseException:
            with suppress(OSError):
                os.unlink(name)  # noqa: PTH108 - as above
            raise
