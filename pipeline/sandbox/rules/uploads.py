"""File parts become decoded, checked pictures.

The limits are those of the endpoint's description: dall-e-2 takes one square PNG under 4 MB, GPT Image models take up
to sixteen PNG, WebP or JPEG files under 50 MB each; a mask is a PNG under 4 MB of the first picture's dimensions.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image

from pipeline.sandbox.request_body import MAX_DATA_URL, MAX_FILE_BYTES, MAX_IMAGES, MIB, FilePart, Form
from pipeline.sandbox.rules import errors
from pipeline.sandbox.rules.fields import json_type

if TYPE_CHECKING:
    from pipeline.sandbox.rules.validate import ImageCall

SMALL_FILE_BYTES: Final = 4 * MIB
MOST_PIXELS: Final = 50_000_000
KINDS: Final = {"PNG": "png", "JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp"}
MIME_TYPES: Final = ("image/jpeg", "image/png", "image/webp")
DALL_E_MODES: Final = ("RGBA", "LA", "L")
ORIENTATION: Final = 0x0112  # EXIF tag
TRANSPOSED: Final = (5, 6, 7, 8)
NOT_A_PICTURE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    EOFError,
    TypeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,  # Pillow's DecompressionBombWarning, where warnings are errors
)
"""What Pillow raises for bytes that are no whole picture."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that came whole: its bytes, their SHA-256, and what Pillow found in them."""

    content: bytes
    sha256: str
    kind: str
    mode: str
    width: int
    height: int
    has_alpha: bool


@dataclass(frozen=True, slots=True)
class Uploads:
    """The pictures of an edit or a variation, the first one the one that is masked."""

    images: tuple[Upload, ...]
    mask: Upload | None
    markup: Upload | None = None

    @property
    def all(self) -> tuple[Upload, ...]:
        """Every picture that came."""
        return (*self.images, *(extra for extra in (self.mask, self.markup) if extra))


def read_uploads(call: ImageCall, form: Form) -> Uploads:
    """Decode and check the pictures of a call; takes as long as Pillow takes. Raises ApiError."""
    files = _references(form) if form.encoding == "json" else form.files
    images = [part for part in files if part.field.startswith("image")]
    masks = [part for part in files if part.field == "mask"]
    if not images:
        raise errors.missing_parameter("images" if form.encoding == "json" else "image")
    most = MAX_IMAGES if call.family.is_gpt else 1
    if len(images) > most:
        sentence = (
            f"Invalid 'image': array too long. Expected an array with maximum length {most}, but got {len(images)}."
        )
        raise errors.unsupported(sentence, "image", "array_above_max_length")
    markups = [part for part in files if part.field == "markup"]
    for parts in (masks, markups):
        if len(parts) > 1:
            raise errors.duplicate_parameter(parts[0].field)
    _refuse_overlays(call, masked=bool(masks), marked=bool(markups))
    uploads = tuple(_checked_image(call, part) for part in images)
    return Uploads(
        uploads,
        _checked_mask(call, masks[0], uploads[0]) if masks else None,
        _checked_markup(markups[0], uploads[0]) if markups else None,
    )


def _refuse_overlays(call: ImageCall, *, masked: bool, marked: bool) -> None:
    if masked and marked:
        raise errors.unsupported("'markup' cannot be combined with 'mask'.", "markup")
    if masked and call.output_format == "gif":
        raise errors.unsupported("'mask' is not supported for GIF output format.", "mask")


def _checked_image(call: ImageCall, part: FilePart) -> Upload:
    if call.family.is_gpt:
        _refuse_mime_type(part)
        return _decode(part, MAX_FILE_BYTES)
    if len(part.content) >= SMALL_FILE_BYTES:
        raise _invalid("Uploaded image must be a PNG and less than 4 MB.", part.field)
    upload = _decode(part, SMALL_FILE_BYTES)
    if upload.kind != "png":
        raise _invalid("Uploaded image must be a PNG and less than 4 MB.", part.field)
    if upload.width != upload.height:
        raise _invalid(f"Uploaded image must be square, got {upload.width}x{upload.height}.", part.field)
    if call.operation == "edit" and upload.mode not in DALL_E_MODES:
        # go-openai #188: an RGB file is refused, with or without a mask beside it.
        modes = f"format must be in {list(DALL_E_MODES)}, got {upload.mode}."
        raise _invalid(f"Invalid input image - {modes}", part.field)
    return upload


