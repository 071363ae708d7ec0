"""What is special of a gateway that is known by three requests only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.conformance.gateways import EPOCH, SERVICE, context
from tests.conformance.gateways.http import TOKEN, section, target
from tests.gateways.api import saying

from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.gateways.http import HttpGateway, HttpGatewaySpec, HttpRoute
from prunella.ports import Route

OPEN = Valve(0)
CLOSED = b'{"open": false, "requests": 0, "failed": 0, "turned_away": 0, "in_flight": 0}'


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def token_file(folder: Path) -> Path:
    (folder / "token").write_text(TOKEN)
    return folder / "token"


async def gateway_at(
    folder: Path, stack: AsyncExitStack, url: str, body: str = "", **fields: Any
) -> HttpGateway:
    """In front of a server that is no gateway at all."""
    given = section(1, token_file(folder)) | {"timeout": "1s"}
    for name in ("open", "close", "state"):
        given[name] = {**given[name], "url": f"{url}/circuits/{{backend}}"}
    given["state"] |= fields
    gateway = HttpGateway(HttpGatewaySpec.model_validate(given), context(folder))
    stack.push_async_callback(gateway.close)
    await gateway.route([Route(SERVICE, HttpRoute(name="edge", backend="shop"), body)])
    return gateway


async def turn(gateway: HttpGateway, valve: Valve, before: Valve, lease_s: float = 30) -> None:
    await gateway.turn(SERVICE, valve, before=before, lease_s=lease_s, epoch=EPOCH)


async def test_what_is_accepted_and_not_done_is_no_success(
    tmp_path: Path, stack: AsyncExitStack, request: pytest.FixtureRequest
) -> None:
    bench = await target(tmp_path, stack, request, DEAF="1")
    with pytest.raises(TransientError, match="accepted that web is at 0 %, and still says 100 %"):
        await bench.turn(OPEN)
    assert (await bench.ask()).status == 200


async def test_a_gateway_that_takes_a_moment_is_waited_for(
    tmp_path: Path, stack: AsyncExitStack, request: pytest.FixtureRequest
) -> None:
    bench = await target(tmp_path, stack, request, LAG_S="0.3")
    await bench.turn(OPEN)
    assert (await bench.ask()).status == 503


async def test_a_lease_begins_anew(
    tmp_path: Path, stack: AsyncExitStack, request: pytest.FixtureRequest
) -> None:
    bench = await target(tmp_path, stack, request)
    await bench.turn(OPEN, lease_s=5)
    assert int((await bench.ask()).retry_after) <= 5
    await bench.turn(OPEN, before=OPEN, lease_s=60)
    assert int((await bench.ask()).retry_after) > 5


async def test_a_circuit_that_somebody_closed_is_not_kept_open(
    tmp_path: Path, stack: AsyncExitStack, request: pytest.FixtureRequest
) -> None:
    bench = await target(tmp_path, stack, request)
    with pytest.raises(ConflictError):
        await bench.turn(OPEN, before=OPEN)
    assert await bench.valve() == OPEN_WIDE


async def test_one_answer_may_tell_of_all(
    tmp_path: Path, stack: AsyncExitStack, request: pytest.FixtureRequest
) -> None:
    bench = await target(tmp_path, stack, request)
    spec: HttpGatewaySpec = bench.gateway._spec  # type: ignore[attr-defined]
    given = spec.model_dump(exclude_unset=True)
    given["state"] |= {
        "url": spec.state.url.removesuffix("/{backend}"),
        "each": r'"(?P<backend>[\w-]+)": (?P<state>\{[^}]*\})',
    }
    one_look = HttpGateway(HttpGatewaySpec.model_validate(given), context(tmp_path))
    stack.push_async_callback(one_look.close)
    routes = [
        Route(SERVICE, HttpRoute(name="edge", backend="shop"), "back"),
        Route(SERVICE.__class__("lost"), HttpRoute(name="edge", backend="lost")),
    ]
    await one_look.route(routes)
    await turn(one_look, Valve(50), OPEN_WIDE)
    flows = await one_look.observe()
    assert [*flows] == [SERVICE]
    assert flows[SERVICE].valve == Valve(50)
    assert [remark.message for remark in await one_look.examine()] == [
        "lost: the gateway knows no backend lost"
    ]


async def test_words_cannot_break_out_of_the_request(
    tmp_path: Path, stack: AsyncExitStack, request: pytest.FixtureRequest
) -> None:
    bench = await target(tmp_path, stack, request)
    hard = 'say "no",\n{share} \\ {backend} ü'
    gateway = bench.gateway
    (route,) = gateway._routes.values()  # type: ignore[attr-defined]
    await gateway.route([Route(SERVICE, route.spec, hard)])
    await bench.turn(OPEN)
    assert (await bench.ask()).body == hard
    await gateway.route([Route(SERVICE, HttpRoute(name="edge", backend="../x?y#z"), hard)])
    assert await gateway.observe() == {}


async def test_the_token_is_told_to_the_gateway_and_to_nobody_else(
    tmp_path: Path, stack: AsyncExitStack, request: pytest.FixtureRequest
) -> None:
    bench = await target(tmp_path, stack, request)
    (tmp_path / "token").write_text("wrong-secret")
    with pytest.raises(PermanentError, match="is not allowed to us") as caught:
        await bench.gateway.observe()
    assert "wrong-secret" not in str(caught.value)
    async with saying(b"no such " + TOKEN.encode(), status=400) as url:
        gateway = await gateway_at(tmp_path, stack, url)
        with pytest.raises(PermanentError, match="no such \\*\\*\\*"):
            await gateway.observe()


async def test_a_token_that_cannot_be_read_is_named(tmp_path: Path, stack: AsyncExitStack) -> None:
    gateway = await gateway_at(tmp_path, stack, "http://127.0.0.1:9")
    (tmp_path / "token").unlink()
    (remark,) = await gateway.examine()
    assert remark.fault
    assert str(tmp_path / "token") in remark.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>log in</html>",
        b"\xff\xfe\x00",
        CLOSED.replace(b'"requests": 0', b'"requests": -1'),
        CLOSED.replace(b"false", b'true, "share": 101'),
        CLOSED.replace(b"false", b"true"),
    ],
)
async def test_garbage_is_trouble_and_no_answer(
    tmp_path: Path, stack: AsyncExitStack, body: bytes
) -> None:
    async with saying(body) as url:
        gateway = await gateway_at(tmp_path, stack, url)
        with pytest.raises(TransientError):
            await gateway.observe()


async def test_an_endless_answer_is_not_read_to_its_end(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    async with saying(CLOSED + b" " * (33 * 2**20)) as url:
        gateway = await gateway_at(tmp_path, stack, url)
        with pytest.raises(TransientError, match="answers more than"):
            await gateway.observe()


async def test_a_redirect_is_not_followed(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with saying(CLOSED) as right, saying(b"", status=302, Location=right) as url:
        gateway = await gateway_at(tmp_path, stack, url)
        with pytest.raises(PermanentError, match="leads elsewhere"):
            await gateway.observe()


async def test_nobody_there_is_said_in_plain_words(tmp_path: Path, stack: AsyncExitStack) -> None:
    gateway = await gateway_at(tmp_path, stack, "http://127.0.0.1:9")
    (remark,) = await gateway.examine()
    assert remark.fault
    assert remark.message.startswith("GET http://127.0.0.1:9/circuits/shop failed: ")


async def test_without_a_share_it_is_all_or_nothing(tmp_path: Path, stack: AsyncExitStack) -> None:
    async with saying(CLOSED) as url:
        assert (await gateway_at(tmp_path, stack, url)).shares
        assert not (await gateway_at(tmp_path, stack, url, share=None)).shares


async def test_a_fallback_that_the_request_does_not_name_is_refused(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    gateway = await gateway_at(tmp_path, stack, "http://127.0.0.1:9")
    spec = HttpRoute(name="edge", backend="shop")
    with pytest.raises(PermanentError, match="fallback"):
        await gateway.route([Route(SERVICE, spec, fallback="spare")])


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("open", "url"), "http://me:pass@localhost/", "must not contain a user"),
        (("open", "url"), "ftp://localhost/", "http:// or https://"),
        (("open", "expect"), "2xx", "status codes"),
        (("state", "requests"), "no group", "one group"),
        (("state", "open"), "(", "not a regular expression"),
        (("state", "url"), "http://localhost/all", "finds all in one answer|`each`"),
        (("headers", "A"), "one\ntwo", "control characters"),
    ],
)
def test_what_cannot_work_is_refused_at_check(
    where: tuple[str, str], value: str, message: str
) -> None:
    given = section(1, Path("/token"))
    given[where[0]] = {**given[where[0]], where[1]: value}
    with pytest.raises(ValidationError, match=message):
        HttpGatewaySpec.model_validate(given)
