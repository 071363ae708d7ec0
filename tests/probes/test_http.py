from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from prunella.core.model import Cause, Observation, Verdict
from prunella.ports import Probe
from prunella.testing import toxic
from prunella.testing.toxic import Behaviour, ToxicServer, Victim

Build = Callable[..., Probe]
Serve = Callable[[Behaviour], Awaitable[ToxicServer]]
OK = b"HTTP/1.1 200 OK\r\n"


def says(observation: Observation) -> tuple[Verdict, Cause | None, str]:
    return observation.verdict, observation.cause, observation.detail


@pytest.mark.parametrize(
    ("head", "expect", "detail"),
    [
        (b"200 OK", {}, ""),
        (b"302 Found", {}, ""),
        (b"503 Service Unavailable", {}, "503 Service Unavailable, expected 200-399"),
        (b"404 \x1b[31mevil", {}, "404 Not Found, expected 200-399"),
        (b"404 Not Found", {"status": 404}, ""),
        (b"204 No Content", {"status": [200, "300-399"]}, "204 No Content, expected 200,300-399"),
        (b"418 Teapot", {"status": "200, 418"}, ""),
        (b"599 Custom", {}, "599, expected 200-399"),
    ],
)
async def test_the_status_decides(
    build: Build, serve: Serve, head: bytes, expect: dict[str, Any], detail: str
) -> None:
    server = await serve(toxic.reply(b"HTTP/1.1 " + head + b"\r\n"))
    probe = build("http", url=server.url, expect=expect)
    observation = await probe.check()
    assert observation.detail == detail
    assert (observation.verdict is Verdict.PASS) == (not detail)
    assert (observation.cause is Cause.ERROR) == bool(detail)


@pytest.mark.parametrize(
    ("body", "cause", "load", "detail"),
    [
        (b"inflight 25\nerrors 99", None, 0.5, ""),
        (b"inflight 50", None, 1.0, ""),
        (b"threads 3\ninflight 75", Cause.SATURATED, 1.5, "75, limit 50"),
        (b"inflight ?", Cause.ERROR, None, "'?' is not a number"),
        (b"well", Cause.ERROR, None, r"200 OK, but no 'inflight (\\S+)' in the body"),
    ],
)
@pytest.mark.parametrize("reuse", [False, True])
async def test_a_number_in_the_body_that_is_above_its_limit_is_saturated(
    build: Build,
    serve: Serve,
    body: bytes,
    cause: Cause | None,
    load: float | None,
    detail: str,
    reuse: bool,  # noqa: FBT001 - a case of the table
) -> None:
    server = await serve(toxic.reply(OK, body))
    number = {"pattern": r"inflight (\S+)", "above": 50}
    observation = await build("http", url=server.url, number=number, reuse=reuse).check()
    assert (observation.cause, observation.load, observation.detail) == (cause, load, detail)


async def test_a_wrong_status_is_told_before_any_number(build: Build, serve: Serve) -> None:
    server = await serve(toxic.reply(b"HTTP/1.1 503 Busy\r\n", b"99"))
    probe = build("http", url=server.url, number={"pattern": r"(\d+)", "above": 50})
    assert says(await probe.check())[1:] == (
        Cause.ERROR,
        "503 Service Unavailable, expected 200-399",
    )


async def test_a_number_and_a_pattern_are_both_asked_of_the_body(
    build: Build, serve: Serve
) -> None:
    server = await serve(toxic.reply(OK, b"load 9 ok"))
    keys = {"number": {"pattern": r"load (\d)", "above": 5}, "expect": {"body": "ok"}}
    assert (await build("http", url=server.url, **keys).check()).cause is Cause.SATURATED
    keys["expect"] = {"body": "fine"}
    assert (await build("http", url=server.url, **keys).check()).cause is Cause.ERROR


