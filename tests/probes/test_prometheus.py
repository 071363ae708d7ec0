"""The prometheus probe: on a real server, and on answers that a server or a proxy may give."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import ValidationError
from tests.real import prometheus as real
from tests.real.prometheus import Prometheus

from prunella.core.model import Cause, Observation, Verdict
from prunella.ports import Probe
from prunella.probes.prometheus import PrometheusSpec
from prunella.runtime.clock import SystemClock
from prunella.testing import toxic
from prunella.testing.toxic import Behaviour, ToxicServer, Victim

Build = Callable[..., Probe]
Serve = Callable[[Behaviour], Awaitable[ToxicServer]]
OK = b"HTTP/1.1 200 OK\r\n"
RATIO = "shop_errors / shop_requests"


def outcome(seen: Observation) -> tuple[Verdict, Cause | None, str]:
    return seen.verdict, seen.cause, seen.detail


def said(*samples: tuple[dict[str, str], float], age_s: float = 0.0) -> bytes:
    at = SystemClock().wall().timestamp() - age_s
    result = [{"metric": labels, "value": [at, str(value)]} for labels, value in samples]
    data = {"resultType": "vector", "result": result}
    return json.dumps({"status": "success", "data": data}).encode()


class Fake:
    """Says the same to each query, or what belongs to it, and counts the queries."""

    def __init__(self, *answers: bytes, head: bytes = OK) -> None:
        self.answers = list(answers)
        self.head = head
        self.by_query: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def behaviour(self, victim: Victim) -> None:
        head = (await victim.request()).decode()
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        query = parse_qs((await victim.receive(length)).decode())["query"][0]
        self.heads.append(head)
        self.asked.append(query)
        await self.gate.wait()
        body = self.by_query.get(query) or self.answers[min(len(self.asked), len(self.answers)) - 1]
        await victim.send(self.head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


WEB = {"service": "web"}
ASK = {"query": "q", "labels": WEB, "fail_above": 0.1}


async def check(build: Build, serve: Serve, fake: Fake, **keys: Any) -> Observation:
    url = (await serve(fake.behaviour)).url
    return await build("prometheus", url=url, **({**ASK, **keys})).check()


@pytest.mark.parametrize(
    ("value", "keys", "expected", "load"),
    [
        (0.1, {}, (Verdict.PASS, None, ""), None),
        (0.11, {}, (Verdict.FAIL, Cause.ERROR, "0.11, limit 0.1"), None),
        (math.inf, {}, (Verdict.FAIL, Cause.ERROR, "inf, limit 0.1"), None),
        (
            9,
            {"fail_above": None, "fail_below": 10},
            (Verdict.FAIL, Cause.ERROR, "9, expected at least 10"),
            None,
        ),
        (40, {"fail_above": 50, "cause": "saturated"}, (Verdict.PASS, None, ""), 0.8),
        (
            75,
            {"fail_above": 50, "cause": "saturated"},
            (Verdict.FAIL, Cause.SATURATED, "75, limit 50"),
            1.5,
        ),
    ],
)
async def test_judges_the_value(
    build: Build, serve: Serve, value: float, keys: Any, expected: object, load: float | None
) -> None:
    seen = await check(build, serve, Fake(said((WEB, value), ({"service": "db"}, 99))), **keys)
    assert outcome(seen) == expected
    assert (seen.load, seen.latency_s, seen.traffic) == (load, 0.0, None)


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        pytest.param((), 'no sample of the query has the labels {service="web"}', id="none"),
        pytest.param(
            (({"service": "db"}, 9),),
            'no sample of the query has the labels {service="web"}',
            id="of others",
        ),
        pytest.param(
            ((WEB | {"path": "/"}, 9), (WEB | {"path": "/x"}, 0)),
            '2 samples of the query have the labels {service="web"}, expected one',
            id="several",
        ),
        pytest.param(
            ((WEB, math.nan),),
            "the query gives no number, as 0/0 does where there were no requests",
            id="no number",
        ),
        pytest.param(
            json.dumps(
                {"status": "success", "data": {"resultType": "matrix", "result": []}}
            ).encode(),
            "the query gives a matrix, expected an instant vector",
            id="a matrix",
        ),
        pytest.param(
            b"<html>", "what answers is not Prometheus: no JSON of its kind", id="a web page"
        ),
        pytest.param(
            b"[" * 100_000, "what answers is not Prometheus: no JSON of its kind", id="deep"
        ),
        pytest.param(
            b'{"status": "success"}',
            "Prometheus answers what is not understood: KeyError('data')",
            id="no data",
        ),
        pytest.param(
            b'{"status": "success", "data": {"resultType": "vector", "result": [{"metric": [], '
            b'"value": [1, "2"]}]}}',
            "Prometheus answers what is not understood: AttributeError(\"'list' object has no "
            "attribute 'items'\")",
            id="odd data",
        ),
    ],
)
async def test_no_data_is_no_evidence(build: Build, serve: Serve, answer: Any, detail: str) -> None:
    """The answer: its bytes, or samples of the time when the test runs."""
    fake = Fake(answer if isinstance(answer, bytes) else said(*answer))
    seen = await check(build, serve, fake)
    assert outcome(seen) == (Verdict.INCONCLUSIVE, None, detail)


async def test_old_data_is_no_evidence(build: Build, serve: Serve) -> None:
    fake = Fake(said((WEB, 9), age_s=3700))
    seen = await check(build, serve, fake, max_age="1h")
    assert seen.verdict is Verdict.INCONCLUSIVE
    assert seen.detail.startswith("what Prometheus says is 37")
    assert (await check(build, serve, fake, max_age="2h")).verdict is Verdict.FAIL


@pytest.mark.parametrize("name", toxic.BEHAVIOURS)
async def test_a_server_that_behaves_badly_is_no_evidence(
    build: Build, serve: Serve, name: str
) -> None:
    server = await serve(toxic.BEHAVIOURS[name])
    seen = await build("prometheus", url=server.url, timeout=0.8, **ASK).check()
    assert (seen.verdict, seen.cause) == (Verdict.INCONCLUSIVE, None)
    assert "Prometheus" in seen.detail


async def test_a_status_without_words_is_told(build: Build, serve: Serve) -> None:
    fake = Fake(b"who are you?", head=b"HTTP/1.1 401 Unauthorized\r\n")
    seen = await check(build, serve, fake)
    assert outcome(seen) == (
        Verdict.INCONCLUSIVE,
        None,
        "Prometheus answers 401 Unauthorized",
    )


async def test_says_who_asks_below_a_prefix(build: Build, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    fake = Fake(said((WEB, 0)))
    url = (await serve(fake.behaviour)).url + "mimir/"
    probe = build("prometheus", url=url, token_file=str(tmp_path / "token"), **ASK)
    assert outcome(await probe.check()) == (Verdict.PASS, None, "")
    assert fake.heads[0].startswith("POST /mimir/api/v1/query HTTP/1.1\r\n")
    assert "Authorization: Bearer secret\r\n" in fake.heads[0]


async def test_a_scalar_is_the_sample_of_everybody(build: Build, serve: Serve) -> None:
    at = SystemClock().wall().timestamp()
    data = {"resultType": "scalar", "result": [at, "0.5"]}
    answer = json.dumps({"status": "success", "data": data}).encode()
    seen = await check(build, serve, Fake(answer), labels={})
    assert outcome(seen) == (Verdict.FAIL, Cause.ERROR, "0.5, limit 0.1")


async def test_those_that_ask_together_are_answered_together(build: Build, serve: Serve) -> None:
    fake = Fake(said(*(({"service": str(number)}, number % 2) for number in range(50))))
    url = (await serve(fake.behaviour)).url
    keys = [{**ASK, "labels": {"service": str(number)}} for number in range(50)]
    probes = [build("prometheus", url=url, **one) for one in keys]
    seen = await asyncio.gather(*(probe.check() for probe in probes))
    assert [one.verdict is Verdict.FAIL for one in seen] == [
        number % 2 == 1 for number in range(50)
    ]
    assert len(fake.asked) == 1


async def test_no_probe_gets_the_same_answer_twice(build: Build, serve: Serve) -> None:
    fake = Fake(*(said((WEB, value)) for value in (0, 1, 0)))
    url = (await serve(fake.behaviour)).url
    one, other = (build("prometheus", url=url, **ASK) for _ in range(2))
    verdicts = [(await probe.check()).verdict for probe in (one, other, one, one, other)]
    assert verdicts == [
        Verdict.PASS,
        Verdict.PASS,
        Verdict.FAIL,
        Verdict.PASS,
        Verdict.PASS,
    ]
    assert len(fake.asked) == 3


async def test_an_answer_older_than_the_interval_is_not_used(build: Build, serve: Serve) -> None:
    fake = Fake(said((WEB, 0)), said((WEB, 1)))
    url = (await serve(fake.behaviour)).url
    one, other = (build("prometheus", url=url, interval="1ms", **ASK) for _ in range(2))
    first = await one.check()
    clock = SystemClock()
    while clock.now() <= first.at + 0.001:  # noqa: ASYNC110 - the clock itself
        await asyncio.sleep(0)
    assert (await other.check()).verdict is Verdict.FAIL


async def test_other_ways_of_asking_are_other_questions(
    build: Build, serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("t")
    fake = Fake(said((WEB, 0)))
    url = (await serve(fake.behaviour)).url
    different: tuple[dict[str, Any], ...] = (
        {},
        {"query": "r"},
        {"headers": {"X": "1"}},
        {"token_file": tmp_path / "token"},
    )
    for keys in different:
        await build("prometheus", url=url, **{**ASK, **keys}).check()
    assert len(fake.asked) == 4


async def test_who_is_cancelled_takes_nothing_from_the_others(build: Build, serve: Serve) -> None:
    fake = Fake(said((WEB, 0)))
    fake.gate.clear()
    url = (await serve(fake.behaviour)).url
    probes = [build("prometheus", url=url, timeout=20, **ASK) for _ in range(2)]
    one, other = (asyncio.create_task(probe.check()) for probe in probes)
    async with asyncio.timeout(30):
        while not fake.asked:  # noqa: ASYNC110 - what the server has heard
            await asyncio.sleep(0.005)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    await probes[0].close()
    fake.gate.set()
    assert (await other).verdict is Verdict.PASS
    assert len(fake.asked) == 1


async def test_closing_the_last_one_ends_what_is_under_way(
    build: Build, serve: Serve, descriptors: Callable[[], int]
) -> None:
    fake = Fake(said((WEB, 0)))
    url = (await serve(fake.behaviour)).url
    probe = build("prometheus", url=url, timeout=25, **ASK)
    await probe.check()
    fake.gate.clear()
    task = asyncio.create_task(probe.check())
    async with asyncio.timeout(30):
        while len(fake.asked) < 2:  # noqa: ASYNC110 - what the server has heard
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    open_count = descriptors()
    await probe.close()
    assert descriptors() < open_count
    fake.gate.set()
    assert (await build("prometheus", url=url, **ASK).check()).verdict is Verdict.PASS


COUNTED = {"requests": "R", "errors": "E", "latency": "L", "labels": WEB}


async def test_counters_are_added_up_and_begin_anew_one_by_one(build: Build, serve: Serve) -> None:
    fake = Fake()
    url = (await serve(fake.behaviour)).url
    probe = build("prometheus", url=url, **COUNTED)
    found: list[tuple[int, int, float | None]] = []
    for a, b, failed, p95_s in (
        (1000, 500, None, None),
        (1010, 501, 3, 0.4),
        (4, 502, 3, math.nan),
        (9, None, 5, 0.5),
    ):
        counters = [(WEB | {"i": "a"}, a)] + ([(WEB | {"i": "b"}, b)] if b else [])
        fake.by_query = {
            "R": said(*counters, ({"service": "db"}, 7)),
            "E": said(*([(WEB, failed)] if failed else [])),
            "L": said(*([(WEB, p95_s)] if p95_s else [])),
        }
        seen = await probe.check()
        assert outcome(seen) == (Verdict.PASS, None, "")
        assert seen.traffic is not None
        found.append((seen.traffic.requests, seen.traffic.failed, seen.traffic.p95_s))
    assert found == [
        (1500, 0, None),
        (1511, 3, 0.4),
        (1516, 3, None),
        (1521, 5, 0.5),
    ]


async def test_a_failure_comes_before_counters_that_are_missing(build: Build, serve: Serve) -> None:
    fake = Fake()
    url = (await serve(fake.behaviour)).url
    probe = build("prometheus", url=url, **{**COUNTED, **ASK})
    fake.by_query = {"q": said((WEB, 0.0)), "R": said()}
    seen = await probe.check()
    assert outcome(seen) == (
        Verdict.INCONCLUSIVE,
        None,
        'no sample of requests has the labels {service="web"}',
    )
    fake.by_query["q"] = said((WEB, 0.5))
    seen = await probe.check()
    assert outcome(seen) == (Verdict.FAIL, Cause.ERROR, "0.5, limit 0.1")
    assert seen.traffic is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "there is nothing to ask"),
        ({"query": "q"}, "the query cannot fail"),
        ({"query": "q", "fail_above": 1, "url": "http://x/?a=b"}, "what to ask is the query"),
        ({"requests": "r", "fail_above": 1}, "are of the query, which is missing"),
        ({"query": "q", "fail_above": 1, "errors": "e"}, "are those of requests, which is missing"),
        ({"query": "q", "fail_above": 0, "cause": "saturated"}, "must be above 0"),
        ({"query": "q", "fail_above": 1, "cause": "slow"}, "'error' or 'saturated'"),
    ],
)
def test_what_cannot_be_asked_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PrometheusSpec.model_validate({"url": "http://127.0.0.1:9090", **keys})


class Shop:
    """Counts, and shows its figures."""

    def __init__(self) -> None:
        self.requests, self.errors = 100, 0
        self.port = 0

    async def behaviour(self, victim: Victim) -> None:
        while True:
            await victim.request()
            body = b"shop_requests %d\nshop_errors %d\n" % (self.requests, self.errors)
            head = OK + b"Content-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\n\r\n"
            await victim.send(head % len(body) + body)


@pytest.fixture
async def shops(clock: SystemClock) -> AsyncIterator[dict[str, tuple[Shop, AsyncExitStack]]]:
    async with AsyncExitStack() as stack:
        found: dict[str, tuple[Shop, AsyncExitStack]] = {}
        for name in ("web", "db"):
            shop = Shop()
            own = await stack.enter_async_context(AsyncExitStack())
            server = ToxicServer(shop.behaviour, clock)
            shop.port = (await own.enter_async_context(server.listening())).port
            found[name] = (shop, own)
        yield found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    if reason := real.missing():
        pytest.skip(reason)
    return tmp_path


async def prometheus_with(
    place: Path, shops: dict[str, tuple[Shop, AsyncExitStack]], stack: AsyncExitStack
) -> Prometheus:
    targets = [(shop.port, name) for name, (shop, _) in shops.items()]
    running = real.running(place, targets)
    server = await asyncio.to_thread(running.__enter__)
    stack.callback(running.__exit__, None, None, None)
    await until(lambda: len(server.samples("shop_requests")) == len(shops))
    return server


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)


@pytest.fixture
async def server(
    place: Path, shops: dict[str, tuple[Shop, AsyncExitStack]]
) -> AsyncIterator[Prometheus]:
    async with AsyncExitStack() as stack:
        yield await prometheus_with(place, shops, stack)


def real_keys(server: Prometheus, service: str = "web") -> dict[str, Any]:
    return {
        "url": server.url,
        "query": RATIO,
        "labels": {"service": service},
        "fail_above": 0.1,
        "requests": "shop_requests",
        "errors": "shop_errors",
        "timeout": 20,
    }


async def verdict_becomes(probe: Probe, verdict: Verdict) -> Observation:
    async with asyncio.timeout(30):
        while (seen := await probe.check()).verdict is not verdict:  # noqa: ASYNC110 - of others
            await asyncio.sleep(0.05)
    return seen


async def test_real_figures_become_real_verdicts(
    build: Build, server: Prometheus, shops: dict[str, tuple[Shop, AsyncExitStack]]
) -> None:
    web, db = (build("prometheus", **real_keys(server, name)) for name in ("web", "db"))
    seen = await web.check()
    assert outcome(seen) == (Verdict.PASS, None, "")
    assert seen.traffic is not None
    assert (seen.traffic.requests, seen.traffic.failed) == (100, 0)
    shops["web"][0].requests, shops["web"][0].errors = 200, 60
    seen = await verdict_becomes(web, Verdict.FAIL)
    assert outcome(seen) == (Verdict.FAIL, Cause.ERROR, "0.3, limit 0.1")
    assert (await db.check()).verdict is Verdict.PASS
    await until(lambda: [s["value"][1] for s in server.samples("sum(shop_requests)")] == ["300"])
    counted = (await web.check()).traffic
    assert counted is not None
    assert (counted.requests, counted.failed) == (200, 60)


async def test_a_target_that_is_gone_is_no_data_and_the_others_are_judged(
    build: Build, server: Prometheus, shops: dict[str, tuple[Shop, AsyncExitStack]]
) -> None:
    web, db = (build("prometheus", **real_keys(server, name)) for name in ("web", "db"))
    assert (await web.check()).verdict is Verdict.PASS
    await shops["web"][1].aclose()
    seen = await verdict_becomes(web, Verdict.INCONCLUSIVE)
    assert seen.detail == 'no sample of the query has the labels {service="web"}'
    assert (await db.check()).verdict is Verdict.PASS


async def test_a_bad_query_is_told_in_prometheus_own_words(
    build: Build, server: Prometheus
) -> None:
    keys = {**real_keys(server), "query": "sum by (", "requests": None, "errors": None}
    seen = await build("prometheus", **keys).check()
    assert (seen.verdict, seen.cause) == (Verdict.INCONCLUSIVE, None)
    assert seen.detail.startswith("Prometheus: bad_data: ")
    assert "parse error" in seen.detail


async def test_a_server_that_stands_still_or_is_gone_is_no_evidence(
    build: Build, server: Prometheus
) -> None:
    probe = build("prometheus", **{**real_keys(server), "timeout": 0.5})
    await verdict_becomes(probe, Verdict.PASS)
    server.freeze()
    seen = await probe.check()
    assert outcome(seen) == (
        Verdict.INCONCLUSIVE,
        None,
        "Prometheus: no answer within 0.5 s",
    )
    server.stop()
    seen = await probe.check()
    assert outcome(seen) == (Verdict.INCONCLUSIVE, None, "Prometheus: connection refused")
    await asyncio.to_thread(server.start)
    await verdict_becomes(probe, Verdict.PASS)


async def test_a_hundred_services_cost_one_query_in_an_interval(
    build: Build, server: Prometheus, clock: SystemClock
) -> None:
    interval_s, rounds, count = 1.0, 5, 100
    keys = {**real_keys(server), "requests": None, "errors": None, "interval": interval_s}
    probes = [build("prometheus", **keys) for _ in range(count)]
    before = await asyncio.to_thread(server.query_count)
    start = clock.now()

    async def watch(number: int, probe: Probe) -> list[Verdict]:
        seen: list[Verdict] = []
        for turn in range(rounds):
            await asyncio.sleep(start + (turn + number / count) * interval_s - clock.now())
            seen.append((await probe.check()).verdict)
        return seen

    verdicts = await asyncio.gather(*(watch(number, probe) for number, probe in enumerate(probes)))
    assert {verdict for seen in verdicts for verdict in seen} == {Verdict.PASS}
    asked = await asyncio.to_thread(server.query_count) - before
    passed_s = clock.now() - start
    assert rounds <= asked <= passed_s / interval_s + 2
