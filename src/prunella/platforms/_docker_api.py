"""A Docker Engine behind its API: every call has a deadline, and its trouble is told in our words.

Used by the platforms that Docker runs. Nothing here knows what a service is.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pydantic import Field, field_validator

from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.spec import Duration, Spec

if TYPE_CHECKING:
    from prunella.platforms._docker_client import Client

_DEFAULT_HOST = "unix:///var/run/docker.sock"
_HOST = re.compile(r"unix://(/.+)|tcp://[^/\s]+:\d+")
_NO_ANSWER = 900  # the library's status for a connection that failed
_LENGTH = 300  # characters of the Engine's own words that are kept


class MissingError(PermanentError):
    """The Engine knows nothing of that name or id."""


class TlsSpec(Spec):
    """What proves to each other who they are, as PEM files."""

    ca_file: Path = Field(description="Certificate that the Engine's own must be signed by.")
    cert_file: Path | None = Field(None, description="Our certificate, for an Engine that asks.")
    key_file: Path | None = Field(None, description="The key of our certificate.")


class EngineSpec(Spec):
    """Which Docker Engine, and how patiently."""

    host: str | None = Field(
        None,
        description="Where the Docker Engine answers: unix:///path or tcp://host:port. Default: "
        "$DOCKER_HOST, else unix:///var/run/docker.sock.",
    )
    tls: TlsSpec | None = Field(None, description="For tcp: encrypt, and prove who we are.")
    timeout: Duration = Field(
        10.0,
        description="A call that takes longer is given up. Where a container must end first, its "
        "own stop timeout is added.",
    )

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not _HOST.fullmatch(value):
            raise ValueError("expected unix:///path or tcp://host:port")
        return value


class Address(NamedTuple):
    """All that makes two connections the same. Files are paths, empty without TLS."""

    host: str
    timeout_s: float
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it is this machine's, so that its pids and its addresses are ours as well."""
        return self.host.startswith("unix://")


def address_of(spec: EngineSpec) -> Address:
    """Where the spec leads, or else the environment, as Docker's own client reads it."""
    if spec.host is not None or spec.tls is not None:
        tls = spec.tls
        files = () if tls is None else (tls.ca_file, tls.cert_file, tls.key_file)
        paths = ("" if file is None else str(file) for file in files)
        return Address(spec.host or _default_host(), spec.timeout, *paths)
    folder = os.environ.get("DOCKER_CERT_PATH", "")
    if os.environ.get("DOCKER_TLS_VERIFY") and folder:
        paths = (str(Path(folder) / f"{name}.pem") for name in ("ca", "cert", "key"))
        return Address(_default_host(), spec.timeout, *paths)
    return Address(_default_host(), spec.timeout)


def _default_host() -> str:
    return os.environ.get("DOCKER_HOST") or _DEFAULT_HOST


