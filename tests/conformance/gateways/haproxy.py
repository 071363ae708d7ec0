"""HAProxy with a map of circuits, in front of two servers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.gateways import Answer, Bench, context, route
from tests.real import haproxy as real
from tests.real.web import web

from prunella.gateways.haproxy import HAProxyGateway, HAProxyRoute, HAProxySpec

_SECTIONS = """
frontend edge
    bind 127.0.0.1:{port}
    default_backend shop
backend shop
{snippet}
"""


async def target(folder: Path, stack: AsyncExitStack, _request: pytest.FixtureRequest) -> Bench:
    if why := real.missing():
        pytest.skip(why)
    webs = await stack.enter_async_context(web("a", "b"))
    program = await stack.enter_async_context(real.haproxy(folder))
    program.write(_SECTIONS + real.servers(webs))
    await program.start()
    spec = HAProxySpec.model_validate(
        {
            "socket": program.socket,
            "circuits": program.circuits,
            "state_file": program.state_file,
            "timeout": "1s",
        }
    )

    async def again() -> HAProxyGateway:
        gateway = HAProxyGateway(spec, context(folder))
        await gateway.route([route(HAProxyRoute(name="edge", backend="shop"), webs)])
        return gateway

    async def ask() -> Answer:
        got = await program.ask()
        retry_after = got.headers.get("retry-after", "")
        return Answer(got.status, got.headers.get("x-server", ""), retry_after, got.body)

    async def shut_by_hand(server: str, shut: bool) -> None:  # noqa: FBT001 - as in `Bench`
        await program.command(f"set server shop/{server} state {'maint' if shut else 'ready'}")

    return Bench(
        gateway=await again(),
        ask=ask,
        again=again,
        restart=program.restart,
        dead=program.stop,
        ends_by_itself=True,
        port=program.port,
        servers=webs,
        shut_by_hand=shut_by_hand,
        reload=program.reload,
        freeze=program.freeze,
    )
