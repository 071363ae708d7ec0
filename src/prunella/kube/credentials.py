"""Who we are to a cluster, newest knowledge: tokens end, and are taken anew before they do."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from prunella.core.model import Instant
from prunella.errors import PermanentError, TransientError
from prunella.kube.access import Access
from prunella.ports import Clock

_FILE_S = 60.0  # a projected token is written anew by the kubelet long before it ends
_COMMAND_S = 30.0
_EARLY = timedelta(seconds=30)


class Credentials:
    """The bearer token, if any; certificates are the connection's."""

    def __init__(self, access: Access, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._token = access.token
        self._until: Instant | None = None  # None: for ever
        self._lock = asyncio.Lock()
        self._is_known = bool(access.token)

    async def token(self) -> str:
        """Raises: TransientError, PermanentError: it cannot be had."""
        if self._is_known and (self._until is None or self._clock.now() < self._until):
            return self._token
        async with self._lock:
            if self._is_known and (self._until is None or self._clock.now() < self._until):
                return self._token
            if self._access.token_file:
                await self._read()
            elif self._access.command:
                await self._run()
            self._is_known = True
            return self._token

    def forget(self) -> None:
        """The server does not accept it (any more)."""
        if self._access.token_file or self._access.command:
            self._is_known = False

    async def _read(self) -> None:
        try:
            text = await asyncio.to_thread(Path(self._access.token_file).read_text)
        except OSError as error:
            raise PermanentError(f"the token in {self._access.token_file}: {error}") from error
        self._token, self._until = text.strip(), Instant(self._clock.now() + _FILE_S)

    async def _run(self) -> None:
        argv = self._access.command
        kind = {
            "apiVersion": self._access.command_version,
            "kind": "ExecCredential",
            "spec": {"interactive": False},
        }
        env = {
            **os.environ,
            **dict(self._access.environment),
            "KUBERNETES_EXEC_INFO": json.dumps(kind),
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise PermanentError(
                f"the kubeconfig's command {argv[0]} cannot be run: {error}"
            ) from error
        try:
            async with asyncio.timeout(_COMMAND_S):
                output, _ = await process.communicate()
        except TimeoutError:
            raise TransientError(
                f"{argv[0]} gives no credentials within {_COMMAND_S:g} s"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise TransientError(f"{argv[0]} gives no credentials: exit code {process.returncode}")
        try:
            status: dict[str, Any] = json.loads(output)["status"]
            self._token = str(status["token"])
            end = status.get("expirationTimestamp")
            self._until = None if end is None else self._instant(datetime.fromisoformat(end))
        except (ValueError, TypeError, LookupError) as error:
            raise PermanentError(f"{argv[0]} prints no credentials with a token") from error

    def _instant(self, end: datetime) -> Instant:
        left = end - _EARLY - self._clock.wall()
        return Instant(self._clock.now() + max(0.0, left.total_seconds()))
