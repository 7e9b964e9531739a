"""Generate images in bulk through the OpenAI Images API and compatible servers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.batch import Batch
    from pipeline.errors import BadInput, FolderBusy, GiveUp, PipelineError, RequestError, Stop, TryAgain
    from pipeline.exports.kinds import ExportOptions
    from pipeline.planning.build import JobOptions
    from pipeline.planning.python_job import make_job
    from pipeline.result import ImageFile, Outcome, Result

__all__ = [
    "BadInput",
    "Batch",
    "ExportOptions",
    "FolderBusy",
    "GiveUp",
    "ImageFile",
    "JobOptions",
    "Outcome",
    "PipelineError",
    "RequestError",
    "Result",
    "Stop",
    "TryAgain",
    "make_job",
]

_MODULES = {
    "pipeline.batch": ("Batch",),
    "pipeline.errors": ("BadInput", "FolderBusy", "GiveUp", "PipelineError", "RequestError", "Stop", "TryAgain"),
    "pipeline.exports.kinds": ("ExportOptions",),
    "pipeline.planning.build": ("JobOptions",),
    "pipeline.planning.python_job": ("make_job",),
    "pipeline.result": ("ImageFile", "Outcome", "Result"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `pipeline --help` starts fast."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, too, which a notebook completes."""
    return sorted({*globals(), *__all__})
