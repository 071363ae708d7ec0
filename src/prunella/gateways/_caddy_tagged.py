"""Reading a piece of Caddy's configuration together with its tag.

Caddy before 2.8 sends the tag after the body, as a trailer, which HTTP clients do not hand out.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote, urlsplit

from prunella.errors import TransientError
from prunella.gateways._admin import Answer

_LIMIT_BYTES = 4 * 2**20
_TAG = re.compile(rb"^etag:[ \t]*(.+?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


async def tagged(base: str, path: str, timeout_s: float) -> tuple[Any, str]:
    """What is there, in JSON, and the tag to change it under.

    Raises: TransientError, PermanentError: it is not to be had.
    """
    where = f"GET {base}{path}"
    parts = urlsplit(base)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    request = (
        f"GET {parts.path}{quote(path)} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "User-Agent: prunella\r\nConnection: close\r\n\r\n"
    )
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure or None)
            try:
                writer.write(request.encode())
                raw = await _to_the_end(reader, where)
            finally:
                writer.close()
    except TimeoutError as error:
        raise TransientError(f"{where}: no answer within {timeout_s:g} s") from error
    except OSError as error:
        raise TransientError(f"{where} failed: {error.strerror or error}") from error
    head, _, rest = raw.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    if status is None:
        raise TransientError(f"{where} makes no sense")
    chunked = re.search(rb"^transfer-encoding:[ \t]*chunked", head, re.IGNORECASE | re.MULTILINE)
    body, after = _whole(rest, where) if chunked else (rest, b"")
    answer = Answer(where, int(status[1]), body).require()
    tag = _TAG.search(head) or _TAG.search(after)
    if tag is None:
        raise TransientError(f"{where} has no tag: Caddy 2.5 or newer is needed")
    return answer.json(), tag[1].decode("latin-1")


async def _to_the_end(reader: asyncio.StreamReader, where: str) -> bytes:
    raw = bytearray()
    while piece := await reader.read(2**16):
        raw += piece
        if len(raw) > _LIMIT_BYTES:
            raise TransientError(f"{where} answers more than {_LIMIT_BYTES} bytes")
    return bytes(raw)


def _whole(rest: bytes, where: str) -> tuple[bytes, bytes]:
    """The body in one piece, and the trailers."""
    pieces: list[bytes] = []
    while True:
        size, found, rest = rest.partition(b"\r\n")
        if not found or not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size):
            raise TransientError(f"{where} was cut short")
        length = int(size, 16)
        if length == 0:
            return b"".join(pieces), rest
        pieces.append(rest[:length])
        rest = rest[length + 2 :]
