"""Deterministic test images for the sandbox."""
