"""Kinds of exports, their options, and what both need: checked before anything is read."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KINDS = ("imagefolder", "webdataset", "parquet", "csv", "croissant", "batch", "sidecar")

_FITTING: Mapping[str, tuple[str, ...]] = {
    "link": ("imagefolder", "croissant"),
    "embed": ("parquet",),
    "no_images": ("batch",),
}
"""The kinds that each option is for."""

_EXTRAS = {"parquet": ("pyarrow", "parquet"), "croissant": ("mlcroissant", "croissant")}
"""The library that a kind needs, and the extra of this program that brings it."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of an export. `picks` is a file that the report has saved; `force` replaces an earlier export."""

    link: bool = False
    embed: bool = False
    no_images: bool = False
    picks: Path | None = None
    force: bool = False


def check_kind(kind: str, options: ExportOptions) -> None:
    """Check that there is such a kind, that the options are for it, and that its library is installed.

    Raises ConfigError.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no export of the kind `{kind}`: write one of {', '.join(KINDS)}")
    for option, kinds in _FITTING.items():
        if getattr(options, option) and kind not in kinds:
            word = f"--{option.replace('_', '-')}"
            raise ConfigError(f"{word} is for {' and '.join(kinds)}, not for {kind}; leave it out")
    library, extra = _EXTRAS.get(kind, (None, None))
    if library is not None and importlib.util.find_spec(library) is None:
        install = f'pip install "image-batch-pipeline[{extra}]"'
        raise ConfigError(f"the export to {kind} needs {library}, which is not installed: {install}")
