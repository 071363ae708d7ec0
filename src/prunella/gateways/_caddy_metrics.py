"""What Caddy counts, out of its own exposition of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from prunella.core.model import Instant
from prunella.core.traffic import Traffic

_HTTP = re.compile(
    r"^caddy_http_(requests_total|request_errors_total"
    r"|request_duration_seconds_(?:count|sum|bucket))"
    r'\{(?:code="(\d+)",)?handler="reverse_proxy",(?:method="\w*",)?server="([^"]*)"'
    r'(?:,le="([^"]+)")?\} (\S+)$',
    re.MULTILINE,
)
_HEALTHY = re.compile(
    r'^caddy_reverse_proxy_upstreams_healthy\{upstream="([^"]*)"\} (\S+)$', re.MULTILINE
)
_QUANTILES = (0.5, 0.95, 0.99)


@dataclass
class Counts:
    """Of all that one Caddy server has proxied; ``buckets`` are by their upper bound in seconds."""

    requests: float = 0.0
    failed: float = 0.0
    took_s: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict[float, float])

    def traffic(self, at: Instant, before: Counts) -> Traffic:
        """The totals, and how long those took that have ended since `before`."""
        whole = Traffic(at, int(self.requests), int(self.failed))
        count = {
            bound: number - before.buckets.get(bound, 0.0) for bound, number in self.buckets.items()
        }
        ended = count.get(float("inf"), 0.0)
        if ended <= 0:
            return whole
        p50, p95, p99 = (_quantile(count, ended * part) for part in _QUANTILES)
        mean_s = max(0.0, self.took_s - before.took_s) / ended
        return whole._replace(p50_s=p50, p95_s=p95, p99_s=p99, mean_s=mean_s)


def _quantile(count: Mapping[float, float], rank: float) -> float:
    """Within a bucket the times are taken to be spread evenly; above the last: its bound."""
    low_s, below = 0.0, 0.0
    for high_s, number in sorted(count.items()):
        if number >= rank:
            if high_s == float("inf") or number <= below:
                return low_s
            return low_s + (high_s - low_s) * (rank - below) / (number - below)
        low_s, below = high_s, number
    return low_s


def counts(text: str) -> Mapping[str, Counts]:
    """By the names of Caddy's servers. Raises ValueError: not numbers where they should be."""
    found: dict[str, Counts] = {}
    for kind, code, server, bound, number in _HTTP.findall(text):
        one, value = found.setdefault(server, Counts()), float(number)
        if kind == "requests_total":
            one.requests += value
        elif kind == "request_errors_total":
            one.failed += value
        elif kind.endswith("_sum"):
            one.took_s += value
        elif kind.endswith("_count"):
            one.failed += value if code.startswith("5") else 0.0
        else:
            edge = float(bound.replace("+Inf", "inf"))
            one.buckets[edge] = one.buckets.get(edge, 0.0) + value
    return found


def healthy(text: str) -> Mapping[str, bool]:
    """By upstream, as far as Caddy checks them."""
    return {upstream: float(value) > 0 for upstream, value in _HEALTHY.findall(text)}
