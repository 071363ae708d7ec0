"""One query of a Prometheus server for all probes that ask the same. For the prometheus probe."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import quote_plus, urlencode
from weakref import WeakKeyDictionary, WeakValueDictionary

from prunella.core.model import Instant
from prunella.ports import Clock
from prunella.probes._exchange import phrase
from prunella.probes._page import Page, Pages, PageSpec
from prunella.probes._url import parse_url
from prunella.probes._wire import Trouble

_SAYS_WHY = frozenset({200, 400, 422, 503})
_MARGIN_S = 0.02  # the deadline of the request itself comes first


class Sample(NamedTuple):
    """One value of an answer. ``wall_s`` is when Prometheus says that it was so."""

    key: str
    value: float
    wall_s: float


_Found = Sequence[tuple[Mapping[str, str], Sample]]


class Answer:
    """What Prometheus has said to one query, or why not.

    Attributes:
        at: when it came.
        number: counts the answers to this query.
        trouble: why there are no samples; never the target's.
    """

    def __init__(self, at: Instant, number: int, found: _Found | Trouble) -> None:
        self.at = at
        self.number = number
        self.trouble = found if isinstance(found, Trouble) else None
        self._samples: _Found = () if isinstance(found, Trouble) else found
        self._by_labels: dict[tuple[str, ...], dict[tuple[str, ...], list[Sample]]] = {}

    def of(self, labels: Mapping[str, str]) -> Sequence[Sample]:
        """The samples that have these labels, and maybe others."""
        names = tuple(sorted(labels))
        index = self._by_labels.get(names)
        if index is None:
            index = self._by_labels[names] = self._index(names)
        return index.get(tuple(labels[name] for name in names), ())

    def _index(self, names: tuple[str, ...]) -> dict[tuple[str, ...], list[Sample]]:
        """Ten thousand services look for their own among ten thousand samples."""
        index: dict[tuple[str, ...], list[Sample]] = {}
        for metric, sample in self._samples:
            values = tuple(metric.get(name, "") for name in names)
            index.setdefault(values, []).append(sample)
        return index


class Query:
    """Asks one query, for all that want to know, one request at a time."""

    def __init__(self, spec: PageSpec, query: str, max_age_s: float, clock: Clock) -> None:
        home = parse_url(spec.url)
        path = f"{home.path.rstrip('/')}/api/v1/query"
        self._pages = Pages(spec, home._replace(path=path), clock, _SAYS_WHY)
        self._query = query
        self._timeout_s = spec.timeout
        self.closed = False
        self._max_age_s = max_age_s
        self._clock = clock
        self._newest: Answer | None = None
        self._flight: asyncio.Task[Answer] | None = None
        self._users: set[int] = set()

    async def ask(self, user: int, after: int, fresh_s: float, left_s: float) -> Answer:
        """An answer that `user` has not had yet.

        The newest one if it is that, so that many probes cost one request in an interval; else
        that of the request which is under way, or of a new one.

        Args:
            user: who asks; see `leave`.
            after: the number of the answer that it had last.
            fresh_s: an older answer is not good enough.
            left_s: how long to wait.
        """
        self._users.add(user)
        newest = self._newest
        last = 0 if newest is None else newest.number
        if newest is not None and last > after and self._clock.now() - newest.at <= fresh_s:
            return newest
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._fly(last + 1))
        flight = self._flight
        done, _ = await asyncio.wait([flight], timeout=left_s + _MARGIN_S)
        if done and not flight.cancelled():
            return flight.result()
        return Answer(self._clock.now(), after, _silence(self._timeout_s))

    async def leave(self, user: int) -> None:
        """`user` will not ask again; the last one ends what is under way."""
        self._users.discard(user)
        if self._users:
            return
        self.closed = True
        if self._flight is not None and not self._flight.done():
            self._flight.cancel()
            await asyncio.wait([self._flight])
        self._pages.close()

    async def _fly(self, number: int) -> Answer:
        words = {
            "query": self._query,
            "timeout": f"{max(1, int(self._timeout_s * 1000))}ms",
            # Versions that do not know it, such as 2.42, pass it over.
            "lookback_delta": f"{max(1, int(self._max_age_s * 1000))}ms",
        }
        form = urlencode(words, quote_via=quote_plus).encode()
        page = await self._pages.ask(self._timeout_s, form)
        found = _no_fault_of(page) if isinstance(page, Trouble) else _read(page)
        self._newest = Answer(self._clock.now(), number, found)
        return self._newest


_queries: WeakKeyDictionary[
    asyncio.AbstractEventLoop, WeakValueDictionary[tuple[Any, ...], Query]
] = WeakKeyDictionary()


def query_of(spec: PageSpec, query: str, max_age_s: float, clock: Clock) -> Query:
    """The one that all probes of this loop share which ask the same thing in the same way."""
    shared = _queries.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    headers = tuple(sorted(spec.headers.items()))
    key = (
        spec.url,
        spec.socket,
        headers,
        spec.token_file,
        spec.tls,
        spec.timeout,
        query,
        max_age_s,
        id(clock),
    )
    found = shared.get(key)
    if found is None or found.closed:
        found = shared[key] = Query(spec, query, max_age_s, clock)
    return found


def _silence(timeout_s: float) -> Trouble:
    """Prometheus does not answer: that says nothing of any target."""
    return Trouble(None, f"no answer from Prometheus within {timeout_s:g} s")


def _no_fault_of(trouble: Trouble) -> Trouble:
    return Trouble(None, f"Prometheus: {trouble.detail}")


def _read(page: Page) -> _Found | Trouble:
    try:
        said: Any = json.loads(page.body) if page.body else None
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict):
        answer = cast("dict[str, Any]", said)
        if answer.get("status") == "error":
            return Trouble(None, f"Prometheus: {answer.get('errorType')}: {answer.get('error')}")
        if page.status == 200:
            try:
                return _samples(answer["data"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                return Trouble(None, f"Prometheus answers what is not understood: {error!r}")
    if page.status != 200:
        return Trouble(None, f"Prometheus answers {phrase(page.status)}")
    return Trouble(None, "what answers is not Prometheus: no JSON of its kind")


def _samples(data: Mapping[str, Any]) -> _Found | Trouble:
    kind: object = data["resultType"]
    result: list[dict[str, Any]] = data["result"]
    if kind == "scalar":
        result = [{"metric": {}, "value": data["result"]}]
    elif kind != "vector":
        return Trouble(None, f"the query gives a {kind}, expected an instant vector")
    found: list[tuple[Mapping[str, str], Sample]] = []
    for one in result:
        if "value" not in one:
            return Trouble(None, "the query gives native histograms, which are not understood")
        metric = {str(name): str(value) for name, value in one["metric"].items()}
        wall_s, value = float(one["value"][0]), float(one["value"][1])
        if not math.isfinite(wall_s):
            raise ValueError("a sample without a time")
        key = "\0".join(f"{name}={metric[name]}" for name in sorted(metric))
        found.append((metric, Sample(key, value, wall_s)))
    return found
