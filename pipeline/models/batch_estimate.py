"""Estimate what one request takes of a batch, and cut requests into batches within the bounds of a provider.

The plan counts batches with these functions, and the run cuts its batches with them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pipeline.config.batch_rules import ENQUEUED_SHARE
from pipeline.models.model import count_references
from pipeline.models.rules import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.config.batch_rules import BatchRules
    from pipeline.models.model import Model

_BYTES_PER_PIXEL = {"png": 2.0, "jpeg": 0.8, "webp": 0.8, "gif": 1.0}  # a PNG of 1024x1024 has about 2 MB
_SVG_BYTES = 200_000
_BASE64 = 4 / 3
_AROUND_IMAGE, _AROUND_LINE, _AROUND_INPUT = 1_000, 300, 64  # bytes of JSON
_AUTO_SIZE = (1024, 1536)  # the largest that the service is known to choose
_FRAMES = 9  # of a GIF that does not say how many
_BYTES_PER_TOKEN = 3  # fewer than in English text, so that other languages are not counted too low
_PATCH = 32  # pixels of an edge
_LINE = json.JSONEncoder(ensure_ascii=False)
_IMAGE_TOKENS = (1024, 1536)  # an image of 512x512 counted as 1,024; more than 1,536 patches were never billed


class LineEstimate(NamedTuple):
    """What a request takes of a batch: images, bytes of its line in the output and in the input, and input tokens."""

    images: int
    output_bytes: int
    tokens: int
    input_bytes: int


class ParamsEstimate(NamedTuple):
    """What the parameters of requests take of a batch, whatever prompts and input images they are sent with."""

    image_bytes: int  # of each image in the output
    tokens: int  # of images that the parameters name
    input_bytes: int

    @classmethod
    def of(cls, params: Mapping[str, object], served_by: str, model: Model | None) -> ParamsEstimate:
        """Return what the parameters take, with the model's defaults for those that are missing."""
        effective = model.with_defaults(served_by, params) if model else params
        return cls(
            image_bytes=math.ceil(image_bytes(effective) * _BASE64) + _AROUND_IMAGE,
            tokens=count_references(params) * _IMAGE_TOKENS[1],
            input_bytes=len(_LINE.encode(["", dict(params)]).encode()) - len('""'),
        )

    def line(self, prompt: str | None, n: int, inputs: Sequence[tuple[int, int]]) -> LineEstimate:
        """Return what a request with these parameters takes: see `estimate_line`."""
        text_tokens = -(-len((prompt or "").encode()) // _BYTES_PER_TOKEN)
        sent = self.input_bytes + len(_LINE.encode(prompt).encode())
        tokens = text_tokens + sum(_image_tokens(*size) for size in inputs) + self.tokens
        output_bytes = _AROUND_LINE + n * self.image_bytes
        return LineEstimate(n, output_bytes, tokens, _AROUND_LINE + sent + _AROUND_INPUT * len(inputs))


@dataclass(slots=True)
class BatchEstimate:
    """What the lines of one batch take together."""

    requests: int = 0
    images: int = 0
    output_bytes: int = 0
    tokens: int = 0
    input_bytes: int = 0

    def has_room(self, line: LineEstimate, rules: BatchRules) -> bool:
        """Return whether a line may be added within the bounds. The first one may, since it may exceed them alone."""
        room = enqueued_room(rules)
        return not self.requests or (
            self.requests < rules.most_requests
            and self.images + line.images <= rules.most_images
            and self.output_bytes + line.output_bytes <= rules.most_output_bytes
            and self.input_bytes + line.input_bytes <= rules.most_bytes
            and (room is None or self.tokens + line.tokens <= room)
        )

    def add(self, line: LineEstimate) -> None:
        """Count a line."""
        self.requests += 1
        self.images += line.images
        self.output_bytes += line.output_bytes
        self.tokens += line.tokens
        self.input_bytes += line.input_bytes


def estimate_line(
    prompt: str | None,
    params: Mapping[str, object],
    n: int,
    inputs: Sequence[tuple[int, int]],
    served_by: str,
    model: Model | None,
) -> LineEstimate:
    """Return what a request for `n` images takes of a batch.

    `inputs` are (width, height) of all uploaded images, the mask included: whether the service counts it is not known.
    Nor is whether `n` multiplies the tokens; here they count once.
    """
    return ParamsEstimate.of(params, served_by, model).line(prompt, n, inputs)


def image_bytes(params: Mapping[str, object]) -> float:
    """Return the bytes of one output image; a format that is not known counts as PNG."""
    form = params.get("output_format")
    if form == "svg":
        return _SVG_BYTES
    width, height = parse_size(params.get("size")) or _AUTO_SIZE
    frames = params.get("frame_count", _FRAMES) if form == "gif" else 1
    pixels = width * height * (frames if isinstance(frames, int) else _FRAMES)
    return pixels * _BYTES_PER_PIXEL.get(str(form), _BYTES_PER_PIXEL["png"])


def _image_tokens(width: int, height: int) -> int:
    patches = -(-width // _PATCH) * -(-height // _PATCH)
    least, most = _IMAGE_TOKENS
    return max(least, min(most, patches))


def enqueued_room(rules: BatchRules, stated: int | None = None) -> int | None:
    """Return how many tokens the living batches of a model may have together; None if that is unknown.

    `stated` is a limit that the service has named.
    """
    limits = [limit for limit in (rules.enqueued_tokens, stated) if limit is not None]
    return int(min(limits) * ENQUEUED_SHARE) if limits else None


def cut_batches(lines: Iterable[LineEstimate], rules: BatchRules) -> list[BatchEstimate]:
    """Cut lines of one endpoint and model, in their order, into batches within the bounds."""
    batches: list[BatchEstimate] = []
    for line in lines:
        if not batches or not batches[-1].has_room(line, rules):
            batches.append(BatchEstimate())
        batches[-1].add(line)
    return batches


def count_waves(batches: Iterable[BatchEstimate], rules: BatchRules) -> int:
    """Return in how many waves the batches of one model are sent, each as large as its queue has room for."""
    room = enqueued_room(rules)
    waves, queued = 0, 0
    for batch in batches:
        if waves == 0 or (room is not None and queued + batch.tokens > room):
            waves, queued = waves + 1, 0
        queued += batch.tokens
    return waves
