"""Check the uploaded images of an edit or variation against the model's limits.

The limits are those of the endpoint's description: dall-e-2 takes one square PNG under 4 MB, GPT Image models take up
to sixteen PNG, WebP or JPEG files under 50 MB each; a mask is a PNG under 4 MB of the first image's dimensions.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.request_body import MAX_FILE_BYTES, MAX_IMAGES, MIB, FilePart, RequestBody
from pipeline.sandbox.rules.image_files import Upload, decode, invalid_image, upright_size
from pipeline.sandbox.rules.references import decode_references

if TYPE_CHECKING:
    from pipeline.sandbox.rules.references import ReadFile
    from pipeline.sandbox.rules.validate import ImageCall

SMALL_FILE_BYTES: Final = 4 * MIB
MIME_TYPES: Final = ("image/jpeg", "image/png", "image/webp")
DALL_E_MODES: Final = ("RGBA", "LA", "L")


@dataclass(frozen=True, slots=True)
class Uploads:
    """The images of an edit or a variation; the mask is for the first one."""

    images: tuple[Upload, ...]
    mask: Upload | None
    markup: Upload | None = None

    @property
    def all(self) -> tuple[Upload, ...]:
        """All uploaded images."""
        return (*self.images, *(extra for extra in (self.mask, self.markup) if extra))


def decode_uploads(call: ImageCall, body: RequestBody, read_file: ReadFile) -> Uploads:
    """Decode and check the uploads of a call; takes as long as Pillow takes. Raises ApiError."""
    files = decode_references(body, read_file) if body.encoding == "json" else body.files
    images = [part for part in files if part.field.startswith("image")]
    masks = [part for part in files if part.field == "mask"]
    if not images:
        raise errors.missing_parameter("images" if body.encoding == "json" else "image")
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
        return decode(part, MAX_FILE_BYTES)
    if len(part.content) >= SMALL_FILE_BYTES:
        raise invalid_image("Uploaded image must be a PNG and less than 4 MB.", part.field)
    upload = decode(part, SMALL_FILE_BYTES)
    if upload.kind != "png":
        raise invalid_image("Uploaded image must be a PNG and less than 4 MB.", part.field)
    if upload.width != upload.height:
        raise invalid_image(f"Uploaded image must be square, got {upload.width}x{upload.height}.", part.field)
    if call.operation == "edit" and upload.mode not in DALL_E_MODES:
        # go-openai #188: an RGB file is refused, with or without a mask beside it.
        modes = f"format must be in {list(DALL_E_MODES)}, got {upload.mode}."
        raise invalid_image(f"Invalid input image - {modes}", part.field)
    return upload


def _checked_mask(call: ImageCall, part: FilePart, image: Upload) -> Upload:
    if call.family.is_gpt:
        _refuse_mime_type(part)
    if len(part.content) >= SMALL_FILE_BYTES:
        raise invalid_image("Uploaded mask must be a PNG and less than 4 MB.", "mask")
    mask = decode(part, SMALL_FILE_BYTES)
    if mask.kind != "png":
        raise invalid_image("Uploaded mask must be a PNG and less than 4 MB.", "mask")
    if not mask.has_alpha:
        raise invalid_image("Invalid mask image format - mask image missing alpha channel.", "mask")
    if (mask.width, mask.height) != (image.width, image.height):
        sizes = f"got mask {mask.width}x{mask.height}, image {image.width}x{image.height}."
        raise invalid_image(f"Invalid mask image - mask size must match the image size, {sizes}", "mask")
    return mask


def _checked_markup(part: FilePart, image: Upload) -> Upload:
    """Check the overlay of an edit: a PNG with transparent pixels, of the first image's upright size."""
    _refuse_mime_type(part)
    markup = decode(part, MAX_FILE_BYTES)
    with Image.open(io.BytesIO(markup.content)) as opened:
        if markup.kind != "png" or opened.convert("RGBA").getchannel("A").getextrema()[0] == 255:
            raise invalid_image("Uploaded markup must be a PNG with transparent pixels.", "markup")
    width, height = upright_size(image)
    if (markup.width, markup.height) != (width, height):
        sizes = f"got markup {markup.width}x{markup.height}, image {width}x{height}."
        raise invalid_image(f"Invalid markup image - markup size must match the image size, {sizes}", "markup")
    return markup


def _refuse_mime_type(part: FilePart) -> None:
    mime = None if part.content_type is None else part.content_type.partition(";")[0].strip().lower()
    if mime not in MIME_TYPES:
        # ComfyUI #9329, openai-node #1468: only the declared type counts, not the bytes.
        supported = "Supported file formats are 'image/jpeg', 'image/png', and 'image/webp'."
        code = "missing_file_mimetype" if mime is None else "unsupported_file_mimetype"
        message = f"Invalid file '{part.field}': unsupported mimetype ('{mime or ''}'). {supported}"
        raise errors.unsupported(message[:400], part.field, code)
