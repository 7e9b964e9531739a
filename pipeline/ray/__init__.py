"""Calls on many machines: the run hands them out in blocks to workers, which Ray places, watches and replaces."""
