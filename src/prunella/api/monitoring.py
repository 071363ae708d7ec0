"""For those who watch Prunella: metrics, alive, ready."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from prunella.api.bridge import Healing, on_healing_loop
from prunella.api.port import Orchestrator
from prunella.api.shapes import Trouble
from prunella.wire import Wire

ROUTER = APIRouter(tags=["monitoring"])


class Alive(Wire):
    """Answered only while healing turns its loop."""

    status: str = "alive"


class Ready(Wire):
    """Answered only while nothing is amiss."""

    status: str = "ready"


class NotReady(Trouble):
    """Why Prunella cannot do its work now."""

    reasons: list[str]


class _Families(Collector):
    def __init__(self, healing: Orchestrator) -> None:
        self._healing = healing

    def collect(self) -> Iterable[Metric]:
        return self._healing.metrics()


@ROUTER.get("/metrics", response_class=Response)
async def metrics(request: Request, healing: Healing) -> Response:
    """Prometheus or OpenMetrics text, as the client accepts it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(healing))
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"Content-Type": media_type})


async def _turn() -> None:
    """Nothing: that it ends shows that the loop turns."""


@ROUTER.get("/healthz", responses={503: {"model": Trouble}})
async def alive(healing: Healing) -> Alive:
    """Whether the healing loop turns."""
    await on_healing_loop(healing, _turn(), within_s=2.0)
    return Alive()


@ROUTER.get("/readyz", response_model=Ready, responses={503: {"model": NotReady}})
async def ready(healing: Healing) -> Ready | JSONResponse:
    """Whether healing can act; with reasons if not."""
    reasons = healing.not_ready()
    if not reasons:
        return Ready()
    trouble = NotReady(detail="not ready: " + "; ".join(reasons), reasons=reasons)
    return JSONResponse(trouble.model_dump(), 503)
