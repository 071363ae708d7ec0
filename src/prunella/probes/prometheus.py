"""The prometheus probe: what a Prometheus server knows of a service.

All probes with the same query share one request in an interval, whatever their number. What is
wrong with Prometheus is never held against a target.
"""

from __future__ import annotations

import itertools
import math
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from prunella.core.model import Cause, Instant, Observation, Traffic, Verdict
from prunella.plugins import ProbeContext, ProbePlugin
from prunella.probes._page import PageSpec
from prunella.probes._queries import Answer, Query, Sample, query_of
from prunella.probes._tally import Tally
from prunella.probes._wire import Trouble, observe
from prunella.spec import Duration

_users = itertools.count(1)
_INTERVAL_S = 5.0


class PrometheusSpec(PageSpec):
    """Ask a Prometheus server, once for all services with the same query."""

    query: str | None = Field(
        default=None,
        min_length=1,
        description="Instant query in PromQL that gives one sample for each service.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Labels of this service's sample among them; it may have others besides.",
    )
    fail_above: float | None = Field(
        default=None, allow_inf_nan=False, description="A higher value is a failure."
    )
    fail_below: float | None = Field(
        default=None, allow_inf_nan=False, description="A lower value is a failure."
    )
    cause: Literal["error", "saturated"] = Field(
        default="error",
        description="What such a failure means: it answers wrongly, or has too much to do. With "
        "`saturated`, the value as a share of `fail_above` is the service's load.",
    )
    requests: str | None = Field(
        default=None,
        min_length=1,
        description="Query for counters of requests, not their rate; those with the labels of "
        "this service are added up.",
    )
    errors: str | None = Field(
        default=None, min_length=1, description="Query for counters of failed requests among them."
    )
    latency: str | None = Field(
        default=None,
        min_length=1,
        description="Query for the 95th percentile of how long requests take, in seconds.",
    )
    max_age: Duration = Field(default=60.0, description="Samples with an older time are no data.")

    @model_validator(mode="after")
    def _has_something_to_ask(self) -> PrometheusSpec:
        if "?" in self.url:
            raise ValueError("the URL is where Prometheus answers; what to ask is the query")
        if self.query is None and self.requests is None:
            raise ValueError("there is nothing to ask: name a query, or requests")
        if self.query is not None and self.fail_above is None and self.fail_below is None:
            raise ValueError("the query cannot fail: name fail_above or fail_below")
        if self.query is None and (self.fail_above, self.fail_below) != (None, None):
            raise ValueError("fail_above and fail_below are of the query, which is missing")
        if self.requests is None and (self.errors or self.latency):
            raise ValueError("errors and latency are those of requests, which is missing")
        if self.cause == "saturated" and self.fail_above is not None and self.fail_above <= 0:
            raise ValueError("the limit of what can be saturated, fail_above, must be above 0")
        return self


