"""Whatever is sent to any route, nothing breaks, and answers are what the schema says."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

ENDLESS = "/api/v1/events"
CHECKS = [
    not_a_server_error,
    response_schema_conformance,
    content_type_conformance,
    status_code_conformance,
]


MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.fixture(scope="session")
def schema(serving: Any) -> Any:
    return schemathesis.openapi.from_url(f"{serving.url}/api/v1/openapi.json")


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_no_request_to_any_route_breaks_anything(
    served: Any, schema: Any, mode: GenerationMode
) -> None:
    operations = [found.ok() for found in schema.exclude(path=ENDLESS).get_all_operations()]
    assert len(operations) > 10
    for operation in operations:
        if mode is GenerationMode.POSITIVE or can_be_wrong(operation):
            send_examples(operation, mode)
    assert served.orchestrator.get_system_health().total_services == 2


def can_be_wrong(operation: Any) -> bool:
    """Any text will do for a service's name; everything else has a shape to violate."""
    return bool(operation.body or operation.query) or "{action}" in operation.path


def send_examples(operation: Any, mode: GenerationMode) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=8,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def send(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(checks=CHECKS)

    send()
