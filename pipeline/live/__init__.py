"""What people see while it happens: the ledger becomes a page that changes by itself.

door     a request from somewhere → let in, or refused
board    the ledger → all that the page shows, as plain values
feed     the ledger's changes → events for everyone who looks
files    a picture's row in the ledger → its file, or its thumbnail
orders   a button pressed → the job's queue changed, and a sentence about what comes next
server   sockets → the page, its events, its pictures, its buttons
"""
