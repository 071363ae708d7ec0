"""One HTTP answer, read whole within bounds. For probes that read figures and not a status."""

from __future__ import annotations

import asyncio
import zlib
from pathlib import Path
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from prunella.core.model import Cause
from prunella.ports import Clock
from prunella.probes._exchange import ReadingExchange
from prunella.probes._names import Names
from prunella.probes._reach import reach
from prunella.probes._tls import HttpTls, tls_context
from prunella.probes._url import HeadersToSend, Url, UrlText, build_request
from prunella.probes._wire import Tls, Trouble
from prunella.spec import ProbeSpec

PAGE_CAP_BYTES = 4 * 2**20
_TOKEN_CAP_BYTES = 8192
_TOO_LONG = Trouble(None, f"the answer is longer than {PAGE_CAP_BYTES >> 20} MiB")


class PageSpec(ProbeSpec):
    """Where figures are read."""

    url: UrlText = Field(description="What to ask for; http or https.")
    socket: Path | None = Field(
        default=None, description="Path of a unix socket to connect to instead of the URL's host."
    )
    headers: HeadersToSend = Field(
        default_factory=dict[str, str], description="Further request headers."
    )
    token_file: Path | None = Field(
        default=None,
        description="File with a bearer token to send; read anew for each request.",
    )
    tls: HttpTls = Field(default_factory=HttpTls, description="TLS settings for https.")

    @model_validator(mode="after")
    def _says_once_who_asks(self) -> PageSpec:
        if self.token_file and "authorization" in {name.lower() for name in self.headers}:
            raise ValueError("both token_file and a header say who asks")
        return self


class Page(NamedTuple):
    """An answer. ``body`` is empty where the status is none of those whose body was wanted."""

    status: int
    body: bytes


class PageExchange(ReadingExchange):
    """Reads the body to its end; one that is too long is our trouble."""

    cap_bytes: ClassVar[int] = PAGE_CAP_BYTES

    __slots__ = ("encoding",)

    def __init__(
        self, loop: asyncio.AbstractEventLoop, timeout_s: float, with_body: frozenset[int]
    ) -> None:
        super().__init__(loop, timeout_s, keep=False, bodiless=False, with_body=with_body)
        self.encoding = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status and name.lower() == b"content-encoding":
            self.encoding = value.decode("latin-1").strip().lower()
        super().on_header(name, value)

    def capped(self) -> None:
        too_long = max(self._body_bytes, len(self.body)) >= PAGE_CAP_BYTES
        self.settle(_TOO_LONG if too_long else None)
        self.close()


class Pages:
    """Asks one URL, over a fresh connection each time.

    Args:
        spec: who asks, and how.
        url: what to ask for; the spec's own, or one below it.
        clock: for the names.
        with_body: statuses whose body is read.
    """

    def __init__(self, spec: PageSpec, url: Url, clock: Clock, with_body: frozenset[int]) -> None:
        self._url = url
        self._headers = spec.headers
        self._token_file = spec.token_file
        self._with_body = with_body
        self._names = Names(url.host, url.port, clock, socket_path=spec.socket)
        self._tls = None
        if url.scheme == "https":
            self._tls = Tls(tls_context(spec.tls), spec.tls.server_name or url.host)

    async def ask(self, timeout_s: float, form: bytes | None = None) -> Page | Trouble:
        """What is there now; with `form`, the answer to it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        headers = {"Accept": "text/plain;version=0.0.4, */*;q=0.1", **self._headers}
        if form is not None:
            headers |= {"Accept": "*/*", "Content-Type": "application/x-www-form-urlencoded"}
        if self._token_file is not None:
            token = await _token(self._token_file, timeout_s)
            if isinstance(token, Trouble):
                return token
            headers["Authorization"] = f"Bearer {token}"
        method = "GET" if form is None else "POST"
        request = build_request(self._url, method, headers, form, keep=False)
        exchange = await reach(
            lambda: PageExchange(loop, timeout_s, self._with_body),
            self._names,
            request,
            self._tls,
            deadline,
        )
        if isinstance(exchange, Trouble):
            return exchange
        exchange.close()
        body = _unpacked(bytes(exchange.body), exchange.encoding)
        return body if isinstance(body, Trouble) else Page(exchange.status, body)

    def close(self) -> None:
        self._names.close()


def _unpacked(body: bytes, encoding: str) -> bytes | Trouble:
    """Servers compress, though we never ask for it; no more than the cap is unpacked."""
    if encoding in ("", "identity") or not body:
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return Trouble(None, f"the answer is compressed with {encoding}, which is not understood")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        unpacked = unpacker.decompress(body, PAGE_CAP_BYTES)
    except zlib.error:
        return Trouble(Cause.ERROR, f"the answer is not {encoding}, as it says")
    if len(unpacked) >= PAGE_CAP_BYTES:
        return _TOO_LONG
    if not unpacker.eof:
        return Trouble(Cause.ERROR, "the compressed answer has no end")
    return unpacked


async def _token(file: Path, timeout_s: float) -> str | Trouble:
    try:
        async with asyncio.timeout(timeout_s):
            raw = await asyncio.to_thread(_first_bytes, file)
    except TimeoutError:
        return Trouble(None, f"cannot read {file}: the file system does not answer")
    except OSError as error:
        return Trouble(None, f"cannot read {file}: {error.strerror}")
    token = raw.decode("latin-1").strip()
    if not token or not token.isascii() or not token.isprintable() or len(raw) > _TOKEN_CAP_BYTES:
        return Trouble(None, f"there is no token in {file}")
    return token


def _first_bytes(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_TOKEN_CAP_BYTES + 1)
