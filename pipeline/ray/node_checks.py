"""Checks on a node before the first call: its environment variables, and that it shares the folder of the images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.config.load import Provider
    from pipeline.ray.messages import Work

_NONCE_FILE = ".image-batch-pipeline-workers"


def question_file(folder: Path, nonce: str) -> Path:
    """Return the file that the run writes into the folder of the images, with the nonce in it."""
    return folder / f"{_NONCE_FILE}-{nonce}"


def answer_file(folder: Path, nonce: str, node_id: str) -> Path:
    """Return the file that a node writes beside it, with the nonce and its own name in it."""
    return folder / f"{_NONCE_FILE}-{nonce}-{node_id[:16]}"


def find_hindrances(
    node_id: str, providers: Sequence[Provider], work: Work, folder: Path | None, nonce: str
) -> list[str]:
    """Return what hinders work on this node; `folder` is what all nodes must share, None for an object store."""
    found = []
    environment = {**os.environ, **work.secrets}
    for provider in providers:
        try:
            provider.key(environment)
            provider.header_values(environment)
        except ConfigError as error:
            found.append(str(error))
    if folder is not None and not _is_shared(folder, nonce, node_id):
        found.append(
            f"{folder} is not the folder that the run writes to: put `images` into a folder that all nodes share, or"
            " into an object store, as in `images: s3://bucket/nights`"
        )
    return found


def _is_shared(folder: Path, nonce: str, node_id: str) -> bool:
    """Read the nonce of the run, and write it back under the name of this node."""
    try:
        if question_file(folder, nonce).read_text() != nonce:
            return False
        answer_file(folder, nonce, node_id).write_text(f"{nonce} {node_id}")
    except OSError:
        return False
    return True
