"""Who is let in: programs of this machine, never a page that its browser shows."""

from __future__ import annotations

import http.client
import json
from typing import Any

import httpx
import pytest

HOLDS = "/api/v1/holds"


@pytest.mark.parametrize(
    "host", ["evil.example", "10.0.0.1:7110", "localhost.evil.example", "", "a@127.0.0.1"]
)
@pytest.mark.parametrize("path", ["/api/v1/health", "/metrics", "/nowhere"])
def test_a_name_that_is_not_this_machine_is_refused(
    client: httpx.Client, host: str, path: str
) -> None:
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 403
    assert set(answer.json()) == {"detail"}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7110", "127.0.0.2", "[::1]:7110"])
def test_a_name_of_this_machine_is_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_two_names_at_once_are_refused(served: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.putrequest("GET", "/healthz", skip_host=True)
    connection.putheader("Host", "localhost")
    connection.putheader("Host", "evil.example")
    connection.endheaders()
    assert connection.getresponse().status in {400, 403}
    connection.close()


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("PUT", HOLDS), ("DELETE", HOLDS), ("POST", "/api/v1/services/web/heal")]
)
def test_a_page_of_another_origin_changes_nothing(
    client: httpx.Client, served: Any, method: str, path: str, origin: str
) -> None:
    answer = client.request(method, path, json={}, headers={"Origin": origin})
    assert answer.status_code == 403
    assert served.orchestrator.held == served.orchestrator.actions == []


def test_a_page_of_the_same_origin_may_change_things(client: httpx.Client, served: Any) -> None:
    assert client.put(HOLDS, json={}, headers={"Origin": served.url}).status_code == 200


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_what_a_form_can_send_is_refused(
    client: httpx.Client, method: str, media_type: str
) -> None:
    answer = client.request(method, HOLDS, content=b"{}", headers={"Content-Type": media_type})
    assert answer.status_code == 415


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_a_mebibyte_is_refused(client: httpx.Client, *, chunked: bool) -> None:
    big = json.dumps({"reason": "x" * 2**20}).encode()
    content: Any = iter([big[:1000], big[1000:]]) if chunked else big
    assert client.put(HOLDS, content=content).status_code == 413


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff", b"[" * 100_000, b'{"reason": "\\ud800"}', b'{"for": NaN}', b"1" * 5000],
)
def test_a_body_that_is_no_json_is_the_clients_fault(client: httpx.Client, content: bytes) -> None:
    answer = client.put(HOLDS, content=content)
    assert 400 <= answer.status_code < 500
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/healthz", 405)]
)
def test_what_is_not_served_is_answered_in_the_same_shape(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"detail"}
