"""The metrics probe: selectors, pages good and bad, and what is counted between two of them."""

from __future__ import annotations

import gzip
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.openmetrics import exposition as openmetrics
from pydantic import ValidationError

from prunella.core.model import Cause, Observation, Traffic, Verdict
from prunella.ports import Probe
from prunella.probes._exposition import Found, Reader
from prunella.probes._selector import labels_of, parse_selector
from prunella.probes._tally import Tally, quantile
from prunella.probes._wire import Trouble
from prunella.probes.metrics import MetricsSpec
from prunella.testing import toxic
from prunella.testing.toxic import Behaviour, ToxicServer, Victim

Build = Callable[..., Probe]
Serve = Callable[[Behaviour], Awaitable[ToxicServer]]
OK = b"HTTP/1.1 200 OK\r\n"
COUNTED = {
    "requests": "http_requests_total",
    "errors": 'http_requests_total{code=~"5.."}',
    "latency": "http_request_duration_seconds",
    "in_flight": "http_in_flight",
}


class Shop:
    """What a service counts, and how it shows that."""

    def __init__(self) -> None:
        self.again()
        self.as_openmetrics = False
        self.head = OK
        self.asked: list[bytes] = []

    def again(self) -> None:
        """As when the service starts."""
        self.registry = CollectorRegistry()
        counted = ("http_requests", "served", ["code", "path"])
        self.counter = Counter(*counted, registry=self.registry)
        self.in_flight = Gauge("http_in_flight", "now", registry=self.registry)
        self.taken = Histogram(
            "http_request_duration_seconds",
            "how long",
            ["path"],
            buckets=(0.1, 0.5, 1.0, 2.0),
            registry=self.registry,
        )

    def serve(self, count: int, code: int = 200, taken_s: float = 0.05, path: str = "/") -> None:
        self.counter.labels(str(code), path).inc(count)
        for _ in range(count):
            self.taken.labels(path).observe(taken_s)

    def page(self) -> bytes:
        if self.as_openmetrics:
            return bytes(openmetrics.generate_latest(self.registry))  # type: ignore[no-untyped-call]
        return prometheus_client.generate_latest(self.registry)

    async def behaviour(self, victim: Victim) -> None:
        while True:
            self.asked.append(await victim.request())
            await toxic_reply(victim, self.head, self.page())


async def toxic_reply(victim: Victim, head: bytes, body: bytes) -> None:
    await victim.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def probe(build: Build, serve: Serve, shop: Shop) -> Probe:
    return build("metrics", url=(await serve(shop.behaviour)).url, **COUNTED)


def outcome(seen: Observation) -> tuple[Verdict, Cause | None, str]:
    return seen.verdict, seen.cause, seen.detail


def traffic(seen: Observation) -> Traffic:
    assert seen.traffic is not None
    return seen.traffic


async def of_page(build: Build, serve: Serve, page: bytes, **keys: Any) -> Observation:
    server = await serve(toxic.reply(OK, page))
    return await build("metrics", url=server.url, **({"requests": "served_total"} | keys)).check()


@pytest.mark.parametrize("as_openmetrics", [False, True])
async def test_brings_what_the_service_counts(
    probe: Probe, shop: Shop, *, as_openmetrics: bool
) -> None:
    shop.as_openmetrics = as_openmetrics
    shop.serve(90)
    shop.serve(10, code=503)
    shop.in_flight.set(4)
    seen = await probe.check()
    assert outcome(seen) == (Verdict.PASS, None, "")
    found = traffic(seen)
    assert (found.requests, found.failed, found.in_flight) == (100, 10, 4)
    assert (found.at, found.p95_s, found.mean_s) == (seen.at, None, None)


async def test_latencies_are_those_between_two_pages(probe: Probe, shop: Shop) -> None:
    shop.serve(1000, taken_s=1.9)
    await probe.check()
    shop.serve(90, taken_s=0.05)
    shop.serve(10, taken_s=0.7, path="/slow")
    found = traffic(await probe.check())
    assert found.p50_s == pytest.approx(0.1 * 50 / 90)
    assert found.p95_s == pytest.approx(0.75)
    assert found.p99_s == pytest.approx(0.95)
    assert found.mean_s == pytest.approx(0.115)
    calm = traffic(await probe.check())
    assert (calm.p50_s, calm.p95_s, calm.p99_s, calm.mean_s) == (None, None, None, None)


