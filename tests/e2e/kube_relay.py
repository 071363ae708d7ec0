"""Between Prunella and a real API server: where a test has its say right before a request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web
from tests.real.kubernetes import Kubernetes

Say = Callable[[], Awaitable[object]]
_PASSED = {"Content-Type", "Retry-After"}


class Relay:
    """Passes everything on, as it is.

    Attributes:
        kubeconfig: leads to the relay.
        answers: to what was asked before which a test had its say, in order: their statuses.
    """

    def __init__(self, cluster: Kubernetes, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.answers: list[int] = []
        self._server = cluster.server
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self._says: list[tuple[str, str, Say]] = []

    def before(self, method: str, end: str, say: Say) -> None:
        """Once, before the next such request to a path with that end goes out."""
        self._says.append((method, end, say))

    async def close(self) -> None:
        await self._session.close()

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        has_say = False
        for one in [*self._says]:
            if request.method == one[0] and request.path.endswith(one[1]):
                self._says.remove(one)
                await one[2]()
                has_say = True
        async with self._session.request(
            request.method,
            self._server + request.path_qs,
            data=await request.read(),
            headers={name: v for name, v in request.headers.items() if name != "Host"},
            ssl=False,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            if has_say:
                self.answers.append(answer.status)
            kept = {name: v for name, v in answer.headers.items() if name in _PASSED}
            passed = web.StreamResponse(status=answer.status, headers=kept)
            await passed.prepare(request)
            with suppress(ConnectionResetError):  # who asked has gone
                async for chunk in answer.content.iter_any():
                    await passed.write(chunk)
        return passed


@asynccontextmanager
async def relayed(cluster: Kubernetes, folder: Path) -> AsyncIterator[Relay]:
    """A relay on loopback."""
    relay = Relay(cluster, folder / "relayed")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", relay.pass_on)
    runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://{host}:{port}"}
        relay.kubeconfig.write_text(yaml.safe_dump(config))
        yield relay
    finally:
        await runner.cleanup()
        await relay.close()