class DockerApi:
    """One client of one Engine, on one event loop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._client: Client | None = None

    async def get(self, path: str, **query: object) -> Any:
        return await self.call("GET", path, query)

    async def post(
        self, path: str, body: object | None = None, *, extra_s: float = 0.0, **query: object
    ) -> Any:
        """`extra_s`: how much longer than usual the Engine may take, for what must end first."""
        return await self.call("POST", path, query, body, extra_s=extra_s)

    async def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: object | None = None,
        *,
        extra_s: float = 0.0,
    ) -> Any:
        """One request and its decoded answer.

        Raises:
            MissingError: 404.
            ConflictError: 409, or a version that is not the newest one.
            PermanentError: it is refused, and would be again.
            TransientError: no answer in time, an answer that is none, or trouble of the Engine.
                What was asked for may have happened all the same: read back before asking again.
        """
        within_s = self.address.timeout_s + extra_s
        try:
            async with asyncio.timeout(within_s):
                return await self._connected().ask(method, path, _encode(query), body)
        except PrunellaError:
            raise
        except Exception as error:
            raise self._explain(error, f"within {within_s:g} s") from error

    async def stream(self, path: str, **query: object) -> AsyncGenerator[dict[str, Any]]:
        """The objects of an answer that does not end; the first one is empty and says that the
        Engine has begun to answer.

        Raises: as `call`, at any time. Returns when the Engine has closed it.
        """
        lines = self._connected().lines(path, _encode(query))
        try:
            async with asyncio.timeout(self.address.timeout_s):
                await anext(lines)
            yield {}
            async for line in lines:
                yield dict(json.loads(line))
        except PrunellaError:
            raise
        except Exception as error:
            raise self._explain(error, f"within {self.address.timeout_s:g} s") from error
        finally:
            await lines.aclose()

    def renew(self) -> None:
        """Ask again which version it speaks: an Engine that was restarted may be another one."""
        if self._client is not None:
            self._client.api_version = "auto"

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _connected(self) -> Client:
        if self._client is None:
            from prunella.platforms._docker_client import Client  # noqa: PLC0415 - slow

            url = self.address.host
            if not _HOST.fullmatch(url):
                raise PermanentError(f"{url} is neither unix:///path nor tcp://host:port")
            tls = _tls_context(self.address)
            if not self.address.is_local:
                url = ("http://" if tls is None else "https://") + url.partition("://")[2]
            self._client = Client(url=url, ssl_context=tls)
        return self._client

    def _explain(self, error: Exception, within: str) -> Exception:
        from aiodocker import DockerError  # noqa: PLC0415 - slow
        from aiohttp import ClientError  # noqa: PLC0415 - slow

        host = self.address.host
        if isinstance(error, TimeoutError):
            return TransientError(f"the Docker Engine at {host} does not answer {within}")
        if isinstance(error, DockerError) and error.status != _NO_ANSWER:
            return _refusal(error.status, " ".join(error.message.split())[:_LENGTH])
        if isinstance(error, DockerError | ClientError | OSError):
            return _unreachable(host, error)
        if isinstance(error, ValueError | TypeError | LookupError):
            return TransientError(f"what answers at {host} does not speak as a Docker Engine")
        return error  # a defect


def part(of: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """The object at that path of an answer; empty where there is none."""
    found: Mapping[str, Any] = of
    for name in path:
        within: object = found.get(name)
        found = cast("Mapping[str, Any]", within) if isinstance(within, dict) else {}
    return dict(found)


def _encode(query: Mapping[str, object]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in query.items()
    }


def _tls_context(address: Address) -> ssl.SSLContext | None:
    if not address.ca_file:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if address.cert_file:
            context.load_cert_chain(address.cert_file, address.key_file or None)
    except OSError as error:  # an ssl.SSLError is one
        files = ", ".join(path for path in address[2:] if path)
        raise PermanentError(f"cannot use {files}: {error.strerror or error}") from error
    return context


def _refusal(status: int, words: str) -> Exception:
    if status == 404:
        return MissingError(words)
    if status == 409 or "update out of sequence" in words:
        return ConflictError(words)
    if status in (429, 503) or (status >= 500 and status != 501):
        return TransientError(f"the Docker Engine says: {words}")
    return PermanentError(f"the Docker Engine refuses: {words}")


def _unreachable(host: str, error: BaseException) -> Exception:
    found: BaseException | None = error
    while found is not None and not (isinstance(found, OSError) and found.errno):
        found = found.__cause__ or found.__context__
    number = found.errno if isinstance(found, OSError) else None
    if number in (errno.EACCES, errno.EPERM):
        return PermanentError(
            f"no permission for {host}: run Prunella as root or as a member of the group docker"
        )
    if number == errno.ENOENT:
        return TransientError(f"nothing at {host}: is Docker running, and is `host` right?")
    if number == errno.ECONNREFUSED:
        return TransientError(f"nobody answers at {host}: is Docker running?")
    reason = os.strerror(number) if number else str(error) or type(error).__name__
    return TransientError(f"the connection to the Docker Engine at {host} failed: {reason}")
