"""Writes `croissant.json` beside an imagefolder: its description in the Croissant format of MLCommons."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipeline.exports.imagefolder import IMAGES, METADATA
from pipeline.files import write_whole
from pipeline.storage import media_type

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.exports.listing import Listing

FILE_NAME = "croissant.json"

_DECODED = {"png", "jpeg"}
_DECODED_BESIDE = {"webp", "gif", "bmp"}
"""Formats that mlcroissant decodes, and those that it decodes if one of the former is beside them; with others among
them, records have the names of the images and no pixels.
"""

_RECORDS = "images"
_FILES = "image-files"

_DESCRIPTIONS = {
    "file_name": "The image's file, relative to this description.",
    "prompt": "The prompt of the request that made the image.",
    "sha256": "The SHA-256 of the file.",
    "request_id": "The id that the service gave to the call.",
    "model": "The model that made the image.",
    "id": "The id of the request in its job.",
    "custom_id": "The id of the request in the batch file that it comes from.",
}


def write_croissant(target: Path, listing: Listing) -> None:
    """Write the description of the imagefolder at `target`. Raises OSError."""
    import mlcroissant as mlc

    with (target / METADATA).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    formats = sorted(media_type(kind) for kind in listing.formats)
    table = mlc.FileObject(
        id=METADATA,
        name=METADATA,
        content_url=METADATA,
        encoding_formats=["application/jsonlines"],
        sha256=sha256,
    )
    images = mlc.FileSet(id=_FILES, name=_FILES, encoding_formats=formats, includes=[f"{IMAGES}/*"])
    metadata = mlc.Metadata(
        name=listing.job,
        description=f"{listing.images:,} images of the job {listing.job}, with their prompts and variables.",
        distribution=[table, images],
        record_sets=[mlc.RecordSet(id=_RECORDS, name=_RECORDS, fields=_fields(mlc, listing))],
    )
    text = json.dumps(metadata.to_json(), ensure_ascii=False, indent=2)
    write_whole(target / FILE_NAME, text.encode("utf-8", "replace") + b"\n")


def _fields(mlc: Any, listing: Listing) -> list[Any]:
    """Return the fields of a record: the columns of the metadata, the variables, and the image if it can be decoded."""
    columns = [name for name in _DESCRIPTIONS if name != "custom_id" or listing.has(name)]
    fields = [_field(mlc, name, mlc.DataType.TEXT, _column(mlc, name), _DESCRIPTIONS[name]) for name in columns]
    if listing.formats & _DECODED and listing.formats <= _DECODED | _DECODED_BESIDE:
        fields[0].source = _file(mlc, mlc.FileProperty.fullpath, transforms=[mlc.Transform(regex="(.*)")])  # as a text
        fields[0].references = _column(mlc, "file_name")
        source = _file(mlc, mlc.FileProperty.content)
        fields.append(_field(mlc, "image", mlc.DataType.IMAGE_OBJECT, source, "The image."))
    types = listing.variables.types()
    if types:
        field = mlc.Field(id=f"{_RECORDS}/variables", name=f"{_RECORDS}/variables")
        field.description = "The variables of the request."
        field.sub_fields = [_variable(mlc, name, kind) for name, kind in types.items()]
        fields.append(field)
    return fields


def _variable(mlc: Any, name: str, kind: str) -> Any:
    types = {"boolean": mlc.DataType.BOOL, "integer": mlc.DataType.INTEGER, "number": mlc.DataType.FLOAT}
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    source = _column(mlc, "variables", transforms=[mlc.Transform(json_path=f"'{quoted}'")])
    return _field(mlc, f"variables/{quote(name, safe='')}", types.get(kind, mlc.DataType.TEXT), source, name)


def _field(mlc: Any, name: str, data_type: Any, source: Any, description: str) -> Any:
    name = f"{_RECORDS}/{name}"
    return mlc.Field(id=name, name=name, description=description, data_types=[data_type], source=source)


def _column(mlc: Any, name: str, **more: Any) -> Any:
    return mlc.Source(file_object=METADATA, extract=mlc.Extract(column=name), **more)


def _file(mlc: Any, what: Any, **more: Any) -> Any:
    return mlc.Source(file_set=_FILES, extract=mlc.Extract(file_property=what), **more)
