"""How fast and how light the pipeline is, beside other programs that do the same work: `python -m tests.bench`.

In the order of the data:

pictures    seeded noise → PNGs of the sizes that the service's have
server      an Images API that costs nothing: answers that lie ready, in a process of its own
contenders  the same work, done by us and by others; each in a process of its own
queue       ledgers of ten thousand to a million requests, and how long the commands take on them
limits      a strict limit, and how much of it is used
table       what was measured → the table of the README
"""
