"""Built-in probes: one module each, found by its ``PLUGIN`` (see ``prunella.plugins``)."""
