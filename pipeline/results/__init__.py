"""What people take away: the ledger becomes a manifest, a standing, an outlook, a verification.

outlook        a plan and the ledger → what a job would do, for `plan`
standing       the ledger → how far each job is, for `status`
manifest       the ledger → `manifest.jsonl`
failures       the ledger → why requests failed, by cause, and what to do about it
outcome        the ledger → what became of each request, as objects for Python
previews       a plan's input pictures → PNGs with the mask drawn over them
verification   the ledger and the disk → which images are not as recorded
"""
