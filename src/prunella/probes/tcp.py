"""The tcp probe: somebody accepts connections and, if asked, says the right first words."""

from __future__ import annotations

import asyncio
import re
from typing import ClassVar

from pydantic import Field, field_validator

from prunella.core.model import Cause, Observation
from prunella.plugins import ProbeContext, ProbePlugin
from prunella.probes._names import Names
from prunella.probes._wire import Address, Dialogue, Trouble, is_itself, observe
from prunella.spec import ProbeSpec, Regex

_CAP_BYTES = 4096


class TcpSpec(ProbeSpec):
    """Connect to a TCP port."""

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Host name or IP address to connect to."
    )
    port: int = Field(ge=1, le=65535, description="Port to connect to.")
    send: str | None = Field(
        default=None, description=r"Text to send first, as UTF-8; \r\n must be written out."
    )
    expect: Regex | None = Field(
        default=None,
        description="Regular expression that must be found in the first 4 KiB of the answer.",
    )

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, value: str) -> str:
        if any(c <= " " or c in "/@\x7f" for c in value):
            raise ValueError("not a host name or an IP address")
        return value


class _Greeting(Dialogue):
    """Settled by the connection alone, or by the first words that match."""

    __slots__ = ("_heard", "_pattern")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, timeout_s: float, pattern: re.Pattern[str] | None
    ) -> None:
        super().__init__(loop, timeout_s)
        self._pattern = pattern
        self._heard = bytearray()

    def connected(self) -> None:
        if self._sock is not None and is_itself(self._sock):
            self._end(Trouble(Cause.REFUSED, "connection refused"))
        elif self._pattern is None:
            self._end(None)

    def heard(self, data: bytes) -> None:
        self._heard += data[: _CAP_BYTES - len(self._heard)]
        if self._matches():
            self._end(None)
        elif len(self._heard) >= _CAP_BYTES:
            self._end(self._mismatch())

    def ended(self) -> None:
        if self._heard:
            self._end(self._mismatch())
        else:
            self._end(Trouble(Cause.ERROR, "connection closed without an answer"))

    def late(self) -> Trouble:
        return self._mismatch() if self._heard else super().late()

    def _matches(self) -> bool:
        text = self._heard.decode("utf-8", "replace")
        return self._pattern is None or self._pattern.search(text) is not None

    def _mismatch(self) -> Trouble:
        assert self._pattern is not None
        said = self._heard[:60].decode("utf-8", "replace")
        return Trouble(Cause.ERROR, f"answered {said!r}, expected {self._pattern.pattern!r}")

    def _end(self, trouble: Trouble | None) -> None:
        self.settle(trouble)
        self.close()


class TcpProbe:
    """Measures one port with a fresh connection each time."""

    kind: ClassVar[str] = "tcp"

    def __init__(self, spec: TcpSpec, context: ProbeContext) -> None:
        self._clock = context.clock
        self._timeout_s = spec.timeout
        self._names = Names(spec.host, spec.port, context.clock)
        self._send = (spec.send or "").encode()
        self._pattern = None if spec.expect is None else re.compile(spec.expect)

    async def check(self) -> Observation:
        started = self._clock.now()
        return observe(self._clock, started, await self._ask())

    async def close(self) -> None:
        self._names.close()

    async def _ask(self) -> Trouble | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        addresses = self._names.known()
        if not addresses:
            found = await self._names.look_up(self._timeout_s)
            if isinstance(found, Trouble):
                return found
            addresses = found
        trouble = None
        for left, address in zip(range(len(addresses), 0, -1), tuple(addresses), strict=True):
            connect_s = None if left == 1 else (deadline - loop.time()) / left
            trouble = await self._greet(loop, address, deadline, connect_s)
            if trouble is None:
                self._names.prefer(address)
            if trouble is None or trouble.cause is Cause.ERROR or loop.time() >= deadline:
                break
        return trouble

    async def _greet(
        self,
        loop: asyncio.AbstractEventLoop,
        address: Address,
        deadline: float,
        connect_s: float | None,
    ) -> Trouble | None:
        greeting = _Greeting(loop, self._timeout_s, self._pattern)
        try:
            greeting.open(address, self._send, deadline, connect_s=connect_s)
            await greeting.settled
        finally:
            greeting.close()
        return greeting.trouble


PLUGIN = ProbePlugin(kind=TcpProbe.kind, spec=TcpSpec, build=TcpProbe)
