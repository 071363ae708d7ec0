"""The http probe: one request, judged by its status and, if asked, by its body.

A number in the body may say how much the service has to do.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, cast

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from prunella.core.model import Cause, Observation
from prunella.plugins import ProbeContext, ProbePlugin
from prunella.probes._exchange import Exchange, ReadingExchange, phrase
from prunella.probes._names import Names
from prunella.probes._number import FoundNumber, Reading, weigh
from prunella.probes._reach import reach, settled
from prunella.probes._tls import HttpTls, tls_context
from prunella.probes._url import (
    HeadersToSend,
    Url,
    UrlText,
    build_request,
    parse_url,
    resolve_location,
)
from prunella.probes._wire import Tls, Trouble, observe
from prunella.spec import ProbeSpec, Regex, Spec

_MAX_REDIRECTS = 5
_WELL = Reading()
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RANGE = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?")


@lru_cache(maxsize=256)  # ten thousand probes of one expectation share one set
def parse_codes(text: str) -> frozenset[int]:
    """Status codes from ``200-399`` or ``200,204,300-302``.

    Raises:
        ValueError: names the part that is neither a code nor a range.
    """
    codes: set[int] = set()
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"{part.strip()!r} is neither a status code nor a range like 200-399")
        low, high = int(found[1]), int(found[2] or found[1])
        if high < low:
            raise ValueError(f"the range {part.strip()} is empty")
        codes.update(range(low, high + 1))
    return frozenset(codes)


def _canonical_codes(value: object) -> object:
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    if any(isinstance(item, bool) or not isinstance(item, int | str) for item in items):
        raise ValueError("expected status codes such as 200-399, 204 or [200, 204]")
    text = ",".join(str(item).replace(" ", "") for item in items)
    parse_codes(text)
    return text


Codes = Annotated[
    str,
    BeforeValidator(_canonical_codes),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "integer"},
                {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1},
            ]
        }
    ),
]


class HttpExpect(Spec):
    """What a good answer looks like."""

    status: Codes = Field(
        default="200-399", description="Good status codes: a code, a range, or several of them."
    )
    body: Regex | None = Field(
        default=None,
        description="Regular expression that must be found in the first 64 KiB of the body.",
    )


class HttpSpec(ProbeSpec):
    """Ask an HTTP server and judge its answer."""

    url: UrlText = Field(description="What to ask for; http or https.")
    socket: Path | None = Field(
        default=None, description="Path of a unix socket to connect to instead of the URL's host."
    )
    method: str = Field(default="GET", pattern=r"^[A-Z]{1,20}$", description="Request method.")
    headers: HeadersToSend = Field(
        default_factory=dict[str, str], description="Further request headers."
    )
    body: str | None = Field(default=None, description="Request body, sent as UTF-8.")
    expect: HttpExpect = Field(default_factory=HttpExpect, description="What a good answer is.")
    number: FoundNumber | None = Field(
        default=None,
        description="A number in the first 64 KiB of the body, and its limit.",
    )
    redirects: bool = Field(
        default=False, description="Follow up to 5 redirects and judge where they lead."
    )
    reuse: bool = Field(
        default=False, description="Keep the connection between checks. Default: a fresh one each."
    )
    tls: HttpTls = Field(default_factory=HttpTls, description="TLS settings for https.")

    @model_validator(mode="after")
    def _has_a_body_to_judge(self) -> HttpSpec:
        if self.method == "CONNECT":
            raise ValueError("CONNECT cannot be probed")
        wanted = self.expect.body if self.number is None else self.number.pattern
        if self.method == "HEAD" and wanted is not None:
            raise ValueError("an answer to HEAD has no body to expect anything of")
        return self


@dataclass(frozen=True, slots=True)
class _Target:
    url: Url
    method: str
    names: Names
    request: bytes
    tls: Tls | None


class HttpProbe:
    """Measures one URL. Keeps at most one connection between checks."""

    kind: ClassVar[str] = "http"

    __slots__ = (
        "_clock",
        "_codes",
        "_context",
        "_home",
        "_hops",
        "_last",
        "_number",
        "_pattern",
        "_spec",
        "_target",
        "_timeout_s",
        "_with_body",
    )

    def __init__(self, spec: HttpSpec, context: ProbeContext) -> None:
        self._spec = spec
        self._clock = context.clock
        self._timeout_s = spec.timeout
        self._codes = parse_codes(spec.expect.status)
        self._pattern = None if spec.expect.body is None else re.compile(spec.expect.body)
        number = spec.number
        self._number = None if number is None else (re.compile(number.pattern), number)
        reads = self._pattern is not None or self._number is not None
        self._with_body = self._codes if reads else frozenset[int]()
        self._context: ssl.SSLContext | None = None
        self._last: Exchange | None = None
        self._hops: dict[tuple[Url, str], _Target] = {}
        self._home = parse_url(spec.url)
        self._target = self._aim(self._home, spec.method)

    async def check(self) -> Observation:
        started = self._clock.now()
        trouble, load = await self._ask()
        return observe(self._clock, started, trouble, load)

    async def close(self) -> None:
        kept = self._let_go()
        if kept is not None:
            kept.close()
        for target in (self._target, *self._hops.values()):
            target.names.close()

    async def _ask(self) -> Reading:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        target = self._target
        for _ in range(_MAX_REDIRECTS + 1):
            exchange = await self._reach(loop, target, deadline)
            if isinstance(exchange, Trouble):
                return Reading(exchange)
            if (
                not isinstance(exchange, ReadingExchange)
                or exchange.location is None
                or exchange.status not in _REDIRECTS
                or not self._spec.redirects
            ):
                return self._judge(exchange)
            exchange.close()
            try:
                target = self._hop(target, exchange.status, exchange.location)
            except ValueError as error:
                return Reading(Trouble(Cause.ERROR, f"redirected to nowhere: {error}"))
        return Reading(Trouble(Cause.ERROR, f"more than {_MAX_REDIRECTS} redirects"))

    def _judge(self, exchange: Exchange) -> Reading:
        status = exchange.status
        if status not in self._codes:
            wanted = self._spec.expect.status
            return Reading(Trouble(Cause.ERROR, f"{phrase(status)}, expected {wanted}"))
        if not self._with_body:
            return _WELL
        assert isinstance(exchange, ReadingExchange)
        body = exchange.body.decode("utf-8", "replace")
        if self._pattern is not None and not self._pattern.search(body):
            return _absent(status, self._pattern)
        if self._number is None:
            return _WELL
        pattern, number = self._number
        found = pattern.search(body)
        return _absent(status, pattern) if found is None else weigh(found[1] or "", number)

    async def _reach(
        self, loop: asyncio.AbstractEventLoop, target: _Target, deadline: float
    ) -> Exchange | Trouble:
        """Ask the addresses of `target` in turn until one of them answers or fails for good."""
        kept = self._let_go() if target is self._target else None
        if kept is not None:
            exchange = self._exchange(loop, target)
            exchange.resume(kept, target.request, deadline)
            await settled(exchange)
            if exchange.trouble is None:
                return exchange
            if exchange.answered or exchange.trouble.cause is Cause.TIMEOUT:
                return exchange.trouble
        return await reach(
            lambda: self._exchange(loop, target),
            target.names,
            target.request,
            target.tls,
            deadline,
        )

    def _exchange(self, loop: asyncio.AbstractEventLoop, target: _Target) -> Exchange:
        keep = self._spec.reuse and target is self._target
        bodiless = target.method == "HEAD"
        if not self._with_body and not self._spec.redirects:
            self._last = Exchange(loop, self._timeout_s, keep=keep, bodiless=bodiless)
        else:
            self._last = ReadingExchange(
                loop, self._timeout_s, keep=keep, bodiless=bodiless, with_body=self._with_body
            )
        return self._last

    def _let_go(self) -> socket.socket | None:
        """End the last exchange; its connection if it was to be kept and still can be."""
        last, self._last = self._last, None
        if last is None:
            return None
        if last.idle:
            return last.release()
        last.close()
        return None

    def _hop(self, origin: _Target, status: int, location: bytes) -> _Target:
        url = resolve_location(origin.url, location)
        method = origin.method
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method = "GET"
        target = self._hops.get((url, method))
        if target is None:
            if len(self._hops) > 2 * _MAX_REDIRECTS:
                self._hops.clear()
            target = self._hops[url, method] = self._aim(url, method)
        return target

    def _aim(self, url: Url, method: str) -> _Target:
        """Prepare everything of a request that is the same for each check.

        The headers and the body of the configuration go to the configured origin alone, not to
        wherever it redirects: they may be secrets.
        """
        spec = self._spec
        ours = url[:3] == self._home[:3]
        body = spec.body.encode() if ours and spec.body and method == spec.method else None
        keep = spec.reuse and url == self._home
        return _Target(
            url,
            method,
            Names(url.host, url.port, self._clock, socket_path=spec.socket if ours else None),
            build_request(url, method, spec.headers if ours else {}, body, keep=keep),
            self._tls(url) if url.scheme == "https" else None,
        )

    def _tls(self, url: Url) -> Tls:
        wanted = self._spec.tls
        if self._context is None:
            self._context = tls_context(wanted)
        return Tls(self._context, wanted.server_name or url.host)


def _absent(status: int, pattern: re.Pattern[str]) -> Reading:
    said = f"{phrase(status)}, but no {pattern.pattern!r} in the body"
    return Reading(Trouble(Cause.ERROR, said))


PLUGIN = ProbePlugin(kind=HttpProbe.kind, spec=HttpSpec, build=HttpProbe)
