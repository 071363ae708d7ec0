"""Prunella: a self-healing orchestrator for services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunella.runtime.orchestrator import SelfHealingOrchestrator

__all__ = ["SelfHealingOrchestrator"]


def __getattr__(name: str) -> Any:
    """Import the orchestrator when it is asked for: the command line starts without it."""
    if name != "SelfHealingOrchestrator":
        raise AttributeError(f"module 'prunella' has no attribute {name!r}")
    from prunella.runtime.orchestrator import SelfHealingOrchestrator  # noqa: PLC0415

    return SelfHealingOrchestrator
