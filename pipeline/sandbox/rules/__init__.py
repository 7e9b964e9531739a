"""Validation rules of the sandbox: an independent reading of the API documentation."""
