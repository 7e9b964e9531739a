"""Reports for people and scripts, written from the ledger."""
