"""Calls against a server that is told what to answer: deadlines, limits, and words for trouble."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from tests.real.tls import certify

from prunella.core.model import Instant
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.kube.access import Access
from prunella.kube.client import (
    BudgetError,
    Cluster,
    ExpiredError,
    ForbiddenError,
    InvalidError,
    MissingError,
)
from prunella.kube.kinds import DEPLOYMENT, POD, Object
from prunella.kube.reflector import Reflector
from prunella.runtime.clock import SystemClock
from prunella.testing.site import free_port

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(handler: Handler, *, timeout_s: float = 10.0) -> AsyncIterator[Cluster]:
    async with serving(handler) as url:
        cluster = Cluster(Access(url), SystemClock(), timeout_s=timeout_s)
        try:
            yield cluster
        finally:
            await cluster.close()


def refusal(status: int, *, reason: str = "", wait_s: int | None = None) -> web.Response:
    body = {
        "kind": "Status",
        "code": status,
        "message": "the server's words",
        "details": {"causes": [{"reason": reason, "message": "needs 2"}] if reason else []},
    }
    headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
    return web.json_response(body, status=status, headers=headers)


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (401, PermanentError),
        (403, ForbiddenError),
        (404, MissingError),
        (409, ConflictError),
        (410, ExpiredError),
        (422, InvalidError),
        (400, PermanentError),
        (500, TransientError),
        (503, TransientError),
    ],
)
async def test_refusals_in_our_words(status: int, trouble: type[PrunellaError]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return refusal(status)

    async with client(answer) as cluster:
        with pytest.raises(trouble, match="the server's words") as caught:
            await cluster.get(POD, "one", "shops")
    assert type(caught.value) is trouble


async def test_a_disruption_budget_is_told_by_its_words() -> None:
    async def answer(_: web.Request) -> web.Response:
        return refusal(429, reason="DisruptionBudget")

    async with client(answer) as cluster:
        with pytest.raises(BudgetError, match="needs 2"):
            await cluster.create(POD, {}, "shops")
    assert cluster.request_count == 1


async def test_what_is_put_off_is_asked_again() -> None:
    asked: list[float] = []

    async def answer(_: web.Request) -> web.Response:
        asked.append(asyncio.get_running_loop().time())
        return refusal(429, wait_s=1) if len(asked) == 1 else web.json_response({"ok": True})

    async with client(answer) as cluster:
        assert await cluster.get(POD, "one", "shops") == {"ok": True}
    assert len(asked) == 2
    assert asked[1] - asked[0] >= 0.99


async def test_what_is_put_off_for_too_long_is_trouble() -> None:
    async def answer(_: web.Request) -> web.Response:
        return refusal(429, wait_s=60)

    async with client(answer) as cluster:
        with pytest.raises(TransientError, match="put off"):
            await cluster.get(POD, "one", "shops")
    assert cluster.request_count == 1


async def test_a_server_that_does_not_answer() -> None:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with client(answer, timeout_s=0.2) as cluster:
        with pytest.raises(TransientError, match=r"does not answer within 0\.2 s"):
            await cluster.get(POD, "one", "shops")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
async def test_a_write_whose_answer_is_lost_is_not_sent_again(method: str) -> None:
    """What was decided once is written once at most, also on a connection that has died."""
    writes: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({})
        writes.append(request.method)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with client(answer) as cluster:
        await cluster.get(POD, "one", "shops")  # a connection that is kept
        with pytest.raises(TransientError, match="cannot be reached"):
            await cluster.ask(method, POD.path("shops", "one"), body={})
    assert writes == [method]


async def test_a_server_that_is_not_there() -> None:
    cluster = Cluster(Access(f"http://127.0.0.1:{free_port()}"), SystemClock())
    with pytest.raises(TransientError, match="cannot be reached"):
        await cluster.get(POD, "one", "shops")
    await cluster.close()


@pytest.mark.parametrize("text", ["", "<html>", "[1]"])
async def test_what_is_no_api_is_told(text: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text)

    async with client(answer) as cluster:
        with pytest.raises(TransientError, match="does not speak as a Kubernetes API"):
            await cluster.get(POD, "one", "shops")


async def test_requests_wait_for_their_turn() -> None:
    """40 at once, and then 20 a second: what is beyond waits, and too much is refused."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({})

    async with client(answer) as cluster:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(cluster.get(POD, str(n), "shops") for n in range(50)))
        assert loop.time() - began >= 0.45  # not a bound on speed: ten of them had to wait


