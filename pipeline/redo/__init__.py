"""Images that are made again on purpose: which ones, what they cost, and the run that makes them."""
