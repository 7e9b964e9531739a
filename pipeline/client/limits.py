"""Limits on what is accepted from servers; `pipeline/config/README.md` states them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

RESPONSE_BYTES: Final = 2**20
"""Of the response to a call, decompressed, in addition to its images."""

HEADER_BYTES: Final = 100 * 1024
"""Of one header of a response. The vendor's client takes as many for all headers (h11)."""

HEADERS: Final = 512
"""Headers of a response."""

URL_CHARACTERS: Final = 16 * 1024
"""Of an image URL."""

PROMPT_CHARACTERS: Final = 32_000
"""Of a revised prompt that are kept: as many as the service takes of a prompt."""

MESSAGE_CHARACTERS: Final = 1000
"""Of a server's message that are kept."""

WORD_CHARACTERS: Final = 200
"""Of an error's type, code and parameter, of a request id, and of each text in `usage` and settings, that are kept."""

IMAGES: Final = 200
"""Images of a response that are kept; a call asks for ten at most. The others are counted."""

LIST_ITEMS: Final = 99
"""Of each list and object in `usage` that are kept."""

OBJECT_BYTES: Final = 32 * 2**20
"""Of a response of the Files or the Batch API: a page of 100 batches, each with all its errors."""

ID_CHARACTERS: Final = 1000
"""Of the id of a file or a batch. The service's have 28 and 38; those of gateways contain another server's."""

BATCH_ERRORS: Final = 1000
"""Errors of one batch that are kept."""

_BYTES_PER_PIXEL: Final = 8  # four channels of 16 bits, not compressed
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")


def images_asked(params: Mapping[str, Any]) -> int:
    """Return how many images a call asks for."""
    return int(params.get("n") or 1)


def response_bytes(params: Mapping[str, Any], max_bytes: int) -> int:
    """Return the most bytes of the response to a call, which asks for `n` images; base64 adds a third to each.

    An image whose size is requested is allowed 8 bytes a pixel, and a quarter of `max_bytes` at least, since servers
    may return a larger one; any other is allowed `max_bytes`.
    """
    size = _SIZE.fullmatch(str(params.get("size")))
    most = max_bytes if size is None else max(max_bytes // 4, int(size[1]) * int(size[2]) * _BYTES_PER_PIXEL)
    return RESPONSE_BYTES + images_asked(params) * min(most, max_bytes) * 4 // 3
