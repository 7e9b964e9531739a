"""The mapping under `sandbox.dialect:` becomes the ways in which this server deviates from OpenAI's.

Each is one that a server really has (LocalAI, vLLM-Omni, SGLang, Xinference, xAI, Together, Azure, gateways); the
defaults are OpenAI's own way.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, get_args

from pipeline.sandbox.validation import flag, mapping_of, refuse_unknown_keys, text, whole, word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.sandbox.rules.models import Operation

SizeStyle: TypeAlias = Literal["WxH", "W*H", "width_height", "aspect_ratio"]
Encoding: TypeAlias = Literal["multipart", "json"]
Reference: TypeAlias = Literal["image_url", "url", "data_url", "base64"]
Refusal: TypeAlias = Literal["vendor", "detail"]  # OpenAI's envelope, or FastAPI's {"detail"}
Given: TypeAlias = Literal["plain", "data_url", "relative_url"]

PATHS: Final[dict[Operation, str]] = {
    "generation": "images/generations",
    "edit": "images/edits",
    "variation": "images/variations",
}


@dataclass(frozen=True, slots=True)
class Uploads:
    """The fields in which pictures come; `image` is None where a single one comes like several."""

    encoding: Encoding
    image: str | None
    images: str
    mask: str
    reference: Reference

    @property
    def fields(self) -> frozenset[str]:
        """All of them."""
        return frozenset(name for name in (self.image, self.images, self.mask) if name)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the sandbox deviates. What a call must do besides or instead is refused where it does not."""

    auth_header: str = "Authorization"
    auth_scheme: str | None = "Bearer"
    query: Mapping[str, str] = field(default_factory=dict)  # that every call must carry
    body: Mapping[str, object] = field(default_factory=dict)  # fields that every call must carry
    serves: str | None = None  # the one model; a call must not name any
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # parameter → word taken here → OpenAI's
    size_as: SizeStyle = "WxH"
    paths: Mapping[Operation, str] = field(default_factory=lambda: dict(PATHS))
    uploads: Uploads | None = None
    errors: Refusal = "vendor"
    pictures: Given = "plain"
    picture_host: str | None = None  # whose name stands in picture URLs
    created: bool = True  # whether an answer says when it was made
    withholds: bool = False  # a refused prompt answers 200 with pictures that are not there
    most_images: int | None = None  # pictures of one answer, whatever `n` says

    @property
    def operations(self) -> dict[str, Operation]:
        """Paths below the root → operations; of two at one path, a call with pictures is the second."""
        return {f"/v1/{self.paths[operation]}": operation for operation in reversed(PATHS)}


def read_dialect(value: object) -> Dialect:
    """Read the mapping. Raises ValueError with one sentence."""
    mapping = mapping_of("dialect", value)
    known = {known.name for known in fields(Dialect)} - {"auth_header", "auth_scheme"} | {"auth"}
    refuse_unknown_keys(mapping, sorted(known), "dialect.")
    header, scheme = _auth(mapping.get("auth", {}))
    host, serves, most = (mapping.get(name) for name in ("picture_host", "serves", "most_images"))
    return Dialect(
        auth_header=header,
        auth_scheme=scheme,
        query=_texts("query", mapping.get("query", {})),
        body=mapping_of("dialect.body", mapping.get("body", {})),
        serves=None if serves is None else text("dialect.serves", serves),
        values={
            name: _texts(f"values.{name}", words)
            for name, words in mapping_of("dialect.values", mapping.get("values", {})).items()
        },
        size_as=cast("SizeStyle", _word(mapping, "size_as", get_args(SizeStyle))),
        paths=_paths(mapping.get("paths", {})),
        uploads=_uploads(mapping["uploads"]) if "uploads" in mapping else None,
        errors=cast("Refusal", _word(mapping, "errors", get_args(Refusal))),
        pictures=cast("Given", _word(mapping, "pictures", get_args(Given))),
        picture_host=None if host is None else text("dialect.picture_host", host),
        created=flag("dialect.created", mapping.get("created", True)),
        withholds=flag("dialect.withholds", mapping.get("withholds", False)),
        most_images=None if most is None else whole("dialect.most_images", most, low=0),
    )


def _word(mapping: Mapping[str, object], key: str, known: tuple[str, ...]) -> str:
    return word(f"dialect.{key}", mapping.get(key, known[0]), known)


def _auth(value: object) -> tuple[str, str | None]:
    mapping = mapping_of("dialect.auth", value)
    refuse_unknown_keys(mapping, ("header", "scheme"), "dialect.auth.")
    scheme = mapping.get("scheme", None if "header" in mapping else "Bearer")
    header = text("dialect.auth.header", mapping.get("header", "Authorization"))
    return header, None if scheme is None else text("dialect.auth.scheme", scheme)


def _texts(key: str, value: object) -> dict[str, str]:
    return {name: text(f"dialect.{key}.{name}", said) for name, said in mapping_of(f"dialect.{key}", value).items()}


def _paths(value: object) -> dict[Operation, str]:
    mapping = mapping_of("dialect.paths", value)
    refuse_unknown_keys(mapping, list(PATHS), "dialect.paths.")
    return {name: text(f"dialect.paths.{name}", mapping.get(name, usual)).strip("/") for name, usual in PATHS.items()}


def _uploads(value: object) -> Uploads:
    mapping = mapping_of("dialect.uploads", value)
    refuse_unknown_keys(mapping, [known.name for known in fields(Uploads)], "dialect.uploads.")
    encoding = word("dialect.uploads.encoding", mapping.get("encoding", "multipart"), get_args(Encoding))
    usual = {"image": "image", "images": "image[]"} if encoding == "multipart" else {"image": None, "images": "images"}
    image = mapping.get("image", usual["image"])
    return Uploads(
        encoding=cast("Encoding", encoding),
        image=None if image is None else text("dialect.uploads.image", image),
        images=text("dialect.uploads.images", mapping.get("images", usual["images"])),
        mask=text("dialect.uploads.mask", mapping.get("mask", "mask")),
        reference=cast(
            "Reference", word("dialect.uploads.reference", mapping.get("reference", "image_url"), get_args(Reference))
        ),
    )
