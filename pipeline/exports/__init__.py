"""Exports of a job's images, in the forms that other tools read."""
