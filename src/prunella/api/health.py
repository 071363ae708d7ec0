"""The whole system's health, and each service's."""

from __future__ import annotations

from fastapi import APIRouter

from prunella.api.bridge import Healing, on_healing_loop
from prunella.api.shapes import Listing
from prunella.wire import Explanation, ServiceHealth, SystemHealth

ROUTER = APIRouter(prefix="/api/v1", tags=["health"])


@ROUTER.get("/health")
async def system_health(healing: Healing) -> SystemHealth:
    """All services, counted and listed."""
    return healing.get_system_health()


@ROUTER.get("/services")
async def services(healing: Healing) -> Listing[ServiceHealth]:
    """All services."""
    return Listing(items=healing.get_system_health().services)


@ROUTER.get("/services/{service}")
async def service_health(service: str, healing: Healing) -> ServiceHealth:
    """One service."""
    return healing.get_service_health(service)


@ROUTER.get("/services/{service}/why")
async def why(service: str, healing: Healing) -> Explanation:
    """Why a service is treated as it is."""
    return await on_healing_loop(healing, healing.why(service))
