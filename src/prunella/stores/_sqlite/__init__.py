"""What is SQLite's own: files, pragmas, faults, the writer's thread. Imported on opening only."""