async def test_a_summary_has_a_mean_at_least(build: Build, serve: Serve) -> None:
    registry = CollectorRegistry()
    counter = Counter("served", "all", registry=registry)
    taken = Summary("taken_seconds", "how long", registry=registry)

    async def behaviour(victim: Victim) -> None:
        await victim.request()
        await toxic_reply(victim, OK, prometheus_client.generate_latest(registry))

    url = (await serve(behaviour)).url
    probe = build("metrics", url=url, requests="served_total", latency="taken_seconds")
    await probe.check()
    counter.inc(2)
    taken.observe(1.0)
    taken.observe(2.0)
    found = traffic(await probe.check())
    assert (found.requests, found.mean_s, found.p95_s) == (2, 1.5, None)


async def test_a_service_that_starts_again_is_counted_on(probe: Probe, shop: Shop) -> None:
    shop.serve(100)
    await probe.check()
    shop.again()
    shop.serve(7, code=500)
    found = traffic(await probe.check())
    assert (found.requests, found.failed) == (107, 7)


async def test_a_series_that_vanishes_and_comes_back_counts_once(
    build: Build, serve: Serve
) -> None:
    pages = [
        b'served_total{w="1"} 1000\nserved_total{w="2"} 5\n',
        b'served_total{w="2"} 6\n',
        b'served_total{w="1"} 1003\nserved_total{w="2"} 6\n',
    ]

    async def behaviour(victim: Victim) -> None:
        await victim.request()
        await toxic_reply(victim, OK, pages.pop(0))

    probe = build("metrics", url=(await serve(behaviour)).url, requests="served_total")
    counted = [traffic(await probe.check()).requests for _ in range(3)]
    assert counted == [1005, 1006, 1009]


async def test_a_service_without_any_request_so_far_passes_and_says_so(
    probe: Probe, shop: Shop
) -> None:
    seen = await probe.check()
    assert outcome(seen) == (Verdict.PASS, None, "no http_requests_total so far")
    assert traffic(seen).requests == 0
    shop.serve(3)
    assert traffic(await probe.check()).requests == 3


async def test_labels_narrow_all_that_is_read(build: Build, serve: Serve) -> None:
    page = b'served_total{s="a",code="500"} 4\nserved_total{s="a"} 5\nserved_total{s="b"} 70\n'
    errors = 'served_total{code="500"}'
    seen = await of_page(build, serve, page, labels={"s": "a"}, errors=errors)
    assert (traffic(seen).requests, traffic(seen).failed) == (9, 4)


@pytest.mark.parametrize(
    ("value", "verdict", "load"),
    [("40", Verdict.PASS, 0.8), ("0", Verdict.PASS, 0.0), ("75", Verdict.FAIL, 1.5)],
)
async def test_a_gauge_may_say_how_much_there_is_to_do(
    build: Build, serve: Serve, value: str, verdict: Verdict, load: float
) -> None:
    keys = {"requests": None, "saturation": {"metric": 'queue{of="in"}', "above": 50}}
    page = f'queue{{of="in"}} {value}\nqueue{{of="out"}} 900\n'.encode()
    seen = await of_page(build, serve, page, **keys)
    assert (seen.verdict, seen.load, seen.traffic) == (verdict, load, None)
    assert seen.cause is (Cause.SATURATED if verdict is Verdict.FAIL else None)


@pytest.mark.parametrize(
    ("page", "detail"),
    [
        pytest.param(b"", "the page has no served_total", id="empty"),
        pytest.param(b"<html>welcome</html>", "the page has no served_total", id="another page"),
        pytest.param(b"served_total_of 3\nx 4\n", "the page has no served_total", id="other names"),
        pytest.param(
            b"served_total abc\n", "served_total is 'abc', which is not a number", id="no number"
        ),
        pytest.param(
            b"served_total NaN\n", "served_total is 'NaN', which is not a number", id="nan"
        ),
        pytest.param(
            b'served_total{a="b} 5\n',
            "served_total is '{a=\"b}', which is not a number",
            id="a label without end",
        ),
        pytest.param(
            b"".join(b'served_total{n="%d"} 1\n' % n for n in range(10_001)),
            "the page has more than 10000 series of served_total",
            id="too many series",
        ),
        pytest.param(b"x" * (4 * 2**20 + 1), "the answer is longer than 4 MiB", id="too long"),
    ],
)
async def test_a_page_without_what_is_named_says_nothing(
    build: Build, serve: Serve, page: bytes, detail: str
) -> None:
    seen = await of_page(build, serve, page, timeout=20)
    assert outcome(seen) == (Verdict.INCONCLUSIVE, None, detail)
    assert seen.traffic is None


