"""Progress of a run: views, terminal output, and the run log."""
