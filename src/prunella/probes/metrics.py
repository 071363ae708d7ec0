"""The metrics probe: what a service itself counts, from its page of figures for Prometheus."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from prunella.core.model import Cause, Instant, Observation, Traffic
from prunella.plugins import ProbeContext, ProbePlugin
from prunella.probes._exchange import phrase
from prunella.probes._exposition import Found, Reader, Series
from prunella.probes._number import Number, Reading, judge
from prunella.probes._page import Pages, PageSpec
from prunella.probes._selector import Selector, SelectorText, labels_of, parse_selector
from prunella.probes._tally import Tally, quantile
from prunella.probes._url import parse_url
from prunella.probes._wire import Trouble, observe

_INLINE_BYTES = 262_144  # a longer page is read aside: it would hold up all other checks
_PAGE = frozenset({200})


class MeasuredNumber(Number):
    """A gauge that has a limit."""

    metric: SelectorText = Field(description="Selector of the gauge; all series are added up.")


class MetricsSpec(PageSpec):
    """Read what a service counts, in the text format of Prometheus or OpenMetrics."""

    requests: SelectorText | None = Field(
        default=None, description="Selector of the counters of requests; they are added up."
    )
    errors: SelectorText | None = Field(
        default=None, description="Selector of the counters of failed requests among them."
    )
    latency: SelectorText | None = Field(
        default=None,
        description="Selector of the histogram, or summary, of how long requests took in seconds; "
        "its name without _bucket, _sum or _count.",
    )
    in_flight: SelectorText | None = Field(
        default=None, description="Selector of the gauges of requests under way now."
    )
    labels: dict[str, str] = Field(
        default_factory=dict[str, str], description="Labels that all series must have besides."
    )
    saturation: MeasuredNumber | None = Field(
        default=None, description="A gauge that says how much there is to do, and its limit."
    )

    @model_validator(mode="after")
    def _has_something_to_read(self) -> MetricsSpec:
        if self.requests is None and (self.errors or self.latency or self.in_flight):
            raise ValueError(
                "errors, latency and in_flight are those of requests, which is missing"
            )
        if self.requests is None and self.saturation is None:
            raise ValueError("there is nothing to read: name requests or saturation")
        return self


class _Latency(NamedTuple):
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    mean_s: float | None = None


class MetricsProbe:
    """Passes when the page could be read; what it says of requests is evidence for others.

    Remembers each counter from check to check: latencies are those of the requests in between.
    """

    kind: ClassVar[str] = "metrics"

    def __init__(self, spec: MetricsSpec, context: ProbeContext) -> None:
        self._spec = spec
        self._clock = context.clock
        self._pages = Pages(spec, parse_url(spec.url), context.clock, _PAGE)
        self._roles = _selectors(spec)
        self._reader = Reader(self._roles.values())
        self._requests, self._errors = Tally(), Tally()
        self._buckets, self._sum, self._count = Tally(), Tally(), Tally()

    async def check(self) -> Observation:
        started = self._clock.now()
        found = await self._read()
        if isinstance(found, Trouble):
            return observe(self._clock, started, found)
        series = dict(zip(self._roles, found.series, strict=True))
        trouble, load = self._weigh(series)
        seen = observe(self._clock, started, trouble, load)
        if self._spec.requests is None:
            return seen
        traffic = self._traffic(series, seen.at)
        if trouble is None and not series["requests"]:
            return seen._replace(traffic=traffic, detail=f"no {self._spec.requests} so far")
        return seen._replace(traffic=traffic)

    async def close(self) -> None:
        self._pages.close()

    async def _read(self) -> Found | Trouble:
        page = await self._pages.ask(self._spec.timeout)
        if isinstance(page, Trouble):
            return page
        if page.status not in _PAGE:
            return Trouble(Cause.ERROR, f"{phrase(page.status)}, expected 200")
        if len(page.body) <= _INLINE_BYTES:
            found = self._reader.read(page.body)
        else:
            found = await asyncio.to_thread(self._reader.read, page.body)
        if isinstance(found, Found) and found.missing:
            return Trouble(None, f"the page has no {', '.join(found.missing)}")
        return found

    def _weigh(self, series: dict[str, Sequence[Series]]) -> Reading:
        wanted = self._spec.saturation
        if wanted is None:
            return Reading()
        measured = series["saturation"]
        value = sum(one.value for one in measured)
        if not measured or not math.isfinite(value):
            return Reading(Trouble(None, f"{wanted.metric} is not there, or no number"))
        return judge(value, wanted)

    def _traffic(self, series: dict[str, Sequence[Series]], at: Instant) -> Traffic:
        self._requests.take(_values(series["requests"]))
        self._errors.take(_values(series.get("errors", ())))
        return Traffic(
            at,
            requests=_whole(self._requests.total),
            failed=_whole(self._errors.total),
            in_flight=_whole(sum(one.value for one in series.get("in_flight", ()))),
            **self._latency(series)._asdict(),
        )

    def _latency(self, series: dict[str, Sequence[Series]]) -> _Latency:
        if self._spec.latency is None:
            return _Latency()
        count = sum(self._count.take(_values(series["count"])).values())
        total_s = sum(self._sum.take(_values(series["sum"])).values())
        grown = self._buckets.take(_values(series["bucket"]))
        below: dict[float, float] = {}
        for one in series["bucket"]:
            bound = _bound(labels_of(one.labels).get("le", ""))
            below[bound] = below.get(bound, 0.0) + grown.get(one.key, 0.0)
        p50_s, p95_s, p99_s = (quantile(share, below.items()) for share in (0.5, 0.95, 0.99))
        mean_s = max(0.0, total_s / count) if count > 0 else None
        return _Latency(p50_s, p95_s, p99_s, mean_s)


def _selectors(spec: MetricsSpec) -> dict[str, Selector]:
    texts = {"requests": spec.requests, "errors": spec.errors, "in_flight": spec.in_flight}
    if spec.saturation is not None:
        texts["saturation"] = spec.saturation.metric
    found = {
        role: parse_selector(text, spec.labels) for role, text in texts.items() if text is not None
    }
    if spec.latency is not None:
        base = parse_selector(spec.latency, spec.labels)
        for part in ("count", "sum", "bucket"):
            found[part] = base._replace(name=f"{base.name}_{part}")
    return found


def _values(series: Iterable[Series]) -> dict[str, float]:
    return {one.key: one.value for one in series if 0 <= one.value < math.inf}


def _whole(value: float) -> int:
    return round(value) if math.isfinite(value) else 0


def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


PLUGIN = ProbePlugin(kind=MetricsProbe.kind, spec=MetricsSpec, build=MetricsProbe)
