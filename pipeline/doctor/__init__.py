"""Examination before a night: what would ruin it is found while nothing is bought."""