async def test_errors_that_are_counted_elsewhere_must_be_there_too(
    build: Build, serve: Serve
) -> None:
    seen = await of_page(build, serve, b"served_total 5\n", errors="failed_total")
    assert outcome(seen) == (Verdict.INCONCLUSIVE, None, "the page has no failed_total")


@pytest.mark.parametrize(
    ("name", "verdict", "cause"),
    [
        ("tarpit", Verdict.FAIL, Cause.TIMEOUT),
        ("slow_headers", Verdict.FAIL, Cause.TIMEOUT),
        ("endless_body", Verdict.INCONCLUSIVE, None),
        ("endless_chunks", Verdict.INCONCLUSIVE, None),
        ("gzip_bomb", Verdict.INCONCLUSIVE, None),
        ("huge_header", Verdict.FAIL, Cause.ERROR),
        ("endless_interim", Verdict.FAIL, Cause.ERROR),
        ("garbage", Verdict.FAIL, Cause.ERROR),
        ("reset_at_accept", Verdict.FAIL, Cause.REFUSED),
        ("reset_in_body", Verdict.FAIL, Cause.ERROR),
        ("reset_in_headers", Verdict.FAIL, Cause.ERROR),
        ("half_close", Verdict.FAIL, Cause.ERROR),
        ("redirect_loop", Verdict.FAIL, Cause.ERROR),
        ("silent", Verdict.FAIL, Cause.TIMEOUT),
    ],
)
async def test_a_server_that_behaves_badly(
    build: Build, serve: Serve, name: str, verdict: Verdict, cause: Cause | None
) -> None:
    server = await serve(toxic.BEHAVIOURS[name])
    seen = await build("metrics", url=server.url, requests="served_total", timeout=0.8).check()
    assert (seen.verdict, seen.cause) == (verdict, cause)
    assert server.sent_bytes < 24 * 2**20


async def test_nobody_there_is_refused(build: Build, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/metrics"
    seen = await build("metrics", url=url, requests="served_total").check()
    assert outcome(seen) == (Verdict.FAIL, Cause.REFUSED, "connection refused")


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("gzip", gzip.compress(b"served_total 5\n"), (Verdict.PASS, None, "")),
        (
            "gzip",
            b"served_total 5\n",
            (Verdict.FAIL, Cause.ERROR, "the answer is not gzip, as it says"),
        ),
        (
            "gzip",
            gzip.compress(b"served_total 5\n" * 9)[:-9],
            (Verdict.FAIL, Cause.ERROR, "the compressed answer has no end"),
        ),
        (
            "gzip",
            gzip.compress(bytes(64 * 2**20)),
            (Verdict.INCONCLUSIVE, None, "the answer is longer than 4 MiB"),
        ),
        (
            "br",
            b"served_total 5\n",
            (
                Verdict.INCONCLUSIVE,
                None,
                "the answer is compressed with br, which is not understood",
            ),
        ),
    ],
    ids=["good", "not so", "cut off", "a bomb", "unknown"],
)
async def test_what_is_compressed_unasked_is_unpacked_within_bounds(
    build: Build, serve: Serve, encoding: str, body: bytes, said: object
) -> None:
    head = OK + b"Content-Encoding: " + encoding.encode() + b"\r\n"
    server = await serve(toxic.reply(head, body))
    assert outcome(await build("metrics", url=server.url, requests="served_total").check()) == said


