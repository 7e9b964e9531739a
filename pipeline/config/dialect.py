"""Read how a server's Images API deviates from OpenAI's: names, paths and encodings of a provider's entry.

Every option is data, so that a server needs an entry in config.yaml and no code. The known deviations are in
config.yaml, beside the servers that have them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.validation import Section

HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
SECRET_NAME: Final = re.compile(r"authorization|api-?key|token|secret|signature", re.IGNORECASE)

Encoding = Literal["multipart", "json"]
Reference = Literal["image_url", "url", "data_url", "base64"]
SizeStyle = Literal["WxH", "W*H", "width_height", "aspect_ratio"]

KEYS: Final = ("auth", "query", "body", "leave_out", "values", "size_as", "paths", "uploads", "picture_hosts")
OPERATIONS: Final = ("generation", "edit", "variation")


@dataclass(frozen=True, slots=True)
class Uploads:
    """How input images are uploaded.

    `image` is the form field of a single image (None: the same field as for several), `images` that of each of several.
    `reference` is for JSON: {"image_url": DATA_URL}, {"url": DATA_URL}, or the data URL or base64 itself.
    """

    encoding: Encoding = "multipart"
    image: str | None = "image"
    images: str = "image[]"
    mask: str = "mask"
    reference: Reference = "image_url"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The deviations of one server; the defaults are OpenAI's API."""

    auth_header: str = "Authorization"
    auth_scheme: str | None = "Bearer"
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)  # parameters added to a call if the request has none
    leave_out: frozenset[str] = frozenset()
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # parameter → OpenAI's value → the server's
    size_as: SizeStyle = "WxH"
    paths: Mapping[str, str] = field(
        default_factory=lambda: {
            "generation": "images/generations",
            "edit": "images/edits",
            "variation": "images/variations",
        }
    )
    uploads: Uploads = field(default_factory=Uploads)
    picture_hosts: frozenset[str] = frozenset()  # downloads from these are allowed although their addresses are private

    def credentials(self, key: str | None) -> dict[str, str]:
        """Return the header that carries the key, or no header without a key."""
        if key is None:
            return {}
        return {self.auth_header: f"{self.auth_scheme} {key}" if self.auth_scheme else key}


def read_dialect(section: Section) -> Dialect:
    """Read the dialect options of one entry of `providers`; problems are recorded in the section."""
    header, scheme = _read_auth(section.section("auth"))
    return Dialect(
        auth_header=header,
        auth_scheme=scheme,
        query=_read_query(section.section("query")),
        body=_read_body(section),
        leave_out=_read_leave_out(section),
        values=_read_values(section.section("values")),
        size_as=section.choice("size_as", "WxH", get_args(SizeStyle)),
        paths=_read_paths(section.section("paths")),
        uploads=_read_uploads(section.section("uploads")),
        picture_hosts=frozenset(host.lower().strip("[]") for host in section.texts("picture_hosts")),
    )


def _read_auth(section: Section) -> tuple[str, str | None]:
    section.reject_unknown_keys("header", "scheme")
    header = section.text("header", "Authorization")
    if not HEADER_NAME.fullmatch(header):
        section.add_problem("header", f"`{header:.60}` is not a valid name of an HTTP header")
    default = "Bearer" if header.lower() == "authorization" else None
    scheme = section.text("scheme", None if "scheme" in section.value else default)
    if scheme is not None and not HEADER_NAME.fullmatch(scheme):
        section.add_problem("scheme", "must be a word like Bearer, or null for the bare key")
    return header, scheme


def _read_query(section: Section) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in section.value.items():
        if SECRET_NAME.search(name):
            section.add_problem(name, "a key does not belong in a URL; `auth` names the header that carries it")
        elif isinstance(value, bool) or not isinstance(value, str | int | float):
            section.add_problem(name, f"must be text, not {value!r:.60}")
        else:
            query[name] = str(value)
    return query


def _read_body(section: Section) -> dict[str, Any]:
    body = section.mapping("body")
    for name in body.keys() & {"prompt", "n", "image", "images", "mask", "stream", "partial_images"}:
        section.section("body").add_problem(name, "cannot be the same for all calls; it comes from the request")
    return body


def _read_leave_out(section: Section) -> frozenset[str]:
    names = section.texts("leave_out")
    for index, name in enumerate(names):
        if name == "prompt":
            section.add_problem("leave_out", "`prompt` cannot be left out: every call needs it")
        if name in names[:index]:
            section.add_problem("leave_out", f"names `{name:.60}` twice")
    if "n" in names and section.value.get("images_per_call") != 1:
        section.add_problem("leave_out", "without `n` a call makes one image: write `images_per_call: 1` beside it")
    return frozenset(names)


def _read_values(section: Section) -> dict[str, dict[str, Any]]:
    return {name: section.mapping(name) for name in section.value}


def _read_paths(section: Section) -> dict[str, str]:
    section.reject_unknown_keys(*OPERATIONS)
    paths = dict(Dialect().paths)
    for operation in OPERATIONS:
        path = section.text(operation, paths[operation])
        if not re.fullmatch(r"[\w.~:-]+(/[\w.~:-]+)*", path):
            section.add_problem(
                operation, f"`{path:.60}` is not a path below base_url; write it like {paths[operation]}"
            )
        paths[operation] = path
    return paths


def _read_uploads(section: Section) -> Uploads:
    section.reject_unknown_keys("encoding", "image", "images", "mask", "reference")
    encoding: Encoding = section.choice("encoding", "multipart", get_args(Encoding))
    default = Uploads() if encoding == "multipart" else Uploads("json", None, "images")
    if encoding == "multipart" and "reference" in section.value:
        section.add_problem("reference", "is for `encoding: json`; a multipart form contains the files themselves")
    return Uploads(
        encoding,
        image=section.text("image", None if "image" in section.value else default.image),
        images=section.text("images", default.images),
        mask=section.text("mask", default.mask),
        reference=section.choice("reference", default.reference, get_args(Reference)),
    )