async def test_we_prove_who_we_are(tmp_path: Path) -> None:
    certify(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    tls.load_cert_chain(str(tmp_path / "server-cert.pem"), str(tmp_path / "server-key.pem"))
    tls.verify_mode = ssl.CERT_REQUIRED

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"token": request.headers.get("Authorization", "")})

    async with serving(answer, tls) as url:
        certificate = (tmp_path / "cert.pem").read_text()
        key = (tmp_path / "key.pem").read_text()
        stranger = Access(url, token="t", cert_data=certificate, key_data=key)
        known = stranger._replace(ca_file=str(tmp_path / "ca.pem"))
        for way, works in ((known, True), (stranger, False)):
            cluster = Cluster(way, SystemClock())
            try:
                if works:
                    assert await cluster.get(POD, "x", "y") == {"token": "Bearer t"}
                else:
                    with pytest.raises(TransientError, match="cannot be reached"):
                        await cluster.get(POD, "x", "y")
            finally:
                await cluster.close()


async def test_a_watch_in_crumbs_is_put_together() -> None:
    """Lines arrive in pieces and several at once, as a network likes."""
    first = {"metadata": {"resourceVersion": "7"}, "items": []}
    added = (
        b'{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"n","resourceVersion":"8"}}}'
        b'\n{"type":"ADDED","object":{"metadata":{"name":"b","namespace":"n","resourceVersion":"9"'
    )
    rest = b'}}}\n{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12"}}}\n'

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response(first)
        stream = web.StreamResponse()
        await stream.prepare(request)
        for piece in (added, rest):
            await stream.write(piece)
        await asyncio.Event().wait()
        return stream

    async with client(answer) as cluster:
        reflector = Reflector(cluster, DEPLOYMENT, "n", Object)
        seen: asyncio.Queue[str] = asyncio.Queue()
        reflector.listen(lambda _, new: seen.put_nowait(new.metadata.name if new else ""))
        await reflector.ready()
        async with asyncio.timeout(30):
            assert [await seen.get(), await seen.get()] == ["a", "b"]
        await reflector.close()


async def test_a_server_that_falls_silent_is_noticed() -> None:
    """Its watches stay open and say nothing; what is known must not be taken for the present."""
    wedged = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if wedged.is_set() or request.path == "/version":
            await asyncio.Event().wait()
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "7"}, "items": []})
        stream = web.StreamResponse()
        await stream.prepare(request)
        await asyncio.Event().wait()
        return stream

    async with client(answer, timeout_s=0.2) as cluster:
        hasty = _Hasty(cluster)
        reflector = Reflector(hasty, DEPLOYMENT, "n", Object)
        await reflector.ready()
        wedged.set()
        async with asyncio.timeout(30):
            while True:
                try:
                    await reflector.ready()
                except TransientError as error:
                    assert "does not answer" in str(error)  # noqa: PT017
                    break
                await asyncio.sleep(0.01)
        await reflector.close()
        await hasty.close()


class _Hasty(Cluster):
    """The same cluster, on a clock that runs a hundred times as fast."""

    def __init__(self, of: Cluster) -> None:
        super().__init__(of.access, _FastClock(), timeout_s=of.timeout_s)


class _FastClock(SystemClock):
    def now(self) -> Instant:
        return Instant(super().now() * 100)

    async def sleep_until(self, at: Instant, /) -> None:
        await super().sleep_until(Instant(at / 100))
