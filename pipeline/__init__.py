"""Makes pictures in bulk through the OpenAI Images API and the servers that speak it.

In the order of the data:

cli         the commands: prints and sets exit codes, nothing else
options     what stands before or after a command
closing     how a run ended → what people read last: what failed and why, what is left, what to type
planning    job files, jobs made in Python, and the config → plans: all of them, or none
batch       one output folder at work: submit, run, resume, and whatever else is done to it
running     the queue → its end: one run, with what stands around the engine
result      how a run ended, for Python and for the command line
showing     a job of the ledger → its report with thumbnails, and its contact sheet
holding     one output folder: its ledger opened, and the folder held by one run at a time
rehearsal   a provider that is a sandbox → a process of its own and its address
bell        a run's events and its end → notices, for those whom `notify:` names
courier     a notice → a webhook's POST, or a command's stdin
notice      a run's end, stop or long pause → words for people, facts for scripts
config      config.yaml and the environment → a frozen `Config`
notify      `notify:` of config.yaml → who is told when a run ends, stops, or pauses for long
provider    one entry of `providers:` → a `Provider`: where a server is, and how hard it may be asked
dialect     how a server's Images API deviates from OpenAI's: its header, query, fields, paths, pictures
section     one mapping of a YAML document → checked values
document    YAML text → plain values, each with the line it stands on
nodes       YAML text → nodes, no larger and no deeper than the program can hold
spec        what should exist: a job file becomes requests
engine      how it comes to exist: a request becomes files
results     what people take away: the ledger becomes a manifest and a report
live        what people see while it happens: the ledger becomes a page that changes by itself
progress    how a run is watched: on a terminal, in plain lines, in JSON, in a log
sandbox     an Images API on loopback, to rehearse on; it imports nothing of the rest
picture     bytes → a whole picture with its kind and size, or refused
png         a PNG → its size, where all of its pixels inflate as they must
framing     bytes → their kind, and whether their frame is closed
svg         an SVG → harmless or refused, and its size
files       a file written whole or not at all
errors      the tree of errors: the class of an error is its fate
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.batch import Batch
    from pipeline.errors import BadInput, FolderBusy, PipelineError, RequestError
    from pipeline.planning import JobOptions, make_job
    from pipeline.result import Result
    from pipeline.results.outcome import ImageFile, Outcome

__all__ = [
    "BadInput",
    "Batch",
    "FolderBusy",
    "ImageFile",
    "JobOptions",
    "Outcome",
    "PipelineError",
    "RequestError",
    "Result",
    "make_job",
]

_HOMES = {
    "pipeline.batch": ("Batch",),
    "pipeline.errors": ("BadInput", "FolderBusy", "PipelineError", "RequestError"),
    "pipeline.planning": ("JobOptions", "make_job"),
    "pipeline.result": ("Result",),
    "pipeline.results.outcome": ("ImageFile", "Outcome"),
}


def __getattr__(name: str) -> Any:
    """Import what is handed out only when it is asked for, so that `pipeline --help` starts fast."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
