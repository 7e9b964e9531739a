"""The process that decodes heavy images: reads them from stdin, and answers each with a line of JSON on stdout."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO

from pipeline.errors import BrokenImage
from pipeline.images.decoder import HEAD, PIXELS
from pipeline.images.inspect import PixelLimit, inspect_here
from pipeline.images.limits import PROCESS_MEMORY

if TYPE_CHECKING:
    from PIL import Image


def main() -> None:
    """Decode until stdin ends. The signals that stop a run are ignored: images in work are finished."""
    for name in ("SIGHUP", "SIGINT", "SIGTERM"):
        with contextlib.suppress(AttributeError, ValueError):  # Windows
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _limit_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer each image of `source` on `sink`."""
    while len(head := source.read(HEAD.size)) == HEAD.size:
        size, max_pixels, all_frames, with_pixels = HEAD.unpack(head)
        pixels = b""
        try:
            info, image = inspect_here(source.read(size), PixelLimit.of_results(max_pixels), all_frames=all_frames)
            pixels = _as_tiff(image) if with_pixels else b""
            answer = {**asdict(info), PIXELS: len(pixels)}
        except BrokenImage as reason:
            answer = {"error": str(reason)}
        sink.write(json.dumps(answer).encode() + b"\n" + pixels)
        sink.flush()


def _as_tiff(image: Image.Image) -> bytes:
    """Return the pixels and the color profile, in a format that has every mode and is not compressed."""
    plain = image.copy()  # without the tags that a TIFF had
    buffer = io.BytesIO()
    plain.save(buffer, "TIFF", compression="raw", icc_profile=image.info.get("icc_profile"))  # else as it was
    return buffer.getvalue()


def _end_with_parent() -> None:
    """End as soon as the other end of stdin is closed, also while an image is decoded: nobody waits for it."""
    with contextlib.suppress(AttributeError):  # Windows has no poll
        hung_up = select.poll()
        hung_up.register(sys.stdin.fileno(), 0)
        hung_up.poll()
        os._exit(0)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows; a lower limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (PROCESS_MEMORY, PROCESS_MEMORY))


if __name__ == "__main__":
    main()
