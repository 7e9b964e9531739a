"""The Files API and the Batch API of the sandbox."""
