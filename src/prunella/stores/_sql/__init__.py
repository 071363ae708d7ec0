"""What stores on a relational database share: tables, rows, queries. Imported on opening only."""
