"""Make a job from Python values instead of a job file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pipeline.config.yaml_document import Document

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.planning.job import Job


def make_job(
    name: str,
    requests: Iterable[Mapping[str, Any]],
    *,
    defaults: Mapping[str, Any] | None = None,
    provider: str | None = None,
    budget_usd: float | None = None,
    mode: str | None = None,
    deadline: str | None = None,
    folder: Path | None = None,
) -> Job:
    """Make a job in Python; `requests` and `defaults` have the keys and values of a job file.

    An image may be a path, bytes, a binary stream or a Pillow image. Paths are relative to `folder`, else to the
    current folder. Mistakes are reported when the job is submitted or run. Raises ImageError.
    """
    from pipeline.planning.job import parse_job

    given = {
        "defaults": defaults and _with_sources(defaults),
        "provider": provider,
        "budget_usd": budget_usd,
        "mode": mode,
        "deadline": deadline,
    }
    value: dict[str, Any] = {"name": name, **{key: _plain(item) for key, item in given.items() if item is not None}}
    is_list = not isinstance(requests, str | Mapping) and isinstance(requests, Iterable)
    value["requests"] = [_with_sources(request) for request in requests] if is_list else requests
    return parse_job(Document(f"job `{name}`", value, {(): 0}), folder=folder)


def _with_sources(fields: Any) -> Any:
    """Read images in memory now, since a stream can be read only once. Raises ImageError."""
    if not isinstance(fields, Mapping):
        return fields  # a mistake that the job reports
    return {str(key): _source(item) if key in {"image", "mask"} else _plain(item) for key, item in fields.items()}


def _plain(value: Any) -> Any:
    """Return a value as a job file would hold it: tuples are lists, paths are text, decimals are numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Decimal):
        return float(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _source(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_source(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _source(item) if key == "image" else _plain(item) for key, item in value.items()}
    from pipeline.images.source import ImageSource

    return ImageSource.of(value)
