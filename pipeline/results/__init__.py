"""What people take away: the ledger becomes a manifest, a standing, an outlook, a verification.

outlook        a plan and the ledger → what a job would do, for `plan`
standing       the ledger → how far each job is, for `status`
manifest       the ledger → `manifest.jsonl`
verification   the ledger and the disk → which images are not as recorded
"""
