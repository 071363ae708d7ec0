"""Gateway ``http``: any other one, by templated requests: open, close, and read the state.

What the state says decides: a good answer to an order is no success before the state says so too.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from prunella.core.model import Epoch, Instant, ServiceId
from prunella.core.traffic import OPEN_WIDE, Flow, Traffic, Valve
from prunella.errors import PermanentError, TransientError
from prunella.gateways._admin import (
    Admin,
    Answer,
    Headers,
    Url,
    refuse_parts,
    route_of,
    share_of,
    unknown_to,
)
from prunella.plugins import GatewayContext, GatewayPlugin
from prunella.ports import Remark, Route
from prunella.spec import GatewaySpec, Regex, RouteSpec, Spec

_WORD = re.compile(r"\{(backend|service|share|lease_s|body|fallback)\}")
_CODES = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?")
_LOOK_S = (0.01, 0.25)


def _codes(text: str) -> str:
    found = [_CODES.fullmatch(part.strip()) for part in text.split(",")]
    if not all(found):
        raise ValueError("expected status codes such as 200-299 or 200,204")
    return text


def _one_group(text: str) -> str:
    if re.compile(text).groups != 1:
        raise ValueError("the regular expression must have one group: the number")
    return text


Number = Annotated[Regex, AfterValidator(_one_group)]


class HttpOrder(Spec):
    """One request that changes something.

    In url and body the words {backend}, {service}, {share}, {lease_s}, {body} and {fallback} are
    filled in: percent-encoded in the URL, as inside of a JSON string in the body.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field("PUT", description="Its verb.")
    url: Url = Field(description="Where to.")
    headers: Headers = Field(
        default={}, description="Besides those of the gateway; {token} is what token_file says."
    )
    body: str = Field("", description="What to send; empty: nothing.")
    expect: Annotated[str, AfterValidator(_codes)] = Field(
        "200-299", description="Good status codes: a code, a range, or several of them."
    )


class HttpState(Spec):
    """How to see what is set, and what is counted."""

    url: Url = Field(
        description="Asked with GET. With {backend}: once for each service, else once for all."
    )
    each: Regex | None = Field(
        default=None,
        description="Where one answer is about all backends: finds each of them, with the groups "
        "(?P<backend>...) and (?P<state>...).",
    )
    open: Regex = Field(description="Found in the state: the circuit is open, wholly or in part.")
    closed: Regex = Field(
        description="Found in the state: the circuit is closed. Neither of them: trouble."
    )
    share: Number | None = Field(
        default=None, description="Finds the percent of requests that an open circuit lets through."
    )
    requests: Number | None = Field(
        default=None, description="Finds how many requests the service has answered so far."
    )
    failed: Number | None = Field(
        default=None, description="Finds how many of them were answered with 5xx or not at all."
    )
    turned_away: Number | None = Field(
        default=None, description="Finds how many requests the circuit has answered so far."
    )
    in_flight: Number | None = Field(
        default=None, description="Finds how many requests are under way."
    )

    @model_validator(mode="after")
    def _tells_backends_apart(self) -> Self:
        apart = "{backend}" in self.url
        if apart == (self.each is not None):
            raise ValueError("either the url names {backend}, or `each` finds all in one answer")
        if self.each is not None and {"backend", "state"} - re.compile(self.each).groupindex.keys():
            raise ValueError("`each` must have the groups (?P<backend>...) and (?P<state>...)")
        return self


class HttpGatewaySpec(GatewaySpec):
    """Any gateway that can be told over HTTP."""

    open: HttpOrder = Field(description="Opens a circuit, or sets the share it lets through.")
    close: HttpOrder = Field(description="Closes a circuit.")
    state: HttpState = Field(description="Reads what is set.")
    headers: Headers = Field(
        default={}, description="Of each request; {token} is what token_file says."
    )
    token_file: Path | None = Field(
        default=None, description="File with the secret that {token} stands for in headers."
    )


class HttpRoute(RouteSpec):
    """A service behind such a gateway."""

    backend: str = Field(min_length=1, description="The gateway's name for it.")


