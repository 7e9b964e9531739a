"""Images API server on loopback, with faults: no key, no cost, an independent reading of the API documentation."""
