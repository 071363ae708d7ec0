"""Prunella: a self-healing orchestrator for services."""
