"""Decode the image references of a JSON edit into file parts."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, TypeAlias

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.request_body import MAX_DATA_URL, MAX_IMAGES, FilePart
from pipeline.sandbox.rules.fields import json_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.sandbox.request_body import RequestBody

ReadFile: TypeAlias = "Callable[[str], tuple[bytes, str | None]]"
"""Returns the bytes and the content type of an uploaded file by its id, or raises LookupError."""


def decode_references(body: RequestBody, read_file: ReadFile) -> tuple[FilePart, ...]:
    """Return the files in the references: uploaded ones, and data URLs, since the sandbox makes no requests.

    Raises ApiError.
    """
    images = body.fields.get("images")
    if images is None:
        return ()
    if not isinstance(images, list):
        raise errors.invalid_type("images", "an array of objects", json_type(images))
    if not images:
        message = (
            "Invalid 'images': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        raise errors.unsupported(message, "images", "empty_array")
    if len(images) > MAX_IMAGES:
        return tuple(FilePart("image", b"", None) for _ in images)  # counted and refused by the caller
    parts = [_reference(f"images[{number}]", "image", reference, read_file) for number, reference in enumerate(images)]
    mask = body.fields.get("mask")
    return (*parts, *([] if mask is None else [_reference("mask", "mask", mask, read_file)]))


def _reference(name: str, field: str, reference: object, read_file: ReadFile) -> FilePart:
    if not isinstance(reference, dict):
        raise errors.invalid_type(name, "an object", json_type(reference))
    for key in reference.keys() - {"image_url", "file_id"}:
        raise errors.unknown_parameter(f"{name}.{key[:100]}")
    if len(reference) != 1:
        message = f"Invalid '{name}': provide exactly one of 'image_url' or 'file_id'."
        raise errors.unsupported(message, name)
    key, value = next(iter(reference.items()))
    if not isinstance(value, str):
        raise errors.invalid_type(f"{name}.{key}", "a string", json_type(value))
    if key == "file_id":
        try:
            return FilePart(field, *read_file(value))
        except LookupError as error:
            sentence = f"No such File object: {value[:100]}"
            raise errors.unsupported(sentence, f"{name}.file_id", "file_not_found") from error
    return _data_url(f"{name}.image_url", field, value)


def _data_url(name: str, field: str, url: str) -> FilePart:
    head, comma, data = url.partition(",")
    mime, _, encoding = head.removeprefix("data:").rpartition(";")
    if not head.startswith("data:") or not comma or encoding != "base64":
        message = f"Invalid '{name}': the sandbox downloads nothing; expected a base64-encoded data URL."
        raise errors.unsupported(message, name, "invalid_image_url")
    if len(url) > MAX_DATA_URL:
        raise errors.unsupported(f"Invalid '{name}': string too long.", name, "string_above_max_length")
    try:
        return FilePart(field, base64.b64decode(data, validate=True), mime)
    except (binascii.Error, ValueError) as error:
        message = f"Invalid '{name}': the data URL is not valid base64."
        raise errors.unsupported(message, name, "invalid_base64") from error
