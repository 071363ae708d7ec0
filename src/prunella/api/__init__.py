"""HTTP over the orchestrator: one module per resource, no logic of its own."""
