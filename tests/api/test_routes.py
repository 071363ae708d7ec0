"""Every route: what it answers when asked rightly, and when asked for what is not there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from prunella.errors import UnknownWordError
from prunella.wire import DebtRecord, DecisionRecord

HEAL = "/api/v1/services/{service}/heal"
HOLD = "/api/v1/holds/{service}"
SERVICE_FIELDS = {
    "id", "name", "status", "uptime", "lastCheck", "responseTime", "errorRate", "restartCount",
    "lastRestart", "phase", "detail", "symptom", "paused", "replicas", "revision", "circuit",
    "traffic",
}  # fmt: skip
ACTION_FIELDS = {
    "id", "serviceId", "action", "reason", "timestamp", "success", "recoveryTime", "downtime",
    "outcome", "detail", "symptom", "evidence", "incidentId", "actor", "instance",
    "replicas", "revision", "before", "share",
}  # fmt: skip
SYSTEM_FIELDS = {
    "totalServices", "healthy", "degraded", "failed", "recovering", "unknown", "healthPercentage",
    "totalRestarts", "totalHealingActions", "averageResponseTime", "services",
}  # fmt: skip
DECISION_FIELDS = {"id", "serviceId", "timestamp", "reason", "detail", "symptom", "guards"}
HOLD_FIELDS = {"serviceId", "owner", "reason", "placed", "expires"}
DEBT_FIELDS = {
    "serviceId", "kind", "before", "granted", "due", "extendedCount", "actionId", "instance",
}  # fmt: skip
WHY_FIELDS = {"service", "now", "vetoes", "nextLook", "holds", "remarks", "decisions"}
LIST_FIELDS = {"items", "next"}

ROUTES: list[tuple[str, str, Any, int, set[str]]] = [
    ("GET", "/api/v1/health", None, 200, SYSTEM_FIELDS),
    ("GET", "/api/v1/services", None, 200, LIST_FIELDS),
    ("GET", "/api/v1/services/{service}", None, 200, SERVICE_FIELDS),
    ("GET", "/api/v1/services/{service}/why", None, 200, WHY_FIELDS),
    ("POST", HEAL, {}, 200, ACTION_FIELDS),
    ("GET", "/api/v1/healing-actions", None, 200, LIST_FIELDS),
    ("GET", "/api/v1/healing-actions/{action}", None, 200, ACTION_FIELDS),
    ("GET", "/api/v1/decisions", None, 200, LIST_FIELDS),
    ("GET", "/api/v1/holds", None, 200, LIST_FIELDS),
    ("GET", "/api/v1/debts", None, 200, LIST_FIELDS),
    ("PUT", "/api/v1/holds", {}, 200, HOLD_FIELDS),
    ("DELETE", "/api/v1/holds", None, 200, {"lifted"}),
    ("PUT", HOLD, {}, 200, HOLD_FIELDS),
    ("DELETE", HOLD, None, 200, {"lifted"}),
    ("GET", "/healthz", None, 200, {"status"}),
    ("GET", "/readyz", None, 200, {"status"}),
]
SPOKEN_OF_ELSEWHERE = {("GET", "/metrics"), ("GET", "/api/v1/events")}


def path_of(template: str, service: str = "web", action: str = "1") -> str:
    return template.format(service=service, action=action)


@pytest.fixture
def healed(client: httpx.Client) -> httpx.Client:
    client.post(path_of(HEAL), json={}).raise_for_status()
    return client


def test_every_route_is_in_this_table(client: httpx.Client) -> None:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert served == {(method, path) for method, path, *_ in ROUTES} | SPOKEN_OF_ELSEWHERE


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "fields"), ROUTES, ids=lambda value: str(value)[:40]
)
def test_a_route_answers_with_exactly_these_fields(
    healed: httpx.Client, method: str, path: str, body: Any, status: int, fields: set[str]
) -> None:
    answer = healed.request(method, path_of(path), json=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == fields


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [(method, path, body) for method, path, body, *_ in ROUTES if "{" in path],
    ids=str,
)
def test_what_is_not_there_is_answered_404_with_a_reason(
    client: httpx.Client, method: str, path: str, body: Any
) -> None:
    answer = client.request(method, path_of(path, service="nosuch", action="77"), json=body)
    assert answer.status_code == 404
    assert set(answer.json()) == {"detail"}


@pytest.mark.parametrize(
    ("path", "fields"),
    [("services", SERVICE_FIELDS), ("healing-actions", ACTION_FIELDS), ("holds", HOLD_FIELDS)],
)
def test_items_of_a_list_have_the_fields_of_one(
    healed: httpx.Client, path: str, fields: set[str]
) -> None:
    healed.put("/api/v1/holds", json={}).raise_for_status()
    assert set(healed.get(f"/api/v1/{path}").json()["items"][0]) == fields


def test_debts_are_listed_with_these_fields(client: httpx.Client, served: Any) -> None:
    served.orchestrator.owed = [
        DebtRecord(
            service_id="web", kind="scale-up", before=2, granted=4, extended_count=1, action_id="7",
            due=datetime(2026, 1, 1, tzinfo=UTC),
        )
    ]  # fmt: skip
    (debt,) = client.get("/api/v1/debts").json()["items"]
    assert set(debt) == DEBT_FIELDS
    assert (debt["due"], debt["granted"], debt["actionId"]) == ("2026-01-01T00:00:00Z", 4, "7")


def test_decisions_are_listed_newest_first_and_by_service(
    client: httpx.Client, served: Any
) -> None:
    served.orchestrator.decided = [
        DecisionRecord(
            id=number, service_id=name, timestamp=datetime(2026, 1, 1, tzinfo=UTC), reason="r",
            detail="", guards=["budget"],
        )
        for number, name in enumerate(("web", "db", "web"), start=1)
    ]  # fmt: skip
    page = client.get("/api/v1/decisions?service=web").json()
    assert [item["id"] for item in page["items"]] == [3, 1]
    assert set(page["items"][0]) == DECISION_FIELDS


def test_pages_of_actions_follow_each_other_without_gap_or_repetition(client: httpx.Client) -> None:
    for _ in range(5):
        client.post(path_of(HEAL), json={}).raise_for_status()
    seen: list[str] = []
    before = None
    while True:
        query = {"limit": 2} | ({"before": before} if before else {})
        page = client.get("/api/v1/healing-actions", params=query).json()
        seen += [item["id"] for item in page["items"]]
        before = page["next"]
        if before is None:
            break
    assert seen == ["5", "4", "3", "2", "1"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "before=0", f"before={2**63}", "colour=red"]
)
@pytest.mark.parametrize("path", ["healing-actions", "decisions"])
def test_a_list_refuses_what_it_does_not_understand(
    client: httpx.Client, path: str, query: str
) -> None:
    answer = client.get(f"/api/v1/{path}?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"colour": "red"},
        {"wait": "yes"},
        {"override": "budget"},
        {"reason": 7},
        {"reason": "x" * 1001},
        [],
        None,
    ],
    ids=lambda body: str(body)[:30],
)
def test_a_heal_refuses_a_body_of_another_shape(
    client: httpx.Client, served: Any, body: Any
) -> None:
    answer = client.post(path_of(HEAL), json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"detail"}
    assert served.orchestrator.actions == []


def test_a_heal_tells_who_wanted_it_and_why(client: httpx.Client) -> None:
    done = client.post(path_of(HEAL), json={"reason": "stuck", "actor": "ann"}).json()
    assert (done["reason"], done["actor"], done["success"]) == ("stuck", "ann", True)


def test_a_heal_that_nobody_waits_for_is_accepted(client: httpx.Client) -> None:
    answer = client.post(path_of(HEAL), json={"wait": False})
    assert answer.status_code == 202
    assert answer.json()["success"] is None


def test_an_order_in_unknown_words_is_a_bad_request(client: httpx.Client, served: Any) -> None:
    served.orchestrator.trouble = UnknownWordError("no action 'reboot'; there are: restart")
    answer = client.post(path_of(HEAL), json={"action": "reboot"})
    assert answer.status_code == 422
    assert answer.json() == {"detail": "no action 'reboot'; there are: restart"}


def test_a_refused_heal_names_each_guard_and_its_reason(client: httpx.Client, served: Any) -> None:
    served.orchestrator.vetoes["db"] = {"min_healthy": "too few are well"}
    answer = client.post(path_of(HEAL, "db"), json={})
    assert answer.status_code == 409
    assert answer.json() == {
        "detail": "guards refused", "vetoes": {"min_healthy": "too few are well"},
    }  # fmt: skip
    assert client.post(path_of(HEAL, "db"), json={"override": ["min_healthy"]}).is_success


@pytest.mark.parametrize(("lasting", "expires"), [("1h", "13:00"), (90, "12:01:30"), (None, None)])
def test_a_pause_lasts_as_long_as_it_says(
    client: httpx.Client, lasting: Any, expires: str | None
) -> None:
    body = {"reason": "works", "owner": "ann"} | ({} if lasting is None else {"for": lasting})
    hold = client.put(path_of(HOLD), json=body).json()
    assert (hold["serviceId"], hold["owner"], hold["reason"]) == ("web", "ann", "works")
    assert (hold["expires"] is None) if expires is None else (expires in hold["expires"])


@pytest.mark.parametrize("lasting", ["soon", 0, -1, True, 1e300, []])
def test_a_pause_refuses_what_is_no_duration(client: httpx.Client, lasting: Any) -> None:
    answer = client.put("/api/v1/holds", json={"for": lasting})
    assert answer.status_code == 422
    assert "Value error" not in answer.json()["detail"]


def test_lifting_the_hold_on_everything_leaves_those_on_one_service(client: httpx.Client) -> None:
    client.put("/api/v1/holds", json={}).raise_for_status()
    client.put(path_of(HOLD), json={}).raise_for_status()
    assert client.delete("/api/v1/holds").json() == {"lifted": 1}
    assert [hold["serviceId"] for hold in client.get("/api/v1/holds").json()["items"]] == ["web"]


def test_metrics_are_in_the_format_of_prometheus(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'prunella_services{status="failed"} 1.0' in answer.text


def test_not_ready_says_why(client: httpx.Client, served: Any) -> None:
    served.orchestrator.reasons = ["the store is full"]
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "detail": "not ready: the store is full", "reasons": ["the store is full"],
    }  # fmt: skip
