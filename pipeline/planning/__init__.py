"""Job files and Python jobs, expanded into requests with content keys."""
