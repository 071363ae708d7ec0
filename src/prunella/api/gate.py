"""What every request must pass before it is read.

The API has no access control: it answers programs of its own machine only. A web page that a
browser shows on that machine is not one of them, so names that a foreign server may point here
(Host) and requests that a foreign page may send (Origin, forms) are refused.
"""

from __future__ import annotations

import ipaddress
import re

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 2**20

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:@/\s]+))(?::\d{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether a name or an address can only mean this machine."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """Refuses in front of the application, in the application's own words."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = _refusal(scope["method"], headers)
        if refused is None and scope["method"] not in _READING:
            body = await _body(headers, receive)
            if body is None:
                refused = (413, f"the body is larger than {MAX_BODY_BYTES} bytes")
            else:
                receive = _Replayed(body, receive)
        if refused is None:
            await self._app(scope, receive, send)
        else:
            status, detail = refused
            answer = JSONResponse({"detail": detail}, status, headers={"Connection": "close"})
            await answer(scope, receive, send)


def _refusal(method: str, headers: Headers) -> tuple[int, str] | None:
    hosts = headers.getlist("host")
    found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if found is None or not is_loopback(found[1] or found[2]):
        return 403, "the Host header must name this machine: 127.0.0.1, [::1] or localhost"
    if method in _READING:
        return None
    origins = headers.getlist("origin")
    if any(origin.lower() != f"http://{hosts[0]}".lower() for origin in origins):
        return 403, "requests from pages of another origin are refused"
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        return 415, "Content-Type must be application/json"
    return None


async def _body(headers: Headers, receive: Receive) -> bytes | None:
    """The whole body; None if it is too large, or its sender has gone."""
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > MAX_BODY_BYTES:
        return None
    chunks: list[bytes] = []
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        size_bytes += len(chunks[-1])
        if size_bytes > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(chunks)


class _Replayed:
    """The body that has been read already, then whatever else comes."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
