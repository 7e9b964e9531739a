"""Read input images from paths, bytes, streams or Pillow images, and hash them. Nothing is decoded here."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.yaml_document import nearest
from pipeline.errors import ImageError, Problem
from pipeline.models.rules import quoted
from pipeline.ordinary_file import read_up_to

MAX_BYTES = 200 * 1024 * 1024
"""Maximum size of an input file: four times what any model accepts, so that `fit` can shrink larger files."""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An input image as the job gives it: a file that is read when it is needed, or bytes. `name` is for messages."""

    name: str
    path: Path | None = None
    content: bytes | None = None

    @classmethod
    def of(cls, value: object, name: str | None = None, folder: Path | None = None) -> ImageSource:
        """Return the source for a path (relative to `folder`), bytes, a binary stream or a Pillow image.

        A stream is read from its current position, a Pillow image is encoded as PNG, else TIFF. Raises ImageError.
        """
        if isinstance(value, ImageSource):
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
        what = quoted(value) if isinstance(value, int | float) else f"of the type `{type(value).__name__}`"
        raise _error(name or "image", f"is {what}; give a path, bytes, a binary stream or a Pillow image")

    def read(self) -> bytes:
        """Return the bytes. Raises ImageError if the file is missing, a folder or too large."""
        if self.path is None:
            return self._checked(self.content or b"")
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise _error(self.name, "is a folder" if self.path.is_dir() else "is not a regular file")
            with self.path.open("rb") as file:
                return self._checked(read_up_to(file, MAX_BYTES))
        except FileNotFoundError:
            raise _error(self.name, f"does not exist{self._hint()}") from None
        except (OSError, ValueError) as reason:  # ValueError: a name with a zero byte
            raise _error(self.name, f"cannot be read: {getattr(reason, 'strerror', None) or reason}") from None

    def sha256(self) -> str:
        """Return the hash of the bytes, cached for a file until its time or size changes. Raises ImageError."""
        identity = self.identity()
        return identity[0] if len(identity) == 1 else _hash_file(self, identity)

    def identity(self) -> tuple[str, ...]:
        """Return what changes when the bytes change, without reading a file: path, time and size; for bytes the hash.

        Raises ImageError.
        """
        if self.path is None:
            return (hashlib.sha256(self.content or b"").hexdigest(),)
        try:
            state = self.path.stat()
        except (OSError, ValueError):
            self.read()  # raises ImageError with the reason
            raise
        return (str(self.path.absolute()), str(state.st_mtime_ns), str(state.st_size))

    def _checked(self, content: bytes) -> bytes:
        if len(content) > MAX_BYTES:
            raise _error(self.name, f"is larger than {MAX_BYTES // 2**20} MB")
        return content

    def _hint(self) -> str:
        """Return a hint with the closest file name, or that the folder does not exist either."""
        if self.path is None or not self.path.parent.is_dir():
            return " (nor does its folder)"
        close = nearest(self.path.name, (path.name for path in self.path.parent.iterdir()))
        return f"; did you mean `{Path(self.name).with_name(close)}`?" if close else ""


@functools.lru_cache(maxsize=4096)
def _hash_file(source: ImageSource, identity: tuple[str, ...]) -> str:
    del identity  # part of the cache key: another time or size is another hash
    return hashlib.sha256(source.read()).hexdigest()


def _encode(image: Any, name: str) -> bytes:
    """Encode a Pillow image, without importing Pillow."""
    reason: Exception | None = None
    for format_name in ("PNG", "TIFF"):  # TIFF for modes that PNG does not support: CMYK, LAB, F
        buffer = io.BytesIO()
        try:
            image.save(buffer, format_name, exif=image.getexif())
        except (OSError, ValueError, KeyError) as error:
            reason = error
        else:
            return buffer.getvalue()
    raise _error(name, f"is a Pillow image that cannot be encoded: {reason}")


def _read_stream(stream: Any, name: str) -> bytes:
    try:
        content = b"" if isinstance(stream, io.TextIOBase) else stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as reason:
        raise _error(name, f"cannot be read: {reason}") from None
    if isinstance(stream, io.TextIOBase) or not isinstance(content, bytes):
        raise _error(name, 'is a text stream; open it with mode "rb"')
    if not content and _was_read(stream):
        raise _error(name, "stands at its end, as it was read before: call its `seek(0)`")
    return content


def _was_read(stream: Any) -> bool:
    try:
        return bool(stream.tell() > 0)
    except (OSError, ValueError, AttributeError):
        return False


def _stream_name(stream: object) -> str:
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) else "stream"


def _error(name: str, message: str) -> ImageError:
    return ImageError([Problem(name, message)])
