"""Gateways, what stands behind them, and what services need of each other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from prunella.config import Config, changes
from prunella.core.model import ServiceId
from prunella.core.policy import Need

FILE = """
gateways:
  front: {kind: edge, socket: ./admin.sock}
services:
  shop:
    platform: command
    gateway: {name: front, backend: be_shop}
    circuit: {open_for: 10s, step: 2s, requests: 5, body: back soon, fallback: be_other}
    depends_on: [db, {service: payments, optional: true}]
  db: {platform: command}
  payments: {platform: command, depends_on: [db]}
"""
SHOP = ServiceId("shop")


def test_a_service_stands_behind_a_gateway(config_of: Callable[[str], Config]) -> None:
    config = config_of(FILE)
    (front,) = config.gateways.values()
    assert (front.name, front.kind, front.spec.interval) == ("front", "edge", 5.0)
    assert front.spec.model_dump()["socket"] == Path("/etc/prunella/admin.sock")
    shop = config.services[SHOP]
    assert shop.route is not None
    assert shop.route.model_dump() == {"name": "front", "backend": "be_shop"}
    assert (shop.circuit_body, shop.circuit_fallback) == ("back soon", "be_other")
    policy = shop.policy
    assert (policy.circuit_open_s, policy.circuit_step_s, policy.circuit_requests) == (10, 2, 5)
    assert policy.needs == (Need(ServiceId("db")), Need(ServiceId("payments"), optional=True))


def test_a_service_whose_gateway_differs_differs(config_of: Callable[[str], Config]) -> None:
    old, new = config_of(FILE), config_of(FILE.replace("./admin.sock", "./other.sock"))
    assert changes(old, new).changed == (SHOP,)
    assert changes(old, config_of(FILE)).changed == ()


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (("kind: edge, ", ""), "3:10: gateway 'front' has no 'kind', expected one of: edge"),
        (("kind: edge", "kind: edgy"), "3:17: unknown kind of gateway 'edgy'"),
        (("kind: edge", "kind: 3"), "3:17: 'kind' is not the name of a kind of gateway"),
        (("{kind: edge, socket: ./admin.sock}", "edge"), "3:10: gateway 'front' is not a mapping"),
        (("socket:", "sockt:"), "3:23: unknown key 'sockt', did you mean 'socket'?"),
        (("name: front", "name: back"), "7:21: unknown gateway 'back', expected one of: front"),
        (("name: front, ", ""), "7:14: 'gateway' of service 'shop' has no 'name'"),
        ((", backend: be_shop", ""), "7:14: 'gateway' of service 'shop' has no 'backend'"),
        (
            ("    gateway: {name: front, backend: be_shop}\n", ""),
            "7:5: service 'shop' has a 'circuit' and no gateway to break it at",
        ),
        (("requests: 5", "requests: 0"), "8:50: 'requests' is 0, expected a whole number from 1"),
        (("service: payments", "service: paiments"), "9:17: unknown service 'paiments'"),
        (("[db, {", "[shop, {"), "9:17: service 'shop' depends on itself: shop -> shop"),
        (
            ("db: {platform: command", "db: {platform: command, depends_on: [payments]"),
            "10:39: service 'db' depends on itself: db -> payments -> db",
        ),
    ],
)
def test_a_fault_is_named_with_its_place(
    edit: tuple[str, str], fault: str, faults_of: Callable[[str], list[str]]
) -> None:
    assert edit[0] in FILE
    found = faults_of(FILE.replace(*edit, 1))
    assert any(fault in line for line in found), found
