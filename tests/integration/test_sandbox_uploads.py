"""Validation of uploaded images for each model."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

import pytest
from PIL import Image

from pipeline.sandbox.api_errors import ApiError
from pipeline.sandbox.request_body import MAX_DATA_URL, MIB, FilePart, RequestBody
from pipeline.sandbox.rules.uploads import Uploads, decode_uploads
from pipeline.sandbox.rules.validate import validate_call
from tests.support.sandbox_client import hole, png

BIG = png() + b"\0" * (4 * MIB)
NO_FILES: Any = {}.__getitem__


def part(field: str, content: bytes, mime: str | None = "image/png") -> FilePart:
    return FilePart(field, content, mime)


def read(operation: Any, model: str, *files: FilePart) -> Uploads:
    fields: dict[str, object] = {"model": model, **({} if operation == "variation" else {"prompt": "x"})}
    form = RequestBody("multipart", fields, files)
    return decode_uploads(validate_call(operation, form), form, NO_FILES)


def api_error(operation: Any, model: str, *files: FilePart) -> dict[str, Any]:
    with pytest.raises(ApiError) as caught:
        read(operation, model, *files)
    assert caught.value.status == 400
    return caught.value.error


def test_a_valid_upload_has_its_hash_and_dimensions() -> None:
    uploads = read("edit", "dall-e-2", part("image", png()), part("mask", hole()))
    assert uploads.images[0].sha256 == hashlib.sha256(png()).hexdigest()
    assert (uploads.images[0].width, uploads.images[0].mode) == (64, "RGBA")
    assert uploads.mask
    assert uploads.mask.has_alpha


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L"])
def test_dall_e_2_edits_images_of_these_modes(mode: str) -> None:
    assert read("edit", "dall-e-2", part("image", png(mode), None)).images[0].mode == mode


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([part("image", png("RGB"))], "must be in ['RGBA', 'LA', 'L'], got RGB."),
        ([part("image", png("RGB")), part("mask", hole())], "must be in ['RGBA', 'LA', 'L'], got RGB."),
        ([part("image", png(size=(64, 32)))], "must be square"),
        ([part("image", png("RGB", kind="JPEG"))], "must be a PNG and less than 4 MB"),
        ([part("image", BIG)], "must be a PNG and less than 4 MB"),
        ([part("image", png()[:60])], "could not be decoded"),
        ([part("image", b"not a picture")], "could not be decoded"),
        ([part("image", b"")], "could not be decoded"),
        ([part("image", png()), part("mask", png("RGB"))], "missing alpha channel"),
        ([part("image", png()), part("mask", hole((32, 32)))], "mask size must match"),
        ([part("image", png()), part("mask", BIG)], "mask must be a PNG and less than 4 MB"),
        ([part("image", png()), part("mask", png(kind="WEBP"))], "mask must be a PNG"),
    ],
)
def test_dall_e_2_refuses_invalid_uploads(files: list[FilePart], words: str) -> None:
    error = api_error("edit", "dall-e-2", *files)
    assert words in error["message"]
    assert error["code"] == "invalid_image"


def test_dall_e_2_accepts_one_image_and_one_mask() -> None:
    assert api_error("edit", "dall-e-2", part("image", png()), part("image", png()))["code"] == "array_above_max_length"
    twice = [part("image", png()), part("mask", hole()), part("mask", hole())]
    assert api_error("edit", "dall-e-2", *twice)["code"] == "duplicate_parameter"
    assert api_error("edit", "dall-e-2")["code"] == "missing_required_parameter"


def test_a_variation_accepts_a_square_png_of_any_mode() -> None:
    assert read("variation", "dall-e-2", part("image", png("RGB"), None)).images[0].mode == "RGB"
    assert "square" in api_error("variation", "dall-e-2", part("image", png(size=(32, 64))))["message"]


@pytest.mark.parametrize(
    ("mime", "code"),
    [
        (None, "missing_file_mimetype"),
        ("application/octet-stream", "unsupported_file_mimetype"),
        ("text/plain", "unsupported_file_mimetype"),
        ("image/gif", "unsupported_file_mimetype"),
    ],
)
def test_an_untyped_file_part_is_refused_for_gpt_image_models_only(mime: str | None, code: str) -> None:
    assert api_error("edit", "gpt-image-1", part("image", png(), mime))["code"] == code
    assert len(read("edit", "dall-e-2", part("image", png(), mime)).images) == 1


def test_gpt_image_models_accept_up_to_sixteen_images_of_any_shape() -> None:
    images = [part("image[]", png("RGB", (40, 20)))] * 16
    assert len(read("edit", "gpt-image-2", *images).images) == 16
    assert api_error("edit", "gpt-image-2", *images, images[0])["code"] == "array_above_max_length"


def turned(kind: str = "JPEG") -> bytes:
    """An image of 64 x 32 pixels that is displayed as 32 x 64."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32)).save(file, kind, exif=exif)
    return file.getvalue()


