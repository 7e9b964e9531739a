"""Validate requests by an independent reading of the API documentation."""
