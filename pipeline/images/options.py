"""What a job says of its pictures: where they come from, how to fit and mask them. Nothing is decoded here."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pipeline.config.yaml_document import nearest, unknown_key_message
from pipeline.errors import ImageError, Problem
from pipeline.models.rules import join_or, parse_size, quoted
from pipeline.models.validation import FieldProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

Fit = Literal["crop", "pad", "stretch"]
MaskEdit = Literal["alpha", "white", "black"]
Box = tuple[int, int, int, int]

MAX_BYTES = 200 * 1024 * 1024
"""Bytes of one input file, at most: four times what any model takes, so that `fit` has something to shrink."""

_FITS: tuple[Fit, ...] = get_args(Fit)
_LONGEST_EDGE = 8192  # of `resize`: twice what any model makes
_MASK_WORDS = "a file name, {image: FILE, edit: white} or {box: [left, top, right, bottom]}"


@dataclass(frozen=True, slots=True)
class Source:
    """A picture as it was given: a file that is read when it is needed, or bytes. `name` is for messages."""

    name: str
    path: Path | None = None
    content: bytes | None = None

    @classmethod
    def of(cls, value: object, name: str | None = None, folder: Path | None = None) -> Source:
        """Make a source from a path (relative to `folder`), bytes, a binary stream or a Pillow image.

        A stream is read from where it stands, a Pillow image is encoded as PNG, else TIFF. Raises PictureError.
        """
        if isinstance(value, Source):
            return value
        if isinstance(value, str | os.PathLike):
            path = Path(value)
            return cls(name or os.fspath(value), path=(folder or Path()) / path)
        if isinstance(value, bytes | bytearray | memoryview):
            return cls(name or "bytes", content=bytes(value))
        if hasattr(value, "getexif") and hasattr(value, "save"):
            return cls(name or "image", content=_encode(value, name or "image"))
        if hasattr(value, "read"):
            name = name or _stream_name(value)
            return cls(name, content=_read_stream(value, name))
        raise _wrong(name or "image", f"is {quoted(value)}; give a path, bytes, a binary stream or a Pillow image")

    def read(self) -> bytes:
        """Give the bytes. Raises PictureError that names the source where it is missing, a folder or too large."""
        if self.path is None:
            return self._checked(self.content or b"")
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise _wrong(self.name, "is a folder" if self.path.is_dir() else "is no ordinary file")
            with self.path.open("rb") as file:
                return self._checked(file.read(MAX_BYTES + 1))
        except FileNotFoundError:
            raise _wrong(self.name, f"does not exist{self._hint()}") from None
        except (OSError, ValueError) as reason:  # ValueError: a name with a zero byte
            raise _wrong(self.name, f"cannot be read: {getattr(reason, 'strerror', None) or reason}") from None

    def sha256(self) -> str:
        """Give the hash of the bytes, remembered for a file as long as its time and size stay. Raises PictureError."""
        identity = self.identity()
        return identity[0] if len(identity) == 1 else _hash_file(self, identity)

    def identity(self) -> tuple[str, ...]:
        """Give what changes when the bytes change, without reading a file: path, time and size, or the hash itself."""
        if self.path is None:
            return (hashlib.sha256(self.content or b"").hexdigest(),)
        try:
            state = self.path.stat()
        except (OSError, ValueError):
            self.read()  # says what is wrong
            raise
        return (str(self.path.absolute()), str(state.st_mtime_ns), str(state.st_size))

    def _checked(self, content: bytes) -> bytes:
        if len(content) > MAX_BYTES:
            raise _wrong(self.name, f"is larger than {MAX_BYTES // 2**20} MB")
        return content

    def _hint(self) -> str:
        """Name the file that was probably meant."""
        if self.path is None or not self.path.parent.is_dir():
            return " (nor does its folder)"
        close = nearest(self.path.name, (path.name for path in self.path.parent.iterdir()))
        return f"; did you mean `{Path(self.name).with_name(close)}`?" if close else ""


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How the pictures of a request are to be fitted and what of the first one is to be edited."""

    fit: Fit | None = None
    resize: tuple[int, int] | None = None  # pixels; without `fit` the picture is stretched to it
    mask: Source | None = None
    mask_edit: MaskEdit = "alpha"  # what of the mask's picture is to be edited: transparent, white or black
    mask_box: Box | None = None  # left, top, right, bottom in pixels of the first picture, upright, before fitting

    @property
    def masks(self) -> bool:
        """Whether a mask is asked for."""
        return self.mask is not None or self.mask_box is not None

    @property
    def mends(self) -> bool:
        """Whether a wrong picture may be changed."""
        return self.fit is not None or self.resize is not None

    def canonical(self) -> dict[str, object]:
        """Give JSON values for the content key, without what is not asked for. Reads the mask. Raises PictureError."""
        options: dict[str, object] = {}
        if self.fit is not None:
            options["fit"] = self.fit
        if self.resize is not None:
            options["resize"] = list(self.resize)
        if self.mask_box is not None:
            options["mask"] = {"box": list(self.mask_box)}
        elif self.mask is not None:
            options["mask"] = {"edit": self.mask_edit, "sha256": self.mask.sha256()}
        return options


