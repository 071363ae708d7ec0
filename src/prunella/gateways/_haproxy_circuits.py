"""The map that HAProxy asks for each request: how much is let through, and until when."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple

from prunella.core.traffic import OPEN_WIDE
from prunella.ports import Route

BODY_BYTES = 4 * 2**10  # with room for all else in the one line that HAProxy reads, and answers
_FALLBACK = "fallback/"


class Circuit(NamedTuple):
    """One line of the map: its value is ``END:SHARE:BODY:FALLBACK``.

    Attributes:
        end_ms: of the epoch; from then on all is let through.
        share: percent that is let through until then.
    """

    end_ms: int = 0
    share: int = OPEN_WIDE.share

    def share_at(self, now_ms: int) -> int:
        return self.share if now_ms < self.end_ms else OPEN_WIDE.share


def key_of(route: Route) -> str:
    """What the configuration of HAProxy looks up: a frontend those that have a fallback."""
    return f"{_FALLBACK if route.fallback else ''}{route.spec.backend}"


def value_of(route: Route, circuit: Circuit) -> str:
    body = b64encode(route.body.encode()).decode()
    return f"{circuit.end_ms}:{circuit.share}:{body}:{route.fallback}"


def circuit_of(value: str) -> Circuit:
    """What HAProxy makes of a value; what it can make nothing of stops no request."""
    end_ms, _, rest = value.partition(":")
    try:
        return Circuit(int(end_ms), min(100, max(0, int(rest.partition(":")[0]))))
    except ValueError:
        return Circuit()


def listed(reply: str) -> Mapping[str, str] | None:
    """The map from the reply to ``show map FILE``; None: there is no such map in HAProxy."""
    if reply.startswith("Unknown map"):
        return None
    found: dict[str, str] = {}
    for line in reply.splitlines():
        reference, _, rest = line.partition(" ")
        key, _, value = rest.partition(" ")
        if reference.startswith("0x") and key:
            found.setdefault(key, value)
    return found


def file_text(circuits: Mapping[str, str]) -> str:
    return "".join(f"{key} {value}\n" for key, value in circuits.items())
