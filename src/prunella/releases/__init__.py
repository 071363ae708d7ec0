"""What can be rolled back to, where the platform does not know: one file per kind of source."""
