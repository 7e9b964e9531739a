"""Inspection, validation and preparation of images."""
