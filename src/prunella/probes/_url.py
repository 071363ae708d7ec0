"""From a URL to the bytes of a request: checked once, when the configuration is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from pydantic import AfterValidator

_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN = frozenset({"connection", "content-length", "transfer-encoding", "accept-encoding"})
_PATH_SAFE = "/%:@!$&'()*+,;=~?-._"


class Url(NamedTuple):
    """Where to ask and what for; ``authority`` is the Host header, ``path`` has the query."""

    scheme: str
    host: str
    port: int
    authority: str
    path: str


def parse_url(text: str) -> Url:
    """Take a URL apart.

    Raises:
        ValueError: not an http(s) URL, or one that says more than where to ask.
    """
    if any(c <= " " or c == "\x7f" for c in text):
        raise ValueError("the URL contains white space or control characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    if parts.scheme not in _PORTS:
        raise ValueError("the URL must start with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("a URL must not contain a user or password: use headers")
    if not host:
        raise ValueError("the URL names no host")
    if port == 0:
        raise ValueError("port 0 cannot be probed")
    try:
        ascii_host = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"{host} is not a host name") from error
    name = f"[{ascii_host.partition('%')[0]}]" if ":" in ascii_host else ascii_host
    authority = name if port in (None, _PORTS[parts.scheme]) else f"{name}:{port}"
    path = quote(parts.path, safe=_PATH_SAFE) or "/"
    if parts.query:
        path += "?" + quote(parts.query, safe=_PATH_SAFE)
    return Url(parts.scheme, ascii_host, port or _PORTS[parts.scheme], authority, path)


def resolve_location(base: Url, location: bytes) -> Url:
    """The URL that a redirect from `base` leads to.

    Raises:
        ValueError: as `parse_url`, or not text.
    """
    text = location.decode("ascii")
    return parse_url(urljoin(f"{base.scheme}://{base.authority}{base.path}", text))


def _can_be_asked(text: str) -> str:
    parse_url(text)
    return text


def _can_be_sent(headers: dict[str, str]) -> dict[str, str]:
    """Refuse headers that would break the request or that the probe sets itself.

    Raises:
        ValueError: names the header.
    """
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if name.lower() in _OWN:
            raise ValueError(f"the header {name} is the probe's own to set")
        if any(c in value for c in "\r\n\0"):
            raise ValueError(f"the value of the header {name} contains a line break")
        try:
            value.encode("latin-1")
        except UnicodeEncodeError as error:
            raise ValueError(f"the value of the header {name} is not Latin-1") from error
    return headers


UrlText = Annotated[str, AfterValidator(_can_be_asked)]
HeadersToSend = Annotated[dict[str, str], AfterValidator(_can_be_sent)]


def build_request(
    url: Url, method: str, headers: Mapping[str, str], body: bytes | None, *, keep: bool
) -> bytes:
    """The whole request. It never asks for compression: what is sent is what is judged."""
    given = {name.lower() for name in headers}
    lines = [f"{method} {url.path} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {url.authority}")
    if "user-agent" not in given:
        lines.append("User-Agent: prunella")
    if "accept" not in given:
        lines.append("Accept: */*")
    lines.append(f"Connection: {'keep-alive' if keep else 'close'}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
