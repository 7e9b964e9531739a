"""Batches of the Batch API: built, sent, awaited and collected beside the calls in realtime."""
