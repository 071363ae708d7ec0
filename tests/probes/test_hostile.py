"""Targets that behave badly: each gets its verdict in time, and costs next to nothing."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from prunella.core.model import Cause, Verdict
from prunella.ports import Probe
from prunella.testing import toxic
from prunella.testing.toxic import BEHAVIOURS, Behaviour, ToxicServer

Build = Callable[..., Probe]
Serve = Callable[[Behaviour], Awaitable[ToxicServer]]
TIMEOUT_S = 0.8
PASS: tuple[Verdict, Cause | None, str] = (Verdict.PASS, None, "")
LATE = (Verdict.FAIL, Cause.TIMEOUT, "no answer within 0.8 s")


def error(detail: str) -> tuple[Verdict, Cause, str]:
    return Verdict.FAIL, Cause.ERROR, detail


UNFOUND = error("200 OK, but no 'never there' in the body")
BY_STATUS = {
    "tarpit": LATE,
    "slow_headers": LATE,
    "endless_body": PASS,
    "endless_chunks": PASS,
    "gzip_bomb": PASS,
    "huge_header": error("headers above 16384 bytes"),
    "endless_interim": error("headers above 16384 bytes"),
    "garbage": error("the answer is not HTTP"),
    "reset_at_accept": (Verdict.FAIL, Cause.REFUSED, "connection reset before any answer"),
    "reset_in_body": PASS,
    "reset_in_headers": error("connection reset in the middle of the answer"),
    "half_close": error("connection closed without an answer"),
    "redirect_loop": error("more than 5 redirects"),
    "silent": LATE,
}
BY_BODY = BY_STATUS | {
    "endless_body": UNFOUND,
    "endless_chunks": UNFOUND,
    "gzip_bomb": UNFOUND,
    "reset_in_body": error("connection reset in the middle of the answer"),
}


@pytest.mark.parametrize("name", BEHAVIOURS)
@pytest.mark.parametrize("pattern", [None, "never there"], ids=["by status", "by body"])
async def test_gets_its_verdict_in_time(
    build: Build, serve: Serve, name: str, pattern: str | None
) -> None:
    server = await serve(BEHAVIOURS[name])
    probe = build(
        "http", url=server.url, redirects=True, timeout=TIMEOUT_S, expect={"body": pattern}
    )
    observation = await probe.check()
    expected = (BY_BODY if pattern else BY_STATUS)[name]
    assert (observation.verdict, observation.cause, observation.detail) == expected
    assert observation.latency_s <= TIMEOUT_S * 1.1


async def test_no_tls_where_tls_is_expected_is_an_error(build: Build, serve: Serve) -> None:
    server = await serve(toxic.garbage)
    probe = build("http", url=server.url.replace("http:", "https:"), timeout=TIMEOUT_S)
    observation = await probe.check()
    assert observation.cause is Cause.ERROR
    assert observation.detail.startswith("TLS: ")


async def test_a_silent_tls_handshake_ends_at_the_deadline(build: Build, serve: Serve) -> None:
    server = await serve(toxic.silent)
    probe = build("http", url=server.url.replace("http:", "https:"), timeout=TIMEOUT_S)
    observation = await probe.check()
    assert (observation.cause, observation.detail) == LATE[1:]
    assert observation.latency_s <= TIMEOUT_S * 1.1


@pytest.mark.parametrize("name", ["endless_body", "endless_chunks", "huge_header"])
@pytest.mark.parametrize("pattern", [None, "never there"], ids=["by status", "by body"])
async def test_stops_reading_soon(
    build: Build, serve: Serve, name: str, pattern: str | None
) -> None:
    server = await serve(BEHAVIOURS[name])
    probe = build("http", url=server.url, timeout=TIMEOUT_S, expect={"body": pattern})
    await probe.check()
    taken = -1
    async with asyncio.timeout(30):
        while taken != server.sent_bytes:  # until the server gets nothing more off its hands
            taken = server.sent_bytes
            await asyncio.sleep(0.05)
    assert taken < 1_500_000  # what was read, and what two kernels' buffers hold


async def test_many_hostile_targets_at_once_cost_little_memory(
    build: Build, serve: Serve, descriptors: Callable[[], int]
) -> None:
    before = descriptors()
    servers = [await serve(behaviour) for behaviour in BEHAVIOURS.values()]
    keys: dict[str, Any] = {"redirects": True, "timeout": TIMEOUT_S, "expect": {"body": "x{99}"}}
    crowd = [build("http", url=server.url, **keys) for server in servers for _ in range(20)]
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    observations = await asyncio.gather(*(probe.check() for probe in crowd))
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss
    assert len(observations) == 280
    assert all(o.verdict is Verdict.FAIL for o in observations)
    assert grown_kib < 50 * 1024
    for probe in crowd:
        await probe.close()
    async with asyncio.timeout(30):
        while descriptors() > before + len(servers):  # noqa: ASYNC110 - the servers' side follows
            await asyncio.sleep(0.01)


async def test_what_a_target_says_reaches_no_terminal_unclean(build: Build, serve: Serve) -> None:
    async def behaviour(victim: toxic.Victim) -> None:
        await victim.send("\x1b[2Jowned\u202e\x07\r\nmore\u2066".encode() + b"\xff" * 500)

    server = await serve(behaviour)
    observation = await build("tcp", port=server.port, expect="hello").check()
    assert observation.cause is Cause.ERROR
    assert len(observation.detail) <= 200
    assert observation.detail.isprintable()