async def test_a_token_is_read_anew_for_each_page(
    build: Build, serve: Serve, shop: Shop, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    url = (await serve(shop.behaviour)).url
    probe = build("metrics", url=url, token_file=str(file), requests="http_requests_total")
    seen = await probe.check()
    assert outcome(seen) == (
        Verdict.INCONCLUSIVE,
        None,
        f"cannot read {file}: No such file or directory",
    )
    for token in ("first", "second"):
        file.write_text(token + "\n")
        await probe.check()
        assert b"Authorization: Bearer " + token.encode() + b"\r\n" in shop.asked[-1]
    file.write_text("two\nlines")
    assert (await probe.check()).detail == f"there is no token in {file}"
    assert len(shop.asked) == 2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "there is nothing to read"),
        ({"errors": "x"}, "are those of requests, which is missing"),
        ({"requests": "http requests"}, "is not a selector such as"),
        ({"requests": "x{a}"}, "is not a condition such as"),
        ({"requests": 'x{a=~"("}'}, "is not a regular expression"),
        ({"requests": "x", "url": "ftp://x/"}, "must start with http"),
        (
            {"requests": "x", "token_file": "/t", "headers": {"Authorization": "x"}},
            "both token_file and a header",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MetricsSpec.model_validate({"url": "http://127.0.0.1/metrics", **keys})


@pytest.mark.parametrize(
    ("selector", "picked"),
    [
        ("up", "abcd"),
        ("up{}", "abcd"),
        ('up{code="500"}', "a"),
        ('up{code!="500"}', "bcd"),
        ('up{code=~"5.."}', "ab"),
        ('up{code=~"5."}', ""),
        ("up { code =~ '5..' , path != '/' , }", "b"),
        ('up{code=""}', "d"),
        ('up{code!~"|5.."}', "c"),
        (r'up{path="a\"b\\\n"}', "c"),
        ("down", ""),
    ],
)
def test_selectors(selector: str, picked: str) -> None:
    page = (
        b'# TYPE up counter\nup{code="500",path="/"} 1\nup{code="503"} 2 1700000000000\n'
        b'up{path="a\\"b\\\\\\n", code="200" } 3 # {trace_id="x"} 0.5\nup 4e0\nupper 9\n'
    )
    found = Reader([parse_selector(selector)]).read(page)
    assert isinstance(found, Found)
    assert [one.value for one in found.series[0]] == [" abcd".index(sign) for sign in picked]


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), st.text(max_size=9)))
def test_labels_are_read_as_the_client_library_writes_them(labels: dict[str, str]) -> None:
    registry = CollectorRegistry()
    labels = {f"l{name}": value.replace("\r", "") for name, value in labels.items()}
    counter = Counter("served", "all", list(labels), registry=registry)
    (counter.labels(**labels) if labels else counter).inc(3)
    found = Reader([parse_selector("served_total", labels)]).read(
        prometheus_client.generate_latest(registry)
    )
    assert isinstance(found, Found)
    assert [(labels_of(one.labels), one.value) for one in found.series[0]] == [(labels, 3.0)]


@given(st.binary(max_size=200) | st.text(alphabet='up{}="\\,# \n15.eN', max_size=99))
def test_whatever_is_on_a_page_is_read_or_is_trouble(page: bytes | str) -> None:
    raw = page if isinstance(page, bytes) else page.encode()
    found = Reader([parse_selector('up{p=~"1.*"}'), parse_selector("up")]).read(raw)
    assert isinstance(found, Trouble) or all(
        not math.isnan(one.value) for series in found.series for one in series
    )


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 99)), max_size=30))
def test_a_tally_never_becomes_smaller_and_never_counts_twice(pages: list[dict[str, int]]) -> None:
    tally, before, highest = Tally(), 0.0, 0
    for number, page in enumerate(pages):
        grown = tally.take({key: float(value) for key, value in page.items()})
        highest += sum(page.values())
        assert before <= tally.total <= highest
        assert number == 0 or tally.total == pytest.approx(before + sum(grown.values()))
        before = tally.total


@given(st.lists(st.floats(0.001, 9), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_value(values: list[float], share: float) -> None:
    bounds = [0.01, 0.1, 1.0, 10.0, math.inf]
    buckets = [(bound, float(sum(v <= bound for v in values))) for bound in bounds]
    found = quantile(share, buckets)
    exact = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
    assert found is not None
    upper = next(bound for bound in bounds if exact <= bound)
    lower = max((bound for bound in bounds if bound < exact), default=0.0)
    assert lower - 1e-9 <= found <= upper + 1e-9


@pytest.mark.parametrize(
    ("buckets", "value"),
    [
        ([], None),
        ([(math.inf, 5.0)], None),
        ([(1.0, 5.0), (2.0, 5.0)], None),
        ([(1.0, 0.0), (math.inf, 0.0)], None),
        ([(1.0, 0.0), (math.inf, 5.0)], 1.0),
        ([(1.0, 9.0), (2.0, 4.0), (math.inf, 10.0)], 1.0),
    ],
)
def test_quantiles_of_odd_histograms(
    buckets: list[tuple[float, float]], value: float | None
) -> None:
    assert quantile(0.9, buckets) == value


async def test_a_large_page_is_read(build: Build, serve: Serve) -> None:
    other = b"".join(b'other_total{n="%d",path="/a/b/c"} 17\n' % n for n in range(30_000))
    seen = await of_page(build, serve, other + b"served_total 12\n" + other)
    assert traffic(seen).requests == 12
