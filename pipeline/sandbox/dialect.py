"""Parse the mapping under `sandbox.dialect:`, the ways in which this server deviates from OpenAI's.

Each is one that a real server has (LocalAI, vLLM-Omni, SGLang, Xinference, xAI, Together, Azure, gateways); the
defaults are OpenAI's own behaviour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, get_args

from pipeline.sandbox.validation import boolean, choice, integer, mapping_of, refuse_unknown_keys, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.sandbox.rules.models import Operation

SizeStyle: TypeAlias = Literal["WxH", "W*H", "width_height", "aspect_ratio"]
BodyEncoding: TypeAlias = Literal["multipart", "json"]
ReferenceStyle: TypeAlias = Literal["image_url", "url", "data_url", "base64"]
ErrorStyle: TypeAlias = Literal["vendor", "detail"]  # OpenAI's envelope, or FastAPI's {"detail"}
ImageStyle: TypeAlias = Literal["plain", "data_url", "relative_url"]

PATHS: Final[dict[Operation, str]] = {
    "generation": "images/generations",
    "edit": "images/edits",
    "variation": "images/variations",
}


@dataclass(frozen=True, slots=True)
class UploadFields:
    """The fields that carry images; `image` is None if a single image goes into the field for several."""

    encoding: BodyEncoding
    image: str | None
    images: str
    mask: str
    reference: ReferenceStyle

    @property
    def fields(self) -> frozenset[str]:
        """All field names."""
        return frozenset(name for name in (self.image, self.images, self.mask) if name)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the sandbox deviates; the names of the fields are the setting keys, and requests must follow the dialect."""

    auth_header: str = "Authorization"
    auth_scheme: str | None = "Bearer"
    query: Mapping[str, str] = field(default_factory=dict)  # parameters that every request must carry
    body: Mapping[str, object] = field(default_factory=dict)  # fields that every request must carry
    serves: str | None = None  # the only model; a request must not name any
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # parameter → value accepted here → OpenAI's
    size_as: SizeStyle = "WxH"
    paths: Mapping[Operation, str] = field(default_factory=lambda: dict(PATHS))
    uploads: UploadFields | None = None
    errors: ErrorStyle = "vendor"
    pictures: ImageStyle = "plain"
    picture_host: str | None = None  # the host name in image URLs
    created: bool = True  # whether a response has `created`
    withholds: bool = False  # a refused prompt gets 200 with items that hold no image
    draws: str | None = None  # the size of every image, whatever is asked for
    most_images: int | None = None  # images of one response, whatever `n` says

    @property
    def operations(self) -> dict[str, Operation]:
        """Map from path to operation; if two share a path, a request with images is the edit."""
        return {f"/v1/{self.paths[operation]}": operation for operation in reversed(PATHS)}


def read_dialect(value: object) -> Dialect:
    """Parse the mapping. Raises ValueError with one sentence."""
    mapping = mapping_of("dialect", value)
    known = {known.name for known in fields(Dialect)} - {"auth_header", "auth_scheme"} | {"auth"}
    refuse_unknown_keys(mapping, sorted(known), "dialect.")
    header, scheme = _auth(mapping.get("auth", {}))
    most = mapping.get("most_images")
    return Dialect(
        auth_header=header,
        auth_scheme=scheme,
        query=_texts("query", mapping.get("query", {})),
        body=mapping_of("dialect.body", mapping.get("body", {})),
        serves=_optional_text(mapping, "serves"),
        values=_values(mapping.get("values", {})),
        size_as=cast("SizeStyle", _choice(mapping, "size_as", get_args(SizeStyle))),
        paths=_paths(mapping.get("paths", {})),
        uploads=_upload_fields(mapping["uploads"]) if "uploads" in mapping else None,
        errors=cast("ErrorStyle", _choice(mapping, "errors", get_args(ErrorStyle))),
        pictures=cast("ImageStyle", _choice(mapping, "pictures", get_args(ImageStyle))),
        picture_host=_optional_text(mapping, "picture_host"),
        created=boolean("dialect.created", mapping.get("created", True)),
        withholds=boolean("dialect.withholds", mapping.get("withholds", False)),
        draws=_size(mapping.get("draws")),
        most_images=None if most is None else integer("dialect.most_images", most, low=0),
    )


def _choice(mapping: Mapping[str, object], key: str, known: tuple[str, ...]) -> str:
    return choice(f"dialect.{key}", mapping.get(key, known[0]), known)


def _size(value: object) -> str | None:
    if value is None or re.fullmatch(r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}", str(value)):
        return None if value is None else str(value)
    raise ValueError(f"dialect.draws: expected a size like 512x512, got {value!r}")


def _optional_text(mapping: Mapping[str, object], key: str) -> str | None:
    value = mapping.get(key)
    return None if value is None else text(f"dialect.{key}", value)


def _values(value: object) -> dict[str, dict[str, str]]:
    return {name: _texts(f"values.{name}", words) for name, words in mapping_of("dialect.values", value).items()}


def _auth(value: object) -> tuple[str, str | None]:
    mapping = mapping_of("dialect.auth", value)
    refuse_unknown_keys(mapping, ("header", "scheme"), "dialect.auth.")
    scheme = mapping.get("scheme", None if "header" in mapping else "Bearer")
    header = text("dialect.auth.header", mapping.get("header", "Authorization"))
    return header, None if scheme is None else text("dialect.auth.scheme", scheme)


def _texts(key: str, value: object) -> dict[str, str]:
    return {name: text(f"dialect.{key}.{name}", entry) for name, entry in mapping_of(f"dialect.{key}", value).items()}


def _paths(value: object) -> dict[Operation, str]:
    mapping = mapping_of("dialect.paths", value)
    refuse_unknown_keys(mapping, list(PATHS), "dialect.paths.")
    return {
        name: text(f"dialect.paths.{name}", mapping.get(name, default)).strip("/") for name, default in PATHS.items()
    }


def _upload_fields(value: object) -> UploadFields:
    mapping = mapping_of("dialect.uploads", value)
    refuse_unknown_keys(mapping, [known.name for known in fields(UploadFields)], "dialect.uploads.")
    encoding = choice("dialect.uploads.encoding", mapping.get("encoding", "multipart"), get_args(BodyEncoding))
    default = (
        {"image": "image", "images": "image[]"} if encoding == "multipart" else {"image": None, "images": "images"}
    )
    image = mapping.get("image", default["image"])
    reference = choice("dialect.uploads.reference", mapping.get("reference", "image_url"), get_args(ReferenceStyle))
    return UploadFields(
        encoding=cast("BodyEncoding", encoding),
        image=None if image is None else text("dialect.uploads.image", image),
        images=text("dialect.uploads.images", mapping.get("images", default["images"])),
        mask=text("dialect.uploads.mask", mapping.get("mask", "mask")),
        reference=cast("ReferenceStyle", reference),
    )
