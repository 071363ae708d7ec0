"""Fakes that obey the same conformance suites as the real things, for tests and simulations."""
