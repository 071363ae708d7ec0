"""A gateway in memory: valves that can be turned, and traffic that arrives when told."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from prunella.core.model import Epoch, Instant, ServiceId
from prunella.core.traffic import OPEN_WIDE, Flow, Server, Traffic, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.ports import Clock, Route


class Turned(NamedTuple):
    """One turn of a valve as it arrived."""

    at: Instant
    service: ServiceId
    valve: Valve
    epoch: Epoch
    effective: bool


@dataclass
class _Line:
    valve: Valve = OPEN_WIDE
    ends_at: Instant = Instant(float("inf"))
    servers: tuple[str, ...] = ()
    requests: Counter[str] = field(default_factory=Counter[str])
    failed: Counter[str] = field(default_factory=Counter[str])
    turned_away: int = 0


class FakeGateway:
    """Obeys the same rules as a real gateway, at once: none of its methods ever waits.

    ``ask`` is one request of a caller. Knobs: ``break_down`` makes every method raise
    ``TransientError``, ``mend`` undoes it; ``restart`` forgets counters and valves, as a gateway
    does that keeps nothing; ``meddle`` is what somebody else sets; ``spoil`` has a share of a
    server's requests fail, from 0 to 1.

    Attributes:
        log: every turn that arrived.
        serves: whether a server answers a request well, if it is not spoilt.
    """

    kind: ClassVar[str] = "fake"
    shuts = True

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self.log: list[Turned] = []
        self.closed = False
        self.shares = True
        self.serves: Callable[[ServiceId, str], bool] = lambda _service, _server: True
        self._clock = clock
        self._rng = rng
        self._lines: dict[ServiceId, _Line] = {}
        self._spoilt: dict[str, float] = {}
        self._trouble = ""

    async def route(self, routes: Sequence[Route], /) -> None:
        self._require()
        before = self._lines
        self._lines = {route.service: before.get(route.service, _Line()) for route in routes}
        for route in routes:
            names = tuple(str(endpoint.name) for endpoint in route.endpoints)
            self._lines[route.service].servers = names

    async def observe(self) -> Mapping[ServiceId, Flow]:
        self._require()
        return {service: self._flow(line) for service, line in self._lines.items()}

    async def turn(
        self, service: ServiceId, valve: Valve, /, *, before: Valve, lease_s: float, epoch: Epoch
    ) -> None:
        self._require()
        line = self._line(service)
        if not self.shares and valve.share not in (0, 100):
            raise PermanentError("this gateway lets all requests through or none")
        now = self._clock.now()
        present = self._valve(line)
        if present.share not in (before.share, valve.share):
            raise ConflictError(f"the circuit of {service} is at {present.share} %")
        shut = (present.shut | (valve.shut - before.shut)) - (before.shut - valve.shut)
        wanted = Valve(valve.share, shut)
        self.log.append(Turned(now, service, wanted, epoch, wanted != present))
        line.valve, line.ends_at = wanted, Instant(now + lease_s)

    async def close(self) -> None:
        self.closed = True

    # What happens to it ------------------------------------------------------------------------

    def ask(self, service: ServiceId) -> str:
        """One request: the server that answered it well, or "" for any other end."""
        line = self._line(service)
        valve = self._valve(line)
        able = [name for name in line.servers if name not in valve.shut]
        if not able or self._rng.random() * 100 >= valve.share:
            line.turned_away += 1
            return ""
        server = able[line.requests.total() % len(able)]
        line.requests[server] += 1
        spoilt = self._rng.random() < self._spoilt.get(server, 0.0)
        if spoilt or not self.serves(service, server):
            line.failed[server] += 1
            return ""
        return server

    def spoil(self, server: str, ratio: float) -> None:
        self._spoilt[server] = ratio

    def meddle(self, service: ServiceId, valve: Valve) -> None:
        self._line(service).valve = valve

    def break_down(self, trouble: str = "the gateway does not answer") -> None:
        self._trouble = trouble

    def mend(self) -> None:
        self._trouble = ""

    def restart(self) -> None:
        self._lines = {name: _Line(servers=line.servers) for name, line in self._lines.items()}

    def valve(self, service: ServiceId) -> Valve:
        """As it is set now."""
        return self._valve(self._line(service))

    def _require(self) -> None:
        if self._trouble:
            raise TransientError(self._trouble)

    def _line(self, service: ServiceId) -> _Line:
        if service not in self._lines:
            raise PermanentError(f"no service {service} is behind this gateway")
        return self._lines[service]

    def _valve(self, line: _Line) -> Valve:
        if self._clock.now() >= line.ends_at:
            line.valve = line.valve._replace(share=OPEN_WIDE.share)
        return line.valve

    def _flow(self, line: _Line) -> Flow:
        now = self._clock.now()
        servers = tuple(
            Server(name, traffic=Traffic(now, line.requests[name], line.failed[name]))
            for name in line.servers
        )
        whole = Traffic(
            now,
            line.requests.total(),
            line.failed.total(),
            turned_away=line.turned_away,
        )
        return Flow(self._valve(line), whole, servers)
