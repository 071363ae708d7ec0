"""What happens, as it happens: server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic_core import to_jsonable_python
from starlette.types import Receive, Scope, Send

from prunella.api.hub import Hub, Stream
from prunella.api.shapes import Name
from prunella.runtime.notices import Notice

ROUTER = APIRouter(prefix="/api/v1", tags=["events"])

BEAT_S = 15.0


class EventStream(StreamingResponse):
    """A stream whose subscription ends with it, however it ends."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, service: str | None) -> None:
        self._hub = hub
        self._stream = hub.begin(service)
        super().__init__(lines(self._stream), headers={"Cache-Control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._hub.drop(self._stream)


def _event(topic: str, body: dict[str, Any]) -> str:
    return f"event: {topic}\ndata: {json.dumps(body)}\n\n"


def _notice(notice: Notice) -> str:
    body = {
        "topic": notice.topic,
        "timestamp": notice.at.wall,
        "serviceId": notice.service,
        "data": dict(notice.data),
    }
    return _event(notice.topic, to_jsonable_python(body, fallback=str, inf_nan_mode="null"))


async def lines(stream: Stream, beat_s: float = BEAT_S) -> AsyncGenerator[str]:
    """A stream as text: its notices, what it lost, and a beat whenever it is silent."""
    yield ": listening\n\n"
    while True:
        try:
            async with asyncio.timeout(beat_s):
                notice = await stream.next()
        except TimeoutError:
            yield ": beat\n\n"
            continue
        if notice is None:
            return
        yield _notice(notice)
        if stream.dropped_count:
            dropped_count, stream.dropped_count = stream.dropped_count, 0
            yield _event("dropped", {"count": dropped_count})


@ROUTER.get(
    "/events",
    status_code=200,
    response_class=EventStream,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(request: Request, service: Annotated[Name | None, Query()] = None) -> EventStream:
    """Follow the notices: of one service, or of all."""
    return EventStream(cast("Hub", request.app.state.hub), service)
