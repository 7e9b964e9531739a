"""How a run is watched: events and the ledger become a view, and a view becomes lines, a screen, JSON or a log.

wording   an event → a line for people, or a line of JSON
log       events → `run.log`, rotated
view      how far every job and every provider is, when it ends, and what that is in words
tally     a run's events, and the ledger now and then → a view
pulse     the ledger alone → a view, for `status --watch`
plain     views → lines of text, said where something has changed
screen    a view → what stands on a terminal
display   a run → its terminal, live or in plain lines
watch     `status --watch`: a look at the ledger every few seconds
"""
