"""The servers: each a thread and an event loop of its own, so that no request delays healing."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from concurrent.futures import Future

import uvicorn
from starlette.types import ASGIApp

from prunella.api.app import create_app, create_monitoring
from prunella.api.gate import is_loopback
from prunella.api.hub import Hub
from prunella.api.port import Orchestrator
from prunella.errors import PermanentError

_CLOSE_S = 2  # how long requests may go on after the end was asked for


class _Server(uvicorn.Server):
    """A server that says when it accepts requests."""

    def __init__(self, config: uvicorn.Config, accepting: Future[None]) -> None:
        super().__init__(config)
        self._accepting = accepting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._accepting.set_result(None)


class HttpServer:
    """One application on one address.

    Args:
        app: what answers.
        host: a name or an address of this machine.
        port: 0 takes any free one.
        key: of the configuration, where that address can be changed.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, *, key: str) -> None:
        self._app = app
        self._host = host
        self._port = port
        self.key = key
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; answers the address, with the port that was chosen for port 0.

        Raises:
            PermanentError: the address is in use, not allowed, or not of this machine.
        """
        listener = _listen(self._host, self._port, self.key)
        accepting: Future[None] = Future()
        config = uvicorn.Config(
            self._app,
            access_log=False,
            http="httptools",
            lifespan="on",
            limit_concurrency=512,
            log_config=None,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_CLOSE_S,
            ws="none",
        )
        self._server = server = _Server(config, accepting)
        self._thread = threading.Thread(
            target=_serve, args=(server, listener, accepting), name="prunella-api", daemon=True
        )
        self._thread.start()
        await asyncio.wrap_future(accepting)
        host, port = listener.getsockname()[:2]
        return host, port

    async def stop(self) -> None:
        """Let requests finish for a moment, and stop listening; once more does nothing."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        await asyncio.to_thread(self._thread.join)
        self._server = self._thread = None


class ApiServer(HttpServer):
    """HTTP for one orchestrator, on a loopback address."""

    def __init__(self, orchestrator: Orchestrator, host: str, port: int) -> None:
        app = create_app(orchestrator)
        super().__init__(app, host, port, key="listen")
        self.hub: Hub = app.state.hub

    async def start(self) -> tuple[str, int]:
        if not is_loopback(self._host):
            raise PermanentError(
                f"the API must not listen on {self._host}: only loopback addresses (127.0.0.1, "
                "::1, localhost) are allowed until there is access control"
            )
        return await super().start()

    async def stop(self) -> None:
        """End all streams as well."""
        if self._server is not None:
            self.hub.close()
        await super().stop()


class MonitoringServer(HttpServer):
    """For those who watch Prunella from other machines; they can ask, and order nothing."""

    def __init__(self, orchestrator: Orchestrator, host: str, port: int) -> None:
        super().__init__(create_monitoring(orchestrator), host, port, key="monitoring")


def _serve(server: _Server, listener: socket.socket, accepting: Future[None]) -> None:
    try:
        server.run([listener])
    except SystemExit:  # how it says that it could not start; it has logged why
        accepting.set_exception(PermanentError("the API could not start: its log says why"))
    finally:
        listener.close()


def _listen(host: str, port: int, key: str) -> socket.socket:
    address = "127.0.0.1" if host.lower() == "localhost" else host
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise PermanentError(_why_not(host, port, key, error)) from error
    listener.settimeout(0.0)
    return listener


def _why_not(host: str, port: int, key: str, error: OSError) -> str:
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"the API cannot listen on {shown}: port {port} is in use; stop what listens there, "
            "or choose another port with api: {" + f"{key}: {host}:PORT" + "} in the configuration"
        )
    return f"the API cannot listen on {shown}: {error.strerror or error}"
