"""Checks of a node before the first call: its versions, variables and addresses, and that it shares the images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Provider

_NONCE_FILE = ".image-batch-pipeline-workers"


def question_file(folder: Path, nonce: str) -> Path:
    """Return the file that the run writes into the folder of the images, with the nonce in it."""
    return folder / f"{_NONCE_FILE}-{nonce}"


def answer_file(folder: Path, nonce: str, node_id: str) -> Path:
    """Return the file that a node writes beside it, with the nonce and its own name in it."""
    return folder / f"{_NONCE_FILE}-{nonce}-{node_id[:16]}"


def find_hindrances(node_id: str, providers: Sequence[Provider], folder: Path | None, nonce: str) -> list[str]:
    """Return what hinders work on this node: variables of these providers, and the folder that all nodes share."""
    found = []
    for provider in providers:
        try:
            provider.key(os.environ)
            provider.header_values(os.environ)
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


def find_difference(own: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """Return in what the versions of a node differ from the run's; None if they do not."""
    names = {"program": "image-batch-pipeline", "python": "Python", "ray": "Ray"}
    differences = [
        f"{name} {facts[key] or '(none)'} in place of {own[key]}"
        for key, name in names.items()
        if facts[key] != own[key]
    ]
    return f"has {', '.join(differences)}" if differences else None


def find_unreachable(own: Mapping[str, Any], facts: Mapping[str, Any], providers: Sequence[Provider]) -> list[str]:
    """Return which providers a node on another machine than the run's cannot reach."""
    if facts["machine"] == own["machine"]:
        return []
    return [
        f"is another machine, and cannot reach provider `{provider.name}`, which is on this one only"
        f" ({'the sandbox' if provider.base_url is None else provider.base_url}):"
        " use an address that all nodes can reach"
        for provider in providers
        if provider.is_loopback
    ]
