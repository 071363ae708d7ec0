"""The application: every module here that has a ``ROUTER``, behind the gate."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from fastapi import APIRouter, FastAPI

import prunella.api
from prunella.api import monitoring
from prunella.api.gate import Gate
from prunella.api.hub import Hub
from prunella.api.port import Orchestrator
from prunella.api.shapes import Trouble
from prunella.api.troubles import answer_troubles

_TROUBLES: dict[int | str, dict[str, Any]] = {
    status: {"model": Trouble} for status in (400, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503)
}


def create_app(orchestrator: Orchestrator) -> FastAPI:
    """The API over `orchestrator`, whose loop runs while the application lives."""
    hub = Hub(orchestrator)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await hub.open()
        try:
            yield
        finally:
            await hub.unsubscribe()

    app = FastAPI(
        title="Prunella",
        version="1",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.orchestrator = orchestrator
    app.state.hub = hub
    answer_troubles(app)
    app.add_middleware(Gate)
    for router in _routers():
        app.include_router(router, responses=_TROUBLES)
    return app


def create_monitoring(orchestrator: Orchestrator) -> FastAPI:
    """What anybody may ask of `orchestrator`: its metrics, whether it lives and is ready."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.orchestrator = orchestrator
    answer_troubles(app)
    app.include_router(monitoring.ROUTER)
    return app


def _routers() -> Iterator[APIRouter]:
    for module in iter_modules(prunella.api.__path__, "prunella.api."):
        if module.name not in {__name__, f"{prunella.api.__name__}.server"}:
            router = getattr(import_module(module.name), "ROUTER", None)
            if router is not None:
                yield router