class HttpGateway:
    """Knows nothing of the gateway but its three requests."""

    kind: ClassVar[str] = "http"
    shuts = False

    def __init__(self, spec: HttpGatewaySpec, context: GatewayContext) -> None:
        self._spec = spec
        self._clock = context.clock
        self._orders = spec.open.url + spec.open.body
        self.shares = "{share}" in self._orders and spec.state.share is not None
        self._admin = Admin(spec.timeout, headers=spec.headers, token_file=spec.token_file)
        self._routes: Mapping[ServiceId, Route] = {}

    async def route(self, routes: Sequence[Route], /) -> None:
        for route in routes:
            if route.fallback and "{fallback}" not in self._orders:
                raise PermanentError("its request `open` does not say {fallback}")
        self._routes = {route.service: route for route in routes}

    async def observe(self) -> Mapping[ServiceId, Flow]:
        services = [*self._routes]
        found = await self._flows(services)
        return {name: flow for name, flow in zip(services, found, strict=True) if flow is not None}

    async def turn(
        self,
        service: ServiceId,
        valve: Valve,
        /,
        *,
        before: Valve,
        lease_s: float,
        epoch: Epoch,  # noqa: ARG002 - no fence
    ) -> None:
        refuse_parts(self.kind, valve, before, shares=self.shares, shuts=False)
        route = route_of(self._routes, service)
        present = await self._valve(service)
        wanted = share_of(service, present, before, valve)
        if wanted == present.share and (wanted == 100 or "{lease_s}" not in self._orders):
            return
        order = self._spec.close if wanted == 100 else self._spec.open
        await self._send(order, _words(route, wanted, lease_s))
        await self._until(service, wanted)

    async def close(self) -> None:
        await self._admin.close()

    async def examine(self) -> Sequence[Remark]:
        return await unknown_to(
            self.observe,
            self._routes,
            lambda route: f"the gateway knows no backend {route.spec.backend}",
        )

    async def _flows(self, services: Sequence[ServiceId]) -> Sequence[Flow | None]:
        backends = [self._routes[service].spec.backend for service in services]
        each = self._spec.state.each
        if each is not None:
            answer = (await self._look(self._spec.state.url)).require()
            states = {one["backend"]: one["state"] for one in re.finditer(each, answer.text())}
            if not states:
                raise TransientError(f"{answer.where} tells of no backend")
            return [self._flow(answer, states.get(backend)) for backend in backends]
        urls = [_fill(self._spec.state.url, {"backend": one}, _quoted) for one in backends]
        looks = await asyncio.gather(*map(self._look, urls), return_exceptions=True)
        flows: list[Flow | None] = []
        for look in looks:
            if isinstance(look, BaseException):
                raise look
            known = look.status != 404
            flows.append(self._flow(look, look.require().text()) if known else None)
        return flows

    async def _look(self, url: str) -> Answer:
        return await self._admin.ask("GET", url)

    def _flow(self, answer: Answer, state: str | None) -> Flow | None:
        spec = self._spec.state
        if state is None:
            return None
        share = 100
        if re.search(spec.open, state):
            share = 0 if spec.share is None else _number(answer, spec.share, state)
        elif not re.search(spec.closed, state):
            raise TransientError(f"{answer.where} says neither open nor closed")
        if share > 100:
            raise TransientError(f"{answer.where} makes no sense: {share} % are let through")
        kinds = ("requests", "failed", "turned_away", "in_flight")
        patterns = {kind: getattr(spec, kind) for kind in kinds}
        counts = {kind: _number(answer, one, state) for kind, one in patterns.items() if one}
        return Flow(Valve(share), Traffic(self._clock.now(), **counts))

    async def _valve(self, service: ServiceId) -> Valve:
        (flow,) = await self._flows([service])
        if flow is None:
            backend = self._routes[service].spec.backend
            raise PermanentError(f"the gateway knows no backend {backend}")
        return flow.valve

    async def _send(self, order: HttpOrder, words: Mapping[str, str]) -> None:
        body = _fill(order.body, words, _in_json).encode() if order.body else None
        url = _fill(order.url, words, _quoted)
        answer = await self._admin.ask(order.method, url, body=body, headers=order.headers)
        answer.require(frozenset(_each_code(order.expect)))

    async def _until(self, service: ServiceId, share: int) -> None:
        """Look until the state is so. Raises TransientError: it is not, within the timeout."""
        present, pause_s = OPEN_WIDE, _LOOK_S[0]
        try:
            async with asyncio.timeout(self._spec.timeout):
                while True:
                    present = await self._valve(service)
                    if present.share == share:
                        return
                    await self._clock.sleep_until(Instant(self._clock.now() + pause_s))
                    pause_s = min(2 * pause_s, _LOOK_S[1])
        except TimeoutError as error:
            told = f"the gateway accepted that {service} is at {share} %, and still says"
            raise TransientError(f"{told} {present.share} %") from error


def _words(route: Route, share: int, lease_s: float) -> Mapping[str, str]:
    return {
        "backend": route.spec.backend,
        "service": route.service,
        "share": str(share),
        "lease_s": str(math.ceil(lease_s)),
        "body": route.body,
        "fallback": route.fallback,
    }


def _fill(template: str, words: Mapping[str, str], escape: Callable[[str], str]) -> str:
    return _WORD.sub(lambda found: escape(words[found[1]]), template)


def _quoted(word: str) -> str:
    return quote(word, safe="")


def _in_json(word: str) -> str:
    return json.dumps(word)[1:-1]


def _number(answer: Answer, pattern: str, state: str) -> int:
    found = re.search(pattern, state)
    if found is None or not found[1].isdecimal():
        raise TransientError(f"{answer.where} makes no sense: no number where {pattern} looks")
    return int(found[1])


def _each_code(text: str) -> Iterator[int]:
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        yield from range(int(low), int(high or low) + 1)


PLUGIN = GatewayPlugin("http", HttpGatewaySpec, HttpRoute, HttpGateway)
