"""Built-in stores: one module each, found by its ``PLUGIN`` (see ``prunella.plugins``)."""
