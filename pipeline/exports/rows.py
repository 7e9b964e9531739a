"""What an export says of an image: its row in a table, and everything that the manifest has of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.exports.listing import ListedRequest
    from pipeline.exports.originals import Originals
    from pipeline.storage import StoredImage

COLUMNS = ("file_name", "prompt", "variables", "sha256", "request_id", "model", "id")


def row(request: ListedRequest, image: StoredImage, file_name: str, variables: Any) -> dict[str, Any]:
    """Return the columns of an image; `custom_id` is one if the request has it."""
    entry = request.entry
    columns = {
        "file_name": file_name,
        "prompt": entry["prompt"],
        "variables": variables,
        "sha256": image.sha256,
        "request_id": entry["request_id"],
        "model": entry["params"].get("model"),
        "id": entry["id"],
    }
    return columns if entry.get("custom_id") is None else {**columns, "custom_id": entry["custom_id"]}


def description(request: ListedRequest, image: StoredImage, file_name: str) -> dict[str, Any]:
    """Return everything that the manifest has of an image and its request, for a file beside it."""
    entry = request.entry
    more = {name: entry[name] for name in ("job", "key", "operation", "provider", "endpoint", "params", "settings")}
    return {**row(request, image, file_name, entry["variables"]), **more, **_image_fields(image)}


def _image_fields(image: StoredImage) -> dict[str, Any]:
    names = ("bytes", "width", "height", "format", "revised_prompt", "remark")
    return {name: getattr(image, name) for name in names}


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def plain_name(image: StoredImage) -> str:
    """Return the name of an image's file without its folder."""
    return image.file.rpartition("/")[2]


def reference(originals: Originals, image: StoredImage, folder: Path) -> str:
    """Return where an image is: its path relative to a folder, or its address in an object store."""
    import os

    local = originals.stores.local(image)
    name = originals.name(image)
    if local is None:
        return f"{image.root}/{name}"
    return os.path.relpath(local.local_path(name).resolve(), folder.resolve()).replace(os.sep, "/")
