"""Decode a heavy image in a process of its own, which is killed at the time limit; a thread in C code cannot be.

A process is kept for the next image, so that only the first one waits for its start. It ends with its stdin.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from pipeline.config.environment import child_environment
from pipeline.errors import BrokenImage
from pipeline.file_descriptors import when_free
from pipeline.images import limits

if TYPE_CHECKING:
    from pipeline.images.container_check import Content

HEAD: Final = struct.Struct(">QQ??")  # bytes of the image, maximum pixels, `all_frames`, `with_pixels`
PIXELS: Final = "pixels"
"""The key in the answer of how many bytes of pixels follow it: an uncompressed TIFF of the first frame."""
_TRIES = 2  # a process that was kept may have been killed meanwhile


class _Decoder:
    """One process that decodes images, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.images.decoder_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libtiff writes there
            env=child_environment(os.environ) | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,  # Ctrl-C must not end it: images in work are finished
        )
        self.is_late = False

    def decode(self, content: Content, head: bytes) -> tuple[dict[str, Any], bytes] | None:
        """Return the answer of the process, and the pixels if they were asked for; None if it has ended without one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(limits.SECONDS, self._end_late)
        timer.daemon = True
        timer.start()
        try:
            self._process.stdin.write(head)
            self._process.stdin.write(content)
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
            size = answer.pop(PIXELS, 0)
            pixels = self._process.stdout.read(size)
        except (OSError, ValueError):  # a broken pipe, half a line: it has ended
            return None
        finally:
            timer.cancel()
        return (answer, pixels) if len(pixels) == size else None

    def _end_late(self) -> None:
        self.is_late = True
        self._process.kill()

    def end(self) -> str:
        """Kill the process, and return how it ended."""
        self._process.kill()
        with contextlib.suppress(OSError):  # what was not written yet
            self._process.communicate()
        return f"exit {self._process.returncode}"


_idle: list[_Decoder] = []  # of this process


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def decode_apart(
    image_format: str, content: Content, max_pixels: int, *, all_frames: bool = False, with_pixels: bool = False
) -> tuple[dict[str, Any], bytes]:
    """Decode an image in a process: return the fields of its info, and its first frame as an uncompressed TIFF.

    Raises BrokenImage, also at the time limit.
    """
    head = HEAD.pack(len(content), max_pixels, all_frames, with_pixels)
    end = ""
    for _ in range(_TRIES):
        try:
            decoder = _idle.pop()
        except IndexError:
            decoder = when_free(_Decoder)
        try:
            answer = decoder.decode(content, head)
        except BaseException:
            decoder.end()
            raise
        if answer is not None:
            _keep(decoder)
            if "error" in answer[0]:
                raise BrokenImage(answer[0]["error"])
            return answer
        end = decoder.end()
        if decoder.is_late:
            raise BrokenImage(f"is a {image_format.upper()} that takes too long to decode: {limits.SECONDS:g} seconds")
    raise BrokenImage(f"is a {image_format.upper()} that ends the process which decodes it ({end})")


def _keep(decoder: _Decoder) -> None:
    if len(_idle) < (os.cpu_count() or 1):
        _idle.append(decoder)
    else:
        decoder.end()
