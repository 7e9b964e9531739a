"""The ledger beside what a provider says that it made and charged: `pipeline reconcile`."""