def parse_image_options(
    fit: object, resize: object, mask: object, folder: Path | None = None
) -> tuple[ImageOptions, list[FieldProblem]]:
    """Turn the job's values of `fit`, `resize` and `mask` (None where absent) into a recipe, and name what is wrong."""
    options, complaints = parse_mask(mask, folder)
    known = next((word for word in _FITS if word == fit), None)
    if fit is not None and known is None:
        complaints.append(FieldProblem("fit", f"is {quoted(fit)}; it takes {join_or(_FITS)}"))
    size = parse_size(resize)
    if resize is not None and (size is None or max(size) > _LONGEST_EDGE):
        words = f"it takes WIDTHxHEIGHT, like 512x512, up to {_LONGEST_EDGE} pixels an edge"
        complaints.append(FieldProblem("resize", f"is {quoted(resize)}; {words}"))
        size = None
    return replace(options, fit=known, resize=size), complaints


def parse_mask(value: object, folder: Path | None = None) -> tuple[ImageOptions, list[FieldProblem]]:
    """Turn the job's value of `mask` into a recipe that has nothing else, and name what is wrong with its form."""
    if value is None:
        return ImageOptions(), []
    if isinstance(value, dict):
        return _parse_mask_mapping(value, folder)
    try:
        return ImageOptions(mask=Source.of(value, folder=folder)), []
    except ImageError:
        return ImageOptions(), [FieldProblem("mask", f"is {quoted(value)}; it takes {_MASK_WORDS}")]


def _parse_mask_mapping(value: Mapping[Any, Any], folder: Path | None) -> tuple[ImageOptions, list[FieldProblem]]:
    known = ("image", "edit", "box")
    complaints = [
        FieldProblem("mask", f"has an {unknown_key_message(str(key), known)}") for key in value if key not in known
    ]
    if ("image" in value) == ("box" in value):
        complaints.append(FieldProblem("mask", f"is {quoted(value)}; it takes {_MASK_WORDS}"))
    elif "box" in value:
        box = value["box"]
        if "edit" in value:
            complaints.append(FieldProblem("mask.edit", "goes with `image`; a box is what is edited"))
        if not _is_box(box):
            words = "four whole numbers [left, top, right, bottom] with left < right and top < bottom"
            complaints.append(FieldProblem("mask.box", f"is {quoted(box)}; it takes {words}"))
        elif not complaints:
            return ImageOptions(mask_box=(box[0], box[1], box[2], box[3])), []
    else:
        edit = value.get("edit", "alpha")
        if edit not in get_args(MaskEdit):
            complaints.append(FieldProblem("mask.edit", f"is {quoted(edit)}; it takes alpha, white or black"))
        options, wrong = parse_mask(value["image"], folder)
        if isinstance(value["image"], dict) or options.mask is None:
            wrong = [FieldProblem("mask.image", f"is {quoted(value['image'])}; it takes a file name")]
        complaints += wrong
        if not complaints:
            return replace(options, mask_edit=edit), []
    return ImageOptions(), complaints


def _is_box(box: object) -> bool:
    if not isinstance(box, list | tuple) or len(box) != 4:
        return False
    if not all(isinstance(edge, int) and not isinstance(edge, bool) and edge >= 0 for edge in box):
        return False
    return bool(box[0] < box[2] and box[1] < box[3])


@functools.lru_cache(maxsize=4096)
def _hash_file(source: Source, identity: tuple[str, ...]) -> str:
    del identity  # it is here for the cache: another time or size is another hash
    return hashlib.sha256(source.read()).hexdigest()


def _encode(image: Any, name: str) -> bytes:
    """Encode a Pillow image, whose class is not imported here."""
    reason: Exception | None = None
    for kind in ("PNG", "TIFF"):  # TIFF for modes that PNG has not: CMYK, LAB, F
        buffer = io.BytesIO()
        try:
            image.save(buffer, kind, exif=image.getexif())
        except (OSError, ValueError, KeyError) as error:
            reason = error
        else:
            return buffer.getvalue()
    raise _wrong(name, f"is a Pillow image that cannot be encoded: {reason}")


def _read_stream(stream: Any, name: str) -> bytes:
    try:
        content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as reason:
        raise _wrong(name, f"cannot be read: {reason}") from None
    if not isinstance(content, bytes):
        raise _wrong(name, 'is a stream of text; open it with mode "rb"')
    return content


def _stream_name(stream: object) -> str:
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) else "stream"


def _wrong(name: str, what: str) -> ImageError:
    return ImageError([Problem(name, what)])
