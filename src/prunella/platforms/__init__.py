"""Built-in platforms: one module each, found by its ``PLUGIN`` (see ``prunella.plugins``)."""
