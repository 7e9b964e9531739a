"""How it comes to exist: a request becomes files.

ledger     the SQLite file that is queue, truth and receipt: opened, migrated, mended after a death
backup     the ledger → a checked copy of it beside
intake     plans → the ledger: queued, superseded, put back, cancelled
runner     a run: the lanes of all providers that requests wait for
lane       one provider at work: requests are taken as there is room, and each gets a worker
work       the queue → work: which requests come next, and what a worker needs of each
worker     one request from the queue to the record: the way that reads in one function
desk       what all workers of one provider share
retry      tenacity: which errors are tried again, how long after, and how often
gate       leave to call: outage, pause and limit are waited out, and a stop cuts every wait short
outage     a provider that has gone away: everyone waits, one call at a time probes
throttle   the images-per-minute limit: pace, window and pause
schedule   who may call next: the line, the window's log, and the head's reservation
budget     the wall that `budget_usd` is
body       a call → the body that is sent: JSON, or a form where pictures go along
api        one call over the wire, and what came of it
answer     an HTTP answer → the pictures in it, or the error whose class is its fate
fates      what an error says, and its status → the class that is its fate
envelope   an error body of any kind → message, type, code and param
stream     a stream of server-sent events → the one answer that it stands for
receive    an HTTP response → the bytes of its body, within a bound
hints      headers and messages → seconds to wait, and the limit that holds
address    a URL's host → on the open net or not, and through which proxy
fetch      a paid URL → its picture on disk, tried until it dies
download   URL → bytes, within size and life
filing     a request's pictures → numbered files, each checked and written in a thread
check      bytes → `CheckedImage`: decoded whole, or refused
store      `CheckedImage` → file, whole or not at all
journal    what a worker writes down on a request's way
threads    what takes the processor → a few threads, so that the event loop stays free
writer     many workers' writes → one transaction after another
accounts   the ledger → how far each job is, what it cost, what is missing
events     what happened, as small frozen values
shutdown   signals → stop, then cancel
"""
