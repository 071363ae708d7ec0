"""The server beside the healing loop: listening, failing, streaming, ending."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from prunella.api.server import ApiServer
from prunella.errors import PermanentError, StoreError, TransientError
from prunella.runtime.notices import Topic
from prunella.testing.orchestrator import ScriptedOrchestrator, service


def eventually(true: Callable[[], bool], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


@pytest.fixture
def orchestrator() -> Iterator[ScriptedOrchestrator]:
    orchestrator = ScriptedOrchestrator(service("web"))
    orchestrator.open()
    yield orchestrator
    orchestrator.close()


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    topic = ""
    for line in lines:
        if line.startswith("event: "):
            topic = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield topic, json.loads(line.removeprefix("data: "))


def test_a_port_in_use_is_named_with_what_to_do(orchestrator: ScriptedOrchestrator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PermanentError, match=rf"port {port} is in use; stop .* or choose"):
            asyncio.run(ApiServer(orchestrator, "127.0.0.1", port).start())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_an_address_that_others_can_reach_is_refused(
    orchestrator: ScriptedOrchestrator, host: str
) -> None:
    with pytest.raises(PermanentError, match="only loopback"):
        asyncio.run(ApiServer(orchestrator, host, 0).start())


def test_a_stopped_server_listens_no_more_and_may_be_stopped_again(
    orchestrator: ScriptedOrchestrator,
) -> None:
    before = set(threading.enumerate())
    server = ApiServer(orchestrator, "localhost", 0)
    host, port = asyncio.run(server.start())
    assert httpx.get(f"http://{host}:{port}/healthz", trust_env=False).is_success
    asyncio.run(server.stop())
    asyncio.run(server.stop())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=5)
    eventually(lambda: orchestrator.subscribed_count == 0)
    assert set(threading.enumerate()) <= before


def test_a_server_whose_healing_is_over_does_not_start() -> None:
    orchestrator = ScriptedOrchestrator()
    orchestrator.open()
    orchestrator.close()
    with pytest.raises(PermanentError, match="could not start"):
        asyncio.run(ApiServer(orchestrator, "127.0.0.1", 0).start())


def test_a_stop_ends_open_streams_and_waiting_heals(orchestrator: ScriptedOrchestrator) -> None:
    orchestrator.heal_may_end = asyncio.Event()
    server = ApiServer(orchestrator, "127.0.0.1", 0)
    host, port = asyncio.run(server.start())
    url = f"http://{host}:{port}/api/v1"
    waiting = threading.Thread(target=_heal_into_the_void, args=(url,))
    with httpx.stream("GET", f"{url}/events", trust_env=False, timeout=10) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": listening"
        waiting.start()
        started_at = time.monotonic()
        asyncio.run(server.stop())
        assert list(lines) == [""]
    waiting.join(timeout=10)
    assert not waiting.is_alive()
    assert time.monotonic() - started_at < 8


def _heal_into_the_void(url: str) -> None:
    try:
        httpx.post(f"{url}/services/web/heal", json={}, trust_env=False, timeout=10)
    except httpx.TransportError:
        return


def test_a_heal_that_takes_long_delays_no_other_request(served: Any, client: httpx.Client) -> None:
    served.orchestrator.heal_may_end = asyncio.Event()
    answers: list[int] = []

    def heal() -> None:
        url = f"{served.url}/api/v1/services/web/heal"
        answers.append(httpx.post(url, json={}, trust_env=False, timeout=30).status_code)

    waiting = threading.Thread(target=heal)
    waiting.start()
    for _ in range(5):
        assert client.get("/api/v1/holds").is_success
    assert answers == []
    served.orchestrator.do(served.orchestrator.heal_may_end.set)
    waiting.join(timeout=30)
    assert answers == [200]


def test_reads_are_answered_while_the_healing_loop_is_busy(
    served: Any, client: httpx.Client
) -> None:
    go_on = threading.Event()
    busy = threading.Thread(target=served.orchestrator.do, args=(lambda: go_on.wait(20),))
    busy.start()
    try:
        assert client.get("/api/v1/health").json()["totalServices"] == 2
        assert client.get("/readyz").is_success
        assert client.get("/healthz", timeout=20).status_code == 503
    finally:
        go_on.set()
        busy.join()


@pytest.mark.parametrize(
    ("trouble", "status"),
    [(TransientError("busy"), 503), (StoreError("torn"), 503), (PermanentError("cannot"), 409)],
    ids=str,
)
def test_expected_trouble_has_a_status_and_its_own_words(
    served: Any, client: httpx.Client, trouble: Exception, status: int
) -> None:
    served.orchestrator.trouble = trouble
    answer = client.get("/api/v1/holds")
    assert (answer.status_code, answer.json()) == (status, {"detail": str(trouble)})


def test_a_defect_is_answered_without_its_inside(served: Any, client: httpx.Client) -> None:
    served.orchestrator.trouble = ZeroDivisionError("secret")
    answer = client.get("/api/v1/holds")
    assert (answer.status_code, answer.json()) == (500, {"detail": "internal error"})


def test_a_stream_tells_what_happens_in_order(served: Any, client: httpx.Client) -> None:
    with client.stream("GET", "/api/v1/events", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == ": listening"
        served.orchestrator.publish(Topic.SERVICE_FAILED, "db", detail="line\nbreak")
        served.orchestrator.publish(Topic.HEALING_STARTED, "db", action="restart")
        events = events_of(lines)
        assert next(events) == (
            "service-failed",
            {
                "topic": "service-failed",
                "timestamp": "2026-01-01T12:00:00Z",
                "serviceId": "db",
                "data": {"detail": "line\nbreak"},
            },
        )
        assert next(events)[0] == "healing-started"


def test_a_stream_of_one_service_tells_of_no_other(served: Any, client: httpx.Client) -> None:
    with client.stream("GET", "/api/v1/events?service=web", timeout=10) as answer:
        lines = answer.iter_lines()
        next(lines)
        served.orchestrator.publish(Topic.SERVICE_FAILED, "db")
        served.orchestrator.publish(Topic.SERVICE_DEGRADED, "web")
        assert next(events_of(lines))[1]["serviceId"] == "web"


def test_a_client_that_goes_ends_its_stream(served: Any, client: httpx.Client) -> None:
    hub = served.server.hub
    with client.stream("GET", "/api/v1/events", timeout=10) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": listening"
        eventually(lambda: hub.stream_count == 1)  # the one before may end late
    eventually(lambda: hub.stream_count == 0)


def test_a_stream_that_is_one_too_many_is_refused(served: Any, client: httpx.Client) -> None:
    hub = served.server.hub
    open_: list[socket.socket] = []
    try:
        while (count := hub.stream_count) < 64:
            connection = socket.create_connection(("127.0.0.1", served.port), timeout=10)
            open_.append(connection)
            connection.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda before=count: hub.stream_count > before)  # type: ignore[misc]
        assert client.get("/api/v1/events").status_code == 429
    finally:
        for connection in open_:
            connection.close()
    eventually(lambda: hub.stream_count == 0)
