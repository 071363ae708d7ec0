from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from prunella.core.model import Cause, Verdict
from prunella.ports import Probe
from prunella.testing import toxic
from prunella.testing.toxic import Behaviour, ToxicServer, Victim

Build = Callable[..., Probe]
Serve = Callable[[Behaviour], Awaitable[ToxicServer]]


async def test_a_port_that_accepts_is_enough(build: Build, serve: Serve) -> None:
    server = await serve(toxic.silent)
    observation = await build("tcp", port=server.port).check()
    assert observation.verdict is Verdict.PASS


async def test_a_port_that_nobody_listens_on_is_refused(build: Build, free_port: int) -> None:
    observation = await build("tcp", port=free_port).check()
    assert (observation.cause, observation.detail) == (Cause.REFUSED, "connection refused")


@pytest.mark.parametrize(
    ("keys", "cause", "detail"),
    [
        ({"expect": r"^\+PONG"}, None, ""),
        ({"send": "PING\r\n", "expect": r"^\+PONG"}, None, ""),
        ({"expect": "hello"}, Cause.ERROR, "answered '+PONG  ', expected 'hello'"),
    ],
    ids=["greeted", "asked", "wrong words"],
)
async def test_the_first_words_decide_where_they_are_asked_for(
    build: Build, serve: Serve, keys: dict[str, Any], cause: Cause | None, detail: str
) -> None:
    async def behaviour(victim: Victim) -> None:
        await victim.send(b"+PO")
        await victim.pause(0.02)
        await victim.send(b"NG\r\n")

    server = await serve(behaviour)
    observation = await build("tcp", port=server.port, timeout=0.3, **keys).check()
    assert observation.cause is cause
    assert observation.detail.replace("\\r\\n", "  ") == detail


async def test_what_is_to_be_sent_is_sent(build: Build, serve: Serve) -> None:
    async def behaviour(victim: Victim) -> None:
        await victim.send(b"you said " + await victim.receive(4))

    server = await serve(behaviour)
    probe = build("tcp", port=server.port, send="ping", expect="you said ping$")
    assert (await probe.check()).verdict is Verdict.PASS


async def test_silence_where_words_are_expected_is_a_timeout(build: Build, serve: Serve) -> None:
    server = await serve(toxic.silent)
    observation = await build("tcp", port=server.port, expect="x", timeout=0.2).check()
    assert observation.cause is Cause.TIMEOUT


async def test_wrong_words_and_then_silence_are_wrong_words(build: Build, serve: Serve) -> None:
    server = await serve(toxic.garbage)
    observation = await build("tcp", port=server.port, expect="hello", timeout=0.2).check()
    assert observation.cause is Cause.ERROR
    assert observation.detail.endswith("expected 'hello'")


async def test_stops_listening_after_four_kibibytes(build: Build, serve: Serve) -> None:
    server = await serve(toxic.endless_chatter)
    observation = await build("tcp", port=server.port, expect="never there").check()
    assert observation.cause is Cause.ERROR
    assert server.sent_bytes < 1_000_000