def test_markup_is_a_transparent_png_of_the_first_images_displayed_size() -> None:
    for model in ("gpt-image-2.5-sunburst", "gpt-image-2.6-flare"):
        assert read("edit", model, part("image", png()), part("markup", hole())).markup
    sideways = part("image", turned(), "image/jpeg")
    uploads = read("edit", "gpt-image-2.6-flare", sideways, part("markup", hole((32, 64))))
    assert len(uploads.all) == 2
    assert (
        "must match the image size"
        in api_error("edit", "gpt-image-2.6-flare", sideways, part("markup", hole((64, 32))))["message"]
    )


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([part("markup", png())], "invalid_image"),
        ([part("markup", png(kind="WEBP", colour="#ffffff00"))], "invalid_image"),
        ([part("markup", hole((32, 32)))], "invalid_image"),
        ([part("markup", hole(), None)], "missing_file_mimetype"),
        ([part("markup", hole()), part("mask", hole())], "invalid_value"),
        ([part("markup", hole()), part("markup", hole())], "duplicate_parameter"),
    ],
)
def test_invalid_markup_is_refused(files: list[FilePart], code: str) -> None:
    assert api_error("edit", "gpt-image-2.6-flare", part("image", png()), *files)["code"] == code


def test_older_models_refuse_markup() -> None:
    for model in ("gpt-image-2", "dall-e-2"):
        error = api_error("edit", model, part("image", png()), part("markup", hole()))
        assert (error["code"], error["param"]) == ("unknown_parameter", "markup")


def test_an_animation_refuses_a_mask() -> None:
    files = (part("image", png()), part("mask", hole()))
    form = RequestBody("multipart", {"prompt": "x", "model": "gpt-image-2.6-flare", "output_format": "gif"}, files)
    with pytest.raises(ApiError) as caught:
        decode_uploads(validate_call("edit", form), form, NO_FILES)
    assert caught.value.error["param"] == "mask"


def test_a_decompression_bomb_is_refused_before_decoding() -> None:
    bomb = bytearray(png())
    bomb[16:24] = (20000).to_bytes(4) + (20000).to_bytes(4)
    assert api_error("edit", "gpt-image-2", part("image", bytes(bomb)))["code"] == "invalid_image"


@pytest.mark.parametrize(
    ("images", "code"),
    [
        (None, "missing_required_parameter"),
        ([], "empty_array"),
        ("x", "invalid_type"),
        (["x"], "invalid_type"),
        ([{}], "invalid_value"),
        ([{"image_url": "x", "file_id": "y"}], "invalid_value"),
        ([{"image_url": 5}], "invalid_type"),
        ([{"url": "x"}], "unknown_parameter"),
        ([{"file_id": "file-1"}], "file_not_found"),
        ([{"image_url": "https://example.com/a.png"}], "invalid_image_url"),
        ([{"image_url": "data:image/png;base64,%%%"}], "invalid_base64"),
        ([{"image_url": "data:image/png;base64,AAAA"}], "invalid_image"),
        ([{"image_url": f"data:text/html;base64,{base64.b64encode(png()).decode()}"}], "unsupported_file_mimetype"),
        ([{"image_url": f"data:image/png;base64,{'A' * MAX_DATA_URL}"}], "string_above_max_length"),
        ([{}] * 17, "array_above_max_length"),
    ],
)
def test_a_json_edit_refuses_invalid_references(images: object, code: str) -> None:
    form = RequestBody("json", {"prompt": "x", "images": images})
    with pytest.raises(ApiError) as caught:
        decode_uploads(validate_call("edit", form), form, NO_FILES)
    assert caught.value.error["code"] == code
