"""Speaking with what administers a gateway: one deadline, bounded answers, plain words.

Redirects are not followed: an order must arrive where it was sent to, or not at all. A secret
comes from a file, read anew for each request, and is in no message.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from pydantic import AfterValidator

from prunella.core.model import ServiceId
from prunella.core.traffic import Flow, Valve
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.ports import Remark, Route

_LIMIT_BYTES = 32 * 2**20
_SAID_CHARS = 200
_AT_ONCE = 16
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected a URL that starts with http:// or https:// and names a host")
    if "@" in parts.netloc:
        raise ValueError("a URL must not contain a user or password: use headers and token_file")
    if any(c <= " " or c == "\x7f" for c in text):
        raise ValueError("the URL contains white space or control characters")
    return text


def _base(text: str) -> str:
    return _url(text).rstrip("/")


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or any(c < " " or c == "\x7f" for c in value):
            raise ValueError(f"{name!r} is not a header, or its value has control characters")
    return headers


Headers = Annotated[dict[str, str], AfterValidator(_headers)]
Url = Annotated[str, AfterValidator(_url)]
Base = Annotated[str, AfterValidator(_base)]


class Answer(NamedTuple):
    """What came back; ``where`` is what was asked, for people."""

    where: str
    status: int
    body: bytes
    hidden: str = ""

    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """What the body says. Raises TransientError: it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise TransientError(f"{self.where} makes no sense: {self._said()}") from error

    def require(self, well: frozenset[int] = frozenset(range(200, 300))) -> Answer:
        """This answer, if its status is a good one; else the trouble that it stands for."""
        if self.status in well:
            return self
        if 300 <= self.status < 400:
            raise PermanentError(f"{self.where} leads elsewhere ({self.status}): not followed")
        if self.status in (401, 403):
            raise PermanentError(f"{self.where} is not allowed to us ({self.status}): wrong token?")
        if self.status in (409, 412):
            raise ConflictError(f"{self.where}: somebody else has changed it ({self.status})")
        told = f"{self.where} answered {self.status}: {self._said()}"
        if 400 <= self.status < 500 and self.status not in (408, 425, 429):
            raise PermanentError(told)
        raise TransientError(told)

    def _said(self) -> str:
        said = self.text()
        if self.hidden:
            said = said.replace(self.hidden, "***")
        return " ".join(said[:_SAID_CHARS].split()) or "nothing"


@dataclass
class Admin:
    """A client of one admin interface.

    Attributes:
        timeout_s: for one request, from connection to the last byte.
        base: goes before each path.
        headers: of each request; ``{token}`` in their values is what `token_file` says.
    """

    timeout_s: float
    base: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    token_file: Path | None = None
    _session: aiohttp.ClientSession | None = None

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, and all of its answer, whatever its status.

        Raises:
            TransientError: no whole answer in time.
            PermanentError: the token cannot be read.
        """
        where = f"{method} {self.base}{path}"
        token = self._token()
        given = {**self.headers, **(headers or {})}
        sent = {name: value.replace("{token}", token) for name, value in given.items()}
        try:
            async with (
                asyncio.timeout(self.timeout_s),
                self._client().request(
                    method, f"{self.base}{path}", data=body, headers=sent, allow_redirects=False
                ) as response,
            ):
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > _LIMIT_BYTES:
                        raise TransientError(f"{where} answers more than {_LIMIT_BYTES} bytes")
                return Answer(where, response.status, bytes(content), token)
        except TimeoutError as error:
            raise TransientError(f"{where}: no answer within {self.timeout_s:g} s") from error
        except aiohttp.ClientError as error:
            raise TransientError(f"{where} failed: {_words(error)}") from error

    async def get(self, path: str) -> Any:
        """What it says there, in JSON."""
        return (await self.ask("GET", path)).require().json()

    async def put(self, method: str, path: str, value: Any, **headers: str) -> Answer:
        """Send it something in JSON."""
        sent = {"Content-Type": "application/json", **headers}
        return await self.ask(method, path, body=json.dumps(value).encode(), headers=sent)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        # A gateway that reloads closes connections at any moment: none is kept for later.
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=_AT_ONCE, force_close=True)
            agent = {"User-Agent": "prunella"}
            self._session = aiohttp.ClientSession(connector=connector, headers=agent)
        return self._session

    def _token(self) -> str:
        if self.token_file is None:
            return ""
        try:
            token = self.token_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PermanentError(
                f"the token in {self.token_file} cannot be read: {error}"
            ) from error
        if not token or any(c < " " for c in token):
            raise PermanentError(f"{self.token_file} does not hold a token")
        return token


def _words(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error)
    return str(error) or type(error).__name__


def share_of(service: ServiceId, present: Valve, before: Valve, valve: Valve) -> int:
    """The share that a turn leads to, from what is set now.

    Raises:
        ConflictError: what is to be turned, or kept below 100 %, is neither of the two.
    """
    if present.share in (before.share, valve.share):
        return valve.share
    if before.share != valve.share or valve.share < 100:
        raise ConflictError(f"{service} is at {present.share} %: somebody else has set that")
    return present.share


def refuse_parts(kind: str, valve: Valve, before: Valve, *, shares: bool, shuts: bool) -> None:
    """Raises PermanentError: this gateway cannot set a valve like that."""
    if not shares and valve.share not in (0, 100):
        raise PermanentError(f"this {kind} gateway lets all requests through or none")
    if not shuts and valve.shut != before.shut:
        raise PermanentError(f"this {kind} gateway cannot keep requests from one server")


def route_of(routes: Mapping[ServiceId, Route], service: ServiceId) -> Route:
    """Raises PermanentError: there is none."""
    if service not in routes:
        raise PermanentError(f"no service {service} is behind this gateway")
    return routes[service]


async def unknown_to(
    observe: Callable[[], Awaitable[Mapping[ServiceId, Flow]]],
    routes: Mapping[ServiceId, Route],
    words: Callable[[Route], str],
) -> Sequence[Remark]:
    """A fault for each service that the gateway tells nothing of; or why it tells nothing at all.

    Args:
        observe: the gateway's own.
        routes: what should be behind it.
        words: what is wrong with one that it does not know.
    """
    try:
        known = await observe()
    except PrunellaError as error:
        return [Remark(str(error), fault=True)]
    return [
        Remark(f"{service}: {words(route)}", fault=True)
        for service, route in routes.items()
        if service not in known
    ]
