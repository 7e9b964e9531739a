"""What people take away: the ledger becomes a manifest, a report, a standing, an outlook, a verification.

outlook        a plan and the ledger → what a job would do, for `plan`
standing       the ledger → how far each job is, for `status`
manifest       the ledger → `manifest.jsonl`
causes         failed requests → what the service said, how often, and what helps
failures       the ledger → why requests failed, by cause, and what to do about it
outcome        the ledger → what became of each request, as objects for Python
commands       a config and a job → the line that a person types to go on
gallery        the ledger → what the report shows of a job
report         the gallery and `pages/` → `report.html`
thumbnails     pictures on disk → small ones beside the report
sheet          the ledger and the thumbnails → a contact sheet to print or to send
previews       a plan's input pictures → PNGs with the mask drawn over them
verification   the ledger and the disk → which images are not as recorded
"""
