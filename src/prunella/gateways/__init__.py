"""Gateways: one file per kind, all behind ``ports.Gateway``."""
