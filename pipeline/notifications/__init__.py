"""Notifications by webhook or command when a run ends, stops or pauses."""