class PrometheusProbe:
    """Judges the sample of its own service, and brings what Prometheus has counted of it.

    Its observations take no time: how long Prometheus needs says nothing of the service. Each
    one rests on an answer that this probe has not seen before.
    """

    kind: ClassVar[str] = "prometheus"

    def __init__(self, spec: PrometheusSpec, context: ProbeContext) -> None:
        self._spec = spec
        self._clock = context.clock
        self._user = next(_users)
        self._queries: dict[str, Query] = {}
        self._seen: dict[str, int] = {}
        self._requests, self._errors = Tally(), Tally()

    async def check(self) -> Observation:
        started = self._clock.now()
        trouble, load = await self._judge(started)
        traffic = None
        if self._spec.requests is not None:
            counted = await self._count(self._spec.requests, started)
            if not isinstance(counted, Trouble):
                traffic = counted
            elif trouble is None:
                trouble = counted
        seen = observe(self._clock, started, trouble, load)
        if seen.verdict is not Verdict.INCONCLUSIVE:
            seen = seen._replace(latency_s=0.0)
        return seen._replace(traffic=traffic)

    async def close(self) -> None:
        queries = tuple(self._queries.values())
        self._queries.clear()
        for query in queries:
            await query.leave(self._user)

    async def _judge(self, started: Instant) -> tuple[Trouble | None, float | None]:
        spec = self._spec
        if spec.query is None:
            return None, None
        found = self._only(await self._ask(spec.query, started), "the query")
        if isinstance(found, Trouble):
            return found, None
        value, cause = found.value, Cause(spec.cause)
        load = None
        if cause is Cause.SATURATED and spec.fail_above is not None and math.isfinite(value):
            load = max(0.0, value / spec.fail_above)
        if spec.fail_above is not None and value > spec.fail_above:
            return Trouble(cause, f"{value:.4g}, limit {spec.fail_above:g}"), load
        if spec.fail_below is not None and value < spec.fail_below:
            return Trouble(cause, f"{value:.4g}, expected at least {spec.fail_below:g}"), load
        return None, load

    async def _count(self, requests: str, started: Instant) -> Traffic | Trouble:
        spec = self._spec
        answer = await self._ask(requests, started)
        counters = self._fresh(answer)
        if isinstance(counters, Trouble):
            return counters
        if not counters:
            return self._absent("requests")
        failed: list[Sample] = []
        if spec.errors is not None:
            found = self._fresh(await self._ask(spec.errors, started))
            if isinstance(found, Trouble):
                return found
            failed = found  # none yet where nothing has ever failed
        p95_s = None
        if spec.latency is not None:
            taken = self._only(await self._ask(spec.latency, started), "latency")
            if not isinstance(taken, Trouble) and 0 <= taken.value < math.inf:
                p95_s = taken.value
        self._requests.take(_values(counters))
        self._errors.take(_values(failed))
        return Traffic(
            answer.at,
            requests=round(self._requests.total),
            failed=round(self._errors.total),
            p95_s=p95_s,
        )

    async def _ask(self, query: str, started: Instant) -> Answer:
        """An answer to `query`, by the deadline of the check that began at `started`."""
        spec = self._spec
        asked = self._queries.get(query)
        if asked is None:
            asked = self._queries[query] = query_of(spec, query, spec.max_age, self._clock)
        left_s = max(0.0, started + spec.timeout - self._clock.now())
        fresh_s = spec.interval or _INTERVAL_S
        answer = await asked.ask(self._user, self._seen.get(query, 0), fresh_s, left_s)
        self._seen[query] = answer.number
        return answer

    def _fresh(self, answer: Answer) -> list[Sample] | Trouble:
        """The samples of our labels."""
        if answer.trouble is not None:
            return answer.trouble
        samples = list(answer.of(self._spec.labels))
        if samples:
            age_s = self._clock.wall().timestamp() - min(one.wall_s for one in samples)
            if age_s > self._spec.max_age:
                return Trouble(None, f"what Prometheus says is {age_s:.0f} s old")
        return samples

    def _only(self, answer: Answer, of: str) -> Sample | Trouble:
        found = self._fresh(answer)
        if isinstance(found, Trouble):
            return found
        if not found:
            return self._absent(of)
        if len(found) > 1:
            said = f"{len(found)} samples of {of} have the labels {self._shown()}, expected one"
            return Trouble(None, said)
        if math.isnan(found[0].value):
            return Trouble(None, f"{of} gives no number, as 0/0 does where there were no requests")
        return found[0]

    def _absent(self, of: str) -> Trouble:
        return Trouble(None, f"no sample of {of} has the labels {self._shown()}")

    def _shown(self) -> str:
        shown = ", ".join(f'{name}="{value}"' for name, value in self._spec.labels.items())
        return f"{{{shown}}}"


def _values(samples: list[Sample]) -> dict[str, float]:
    return {one.key: one.value for one in samples if 0 <= one.value < math.inf}


PLUGIN = ProbePlugin(kind=PrometheusProbe.kind, spec=PrometheusSpec, build=PrometheusProbe)
