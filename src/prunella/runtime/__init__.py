"""The shell: gathers snapshots, asks the core, carries its answers out, records them."""
