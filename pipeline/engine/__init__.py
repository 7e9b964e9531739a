"""Execution of requests: dispatch, admission control, retries, and storage of results."""