@pytest.mark.parametrize(
    ("body", "verdict"), [(b"all is well", Verdict.PASS), (b"all is lost", Verdict.FAIL)]
)
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_the_body_decides_where_it_is_asked_for(
    build: Build, serve: Serve, body: bytes, verdict: Verdict, framing: str
) -> None:
    async def behaviour(victim: Victim) -> None:
        await victim.request()
        if framing == "length":
            await victim.send(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        elif framing == "chunked":
            await victim.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
            for byte in body:
                await victim.send(b"1\r\n" + bytes([byte]) + b"\r\n")
            await victim.send(b"0\r\n\r\n")
        else:
            await victim.send(OK + b"\r\n" + body)

    server = await serve(behaviour)
    observation = await build("http", url=server.url, expect={"body": "is w.ll$"}).check()
    assert observation.verdict is verdict
    if verdict is Verdict.FAIL:
        assert observation.detail == "200 OK, but no 'is w.ll$' in the body"


async def test_a_body_that_is_cut_off_fails_where_it_is_asked_for(
    build: Build, serve: Serve
) -> None:
    async def behaviour(victim: Victim) -> None:
        await victim.request()
        await victim.send(OK + b"Content-Length: 100\r\n\r\nwell")

    server = await serve(behaviour)
    assert says(await build("http", url=server.url, expect={"body": "well"}).check()) == (
        Verdict.FAIL,
        Cause.ERROR,
        "connection closed in the middle of the answer",
    )


async def test_interim_answers_are_passed_over(build: Build, serve: Serve) -> None:
    async def behaviour(victim: Victim) -> None:
        await victim.request()
        await victim.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        await victim.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")

    server = await serve(behaviour)
    assert (await build("http", url=server.url).check()).detail.startswith("500 ")


@pytest.mark.parametrize("body", [None, "mine"], ids=["by status", "by body"])
@pytest.mark.parametrize("reuse", [False, True], ids=["fresh", "kept"])
async def test_an_answer_that_nobody_asked_for_is_never_taken_for_ours(
    build: Build, serve: Serve, body: str | None, *, reuse: bool
) -> None:
    async def behaviour(victim: Victim) -> None:
        await victim.request()
        ours = OK + b"Content-Length: 4\r\n\r\nmine"
        await victim.send(ours + b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nother")
        await victim.wait_for_goodbye()

    server = await serve(behaviour)
    probe = build("http", url=server.url, reuse=reuse, expect={"body": body})
    for _ in range(2):
        assert (await probe.check()).verdict is Verdict.PASS
    assert server.connection_count == 2


async def test_asks_for_exactly_what_the_configuration_says(build: Build, serve: Serve) -> None:
    asked: list[bytes] = []

    async def behaviour(victim: Victim) -> None:
        asked.append(await victim.request())
        await victim.send(OK + b"Content-Length: 0\r\n\r\n")

    server = await serve(behaviour)
    await build(
        "http",
        url=f"{server.url}a b".replace(" ", "%20") + "?q=1&r=ä",
        method="POST",
        headers={"Authorization": "Bearer x", "Host": "example.org"},
        body="höhö",
    ).check()
    assert asked[0].split(b"\r\n") == [
        b"POST /a%20b?q=1&r=%C3%A4 HTTP/1.1",
        b"User-Agent: prunella",
        b"Accept: */*",
        b"Connection: close",
        b"Authorization: Bearer x",
        b"Host: example.org",
        b"Content-Length: 6",
        b"",
        b"",
    ]


async def test_a_large_request_is_sent_whole(build: Build, serve: Serve) -> None:
    size = 3_000_000

    async def behaviour(victim: Victim) -> None:
        await victim.request()
        await victim.receive(size)
        await victim.send(OK + b"Content-Length: 0\r\n\r\n")

    server = await serve(behaviour)
    probe = build("http", url=server.url, method="PUT", body="x" * size)
    assert (await probe.check()).verdict is Verdict.PASS


async def test_nobody_listening_is_refused(build: Build, free_port: int) -> None:
    probe = build("http", url=f"http://127.0.0.1:{free_port}/")
    assert says(await probe.check()) == (Verdict.FAIL, Cause.REFUSED, "connection refused")


async def test_a_name_with_several_addresses_is_tried_on_each(build: Build, serve: Serve) -> None:
    server = await serve(toxic.reply(OK))
    probe = build("http", url=f"http://localhost:{server.port}/")
    assert (await probe.check()).verdict is Verdict.PASS
    assert (await probe.check()).verdict is Verdict.PASS


async def test_a_name_that_does_not_resolve_is_no_evidence(build: Build) -> None:
    observation = await build("http", url="http://no-such-host.invalid/").check()
    assert (observation.verdict, observation.cause) == (Verdict.INCONCLUSIVE, None)


async def test_a_missing_unix_socket_is_refused(build: Build, tmp_path: Path) -> None:
    probe = build("http", url="http://web/", socket=str(tmp_path / "none.sock"))
    observation = await probe.check()
    assert observation.cause is Cause.REFUSED
    assert observation.detail == "no such file or directory"


async def test_a_unix_socket_is_asked_instead_of_the_host(build: Build, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 0\r\n\r\n")
        writer.close()

    path = str(tmp_path / "web.sock")
    server = await asyncio.start_unix_server(answer, path)
    observation = await build("http", url="http://web/", socket=path).check()
    server.close()
    assert observation.verdict is Verdict.PASS


async def test_redirects_are_judged_as_they_are_unless_followed(build: Build, serve: Serve) -> None:
    end = await serve(toxic.reply(b"HTTP/1.1 500 Oops\r\n"))
    start = await serve(toxic.reply(b"HTTP/1.1 301 Moved\r\nLocation: %s\r\n" % end.url.encode()))
    assert (await build("http", url=start.url).check()).verdict is Verdict.PASS
    followed = await build("http", url=start.url, redirects=True).check()
    assert followed.detail.startswith("500 ")


async def test_secrets_do_not_follow_a_redirect_to_another_origin(
    build: Build, serve: Serve
) -> None:
    asked: list[bytes] = []

    async def behaviour(victim: Victim) -> None:
        asked.append(await victim.request())
        await victim.send(OK + b"Content-Length: 0\r\n\r\n")

    end = await serve(behaviour)
    start = await serve(toxic.reply(b"HTTP/1.1 307 Go\r\nLocation: %sx\r\n" % end.url.encode()))
    probe = build("http", url=start.url, redirects=True, headers={"X-Api-Key": "secret"})
    assert (await probe.check()).verdict is Verdict.PASS
    assert asked[0].startswith(b"GET /x HTTP/1.1")
    assert b"secret" not in asked[0]


async def test_a_kept_connection_is_used_again(build: Build, serve: Serve) -> None:
    server = await serve(toxic.reply(OK, b"fine"))
    probe = build("http", url=server.url, reuse=True)
    for _ in range(5):
        assert (await probe.check()).verdict is Verdict.PASS
    assert server.connection_count == 1


async def test_a_kept_connection_that_was_closed_is_replaced_without_a_failure(
    build: Build, serve: Serve
) -> None:
    async def once(victim: Victim) -> None:
        await victim.request()
        await victim.send(OK + b"Content-Length: 0\r\n\r\n")

    async def once_and_then_reset(victim: Victim) -> None:
        await once(victim)
        await victim.request()
        victim.reset()

    for behaviour in (once, once_and_then_reset):
        server = await serve(behaviour)
        probe = build("http", url=server.url, reuse=True)
        for _ in range(4):
            assert (await probe.check()).verdict is Verdict.PASS
        assert server.connection_count == 4


async def test_a_fresh_connection_is_made_each_time_unless_told_otherwise(
    build: Build, serve: Serve
) -> None:
    server = await serve(toxic.reply(OK))
    probe = build("http", url=server.url)
    for _ in range(3):
        await probe.check()
    assert server.connection_count == 3


async def test_a_server_that_still_writes_is_not_met_with_a_reset(
    build: Build, serve: Serve
) -> None:
    finished: list[bool] = []

    async def behaviour(victim: Victim) -> None:
        await victim.request()
        await victim.send(OK + b"Content-Length: 4\r\n\r\n")
        for _ in range(4):
            await victim.pause(0.02)
            await victim.send(b"x")
        finished.append(True)

    server = await serve(behaviour)
    probe = build("http", url=server.url)
    observation = await probe.check()
    assert observation.verdict is Verdict.PASS
    assert not finished
    async with asyncio.timeout(30):
        while not finished:  # noqa: ASYNC110 - the server tells no event
            await asyncio.sleep(0.01)


async def test_cancellation_leaves_no_socket_behind(
    build: Build, serve: Serve, descriptors: Callable[[], int]
) -> None:
    server = await serve(toxic.silent)
    probe = build("http", url=server.url, timeout=0.1)
    await probe.check()  # what a loop opens once is open now
    probe = build("http", url=server.url)
    before = descriptors()
    task = asyncio.create_task(probe.check())
    async with asyncio.timeout(30):
        while server.connection_count < 2:  # noqa: ASYNC110 - the server tells no event
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30):
        while descriptors() > before:  # noqa: ASYNC110 - the server's side follows
            await asyncio.sleep(0.005)


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context for ``web.test``, and the certificate that vouches for it."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = "-subj /CN=web.test -addext subjectAltName=DNS:web.test"
    subprocess.run(
        [*command.split(), *subject.split(), "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


@pytest.fixture
async def tls_server(certified: tuple[ssl.SSLContext, Path]) -> AsyncIterator[tuple[int, Path]]:
    """An https server: its port and its certificate."""
    context, cert = certified

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 40000\r\n\r\n" + b"x" * 39995 + b"right")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1], cert
    server.close()


async def test_https_is_asked_and_certified(tls_server: tuple[int, Path], build: Build) -> None:
    port, cert = tls_server
    tls = {"ca_file": str(cert), "server_name": "web.test"}
    probe = build("http", url=f"https://127.0.0.1:{port}/", tls=tls, expect={"body": "right$"})
    for _ in range(3):
        observation = await probe.check()
        assert observation.verdict is Verdict.PASS, observation.detail


@pytest.mark.parametrize(
    ("tls", "verdict", "detail"),
    [
        ({}, Verdict.FAIL, "TLS: self-signed certificate"),
        ({"server_name": "other.test", "ca_file": "cert"}, Verdict.FAIL, "TLS: hostname mismatch"),
        ({"verify": False}, Verdict.PASS, ""),
    ],
    ids=["unknown authority", "wrong name", "not verified"],
)
async def test_a_certificate_is_checked_unless_told_otherwise(
    tls_server: tuple[int, Path],
    build: Build,
    tls: dict[str, Any],
    verdict: Verdict,
    detail: str,
) -> None:
    port, cert = tls_server
    if "ca_file" in tls:
        tls = {**tls, "ca_file": str(cert)}
    observation = await build("http", url=f"https://127.0.0.1:{port}/", tls=tls).check()
    assert observation.verdict is verdict
    assert observation.detail.startswith(detail)