def _checked_mask(call: ImageCall, part: FilePart, image: Upload) -> Upload:
    if call.family.is_gpt:
        _refuse_mime_type(part)
    if len(part.content) >= SMALL_FILE_BYTES:
        raise _invalid("Uploaded mask must be a PNG and less than 4 MB.", "mask")
    mask = _decode(part, SMALL_FILE_BYTES)
    if mask.kind != "png":
        raise _invalid("Uploaded mask must be a PNG and less than 4 MB.", "mask")
    if not mask.has_alpha:
        raise _invalid("Invalid mask image format - mask image missing alpha channel.", "mask")
    if (mask.width, mask.height) != (image.width, image.height):
        sizes = f"got mask {mask.width}x{mask.height}, image {image.width}x{image.height}."
        raise _invalid(f"Invalid mask image - mask size must match the image size, {sizes}", "mask")
    return mask


def _checked_markup(part: FilePart, image: Upload) -> Upload:
    """Check the overlay of an edit: a PNG with transparent pixels, of the first picture's size as it is looked at."""
    _refuse_mime_type(part)
    markup = _decode(part, MAX_FILE_BYTES)
    with Image.open(io.BytesIO(markup.content)) as picture:
        if markup.kind != "png" or picture.convert("RGBA").getchannel("A").getextrema()[0] == 255:
            raise _invalid("Uploaded markup must be a PNG with transparent pixels.", "markup")
    width, height = _upright_size(image)
    if (markup.width, markup.height) != (width, height):
        sizes = f"got markup {markup.width}x{markup.height}, image {width}x{height}."
        raise _invalid(f"Invalid markup image - markup size must match the image size, {sizes}", "markup")
    return markup


def _upright_size(upload: Upload) -> tuple[int, int]:
    with Image.open(io.BytesIO(upload.content)) as picture:
        try:
            turned = picture.getexif().get(ORIENTATION) in TRANSPOSED
        except NOT_A_PICTURE:  # broken metadata of a picture that is whole
            turned = False
    return (upload.height, upload.width) if turned else (upload.width, upload.height)


def _refuse_mime_type(part: FilePart) -> None:
    mime = None if part.content_type is None else part.content_type.partition(";")[0].strip().lower()
    if mime not in MIME_TYPES:
        # ComfyUI #9329, openai-node #1468: the bytes are not looked at, only what the part calls itself.
        supported = "Supported file formats are 'image/jpeg', 'image/png', and 'image/webp'."
        code = "missing_file_mimetype" if mime is None else "unsupported_file_mimetype"
        message = f"Invalid file '{part.field}': unsupported mimetype ('{mime or ''}'). {supported}"
        raise errors.unsupported(message[:400], part.field, code)


def _decode(part: FilePart, limit: int) -> Upload:
    if len(part.content) >= limit:
        raise _invalid(f"Uploaded image must be less than {limit // MIB} MB.", part.field)
    try:
        with Image.open(io.BytesIO(part.content), formats=("PNG", "JPEG", "WEBP")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise _invalid(f"Uploaded image must have at most {MOST_PIXELS:,} pixels.", part.field)
            kind = KINDS[picture.format or ""]
            picture.convert("RGBA")  # decodes the whole file, and refuses modes that nobody can draw on
            return Upload(
                part.content,
                hashlib.sha256(part.content).hexdigest(),
                kind,
                picture.mode,
                picture.width,
                picture.height,
                picture.has_transparency_data,
            )
    except NOT_A_PICTURE as error:
        raise _invalid("Invalid image file or mode: the file could not be decoded.", part.field) from error


def _references(form: Form) -> tuple[FilePart, ...]:
    """Turn the references of a JSON edit into file parts; data URLs only, since the sandbox calls nobody."""
    images = form.fields.get("images")
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
    parts = [_reference(f"images[{number}]", "image", reference) for number, reference in enumerate(images)]
    mask = form.fields.get("mask")
    return (*parts, *([] if mask is None else [_reference("mask", "mask", mask)]))


def _reference(name: str, field: str, reference: object) -> FilePart:
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
        raise errors.unsupported(f"No such File object: {value[:100]}", f"{name}.file_id", "file_not_found")
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


def _invalid(message: str, field: str) -> errors.ApiError:
    return errors.ApiError(message, code="invalid_image", param=field)
