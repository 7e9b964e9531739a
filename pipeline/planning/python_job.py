"""Make a job from Python values instead of a job file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.config.yaml_document import Document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.planning.job import Job


def make_job(
    name: str,
    requests: Sequence[Mapping[str, Any]],
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
    value: dict[str, Any] = {"name": name, **{key: item for key, item in given.items() if item is not None}}
    value["requests"] = [_with_sources(request) for request in requests]
    return parse_job(Document(f"job `{name}`", value, {(): 0}), folder=folder)


def _with_sources(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Read images in memory now, since a stream can be read only once. Raises ImageError."""
    return {key: _source(item) if key in {"image", "mask"} else item for key, item in fields.items()}


def _source(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_source(item) for item in value]
    if isinstance(value, dict):
        return {key: _source(item) if key == "image" else item for key, item in value.items()}
    from pipeline.images.source import ImageSource

    return ImageSource.of(value)
