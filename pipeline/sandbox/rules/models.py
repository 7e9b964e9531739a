"""Tables of the parameters that each model accepts, and of shutdown dates.

Read from OpenAI's OpenAPI description of 2026-08 (the last that documents dall-e), the SDK's type hints of 2026-11 for
what came later, its deprecations page of 2026-11 for the dates, and the 2023 beta guide for dall-e-2. A parameter that
is not in a table is unknown there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pipeline.sandbox.rules.fields import Boolean, Check, Choice, Fields, Integer, Size, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

Operation: TypeAlias = Literal["generation", "edit", "variation"]
Generation: TypeAlias = Literal["dall-e", "gpt-image-1", "gpt-image-2", "gpt-image-2.5"]


@dataclass(frozen=True, slots=True)
class Family:
    """Models with the same rules; an operation without a table is not supported."""

    generation: Generation
    parameters: Mapping[Operation, Mapping[str, Check]]

    @property
    def is_gpt(self) -> bool:
        """Whether these are GPT Image models: base64 only, billed by tokens, another moderation error."""
        return self.generation != "dall-e"

    @property
    def takes_markup(self) -> bool:
        """Whether an edit may be guided by a transparent overlay: from GPT Image 2.5 on."""
        return self.generation == "gpt-image-2.5"


COUNT: Final = Integer(1, 10)
IDENTIFIER: Final = Text(longest=512)
RESPONSE_FORMAT: Final = Choice(("url", "b64_json"))
SQUARES: Final = Size(("256x256", "512x512", "1024x1024"))
EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
GPT_SIZES: Final = ("1024x1024", "1536x1024", "1024x1536", "auto")

_DALL_E: Final[dict[str, Check]] = {"n": COUNT, "response_format": RESPONSE_FORMAT, "user": IDENTIFIER}
_DALL_E_2: Final[dict[str, Check]] = {**_DALL_E, "size": SQUARES}
_DALL_E_2_PROMPTED: Final[dict[str, Check]] = {
    **_DALL_E_2,
    "prompt": Text(1000, shortest=1),
    "quality": Choice(("standard",)),
}
_DALL_E_3: Final[dict[str, Check]] = {
    **_DALL_E,
    "prompt": Text(4000, shortest=1),
    "n": Integer(1, 1),
    "size": Size(("1024x1024", "1792x1024", "1024x1792")),
    "quality": Choice(("standard", "hd")),
    "style": Choice(("vivid", "natural")),
}
_GPT: Final[dict[str, Check]] = {
    "prompt": Text(32_000, shortest=1),
    "n": COUNT,
    "size": Size(GPT_SIZES, free=True),
    "quality": Choice(("low", "medium", "high", "auto")),
    "background": Choice(("transparent", "opaque", "auto")),
    "output_format": Choice(("png", "jpeg", "webp")),
    "output_compression": Integer(0, 100),
    "moderation": Choice(("low", "auto")),
    "stream": Boolean(),
    "partial_images": Integer(0, 3),
    "user": IDENTIFIER,
    "safety_identifier": IDENTIFIER,
}
_GPT_1: Final[dict[str, Check]] = {**_GPT, "size": Size(GPT_SIZES)}
_GPT_2_5: Final[dict[str, Check]] = {**_GPT, "quality": Choice(("low", "medium", "high", "xhigh", "max", "auto"))}
_GPT_2_6: Final[dict[str, Check]] = {
    **_GPT_2_5,
    "complexity": Choice(("low", "medium", "high")),
    "output_format": Choice(("png", "jpeg", "webp", "gif", "svg")),
    "frame_count": Integer(2, 16),
    "frame_duration_ms": Integer(1, 2**31 - 1),  # longer than a GIF can hold is capped, not refused
    "svg": Fields({"model": IDENTIFIER, "reasoning": Fields({"effort": Choice(EFFORTS)})}, required=("model",)),
}


def _gpt(generation: Generation, parameters: dict[str, Check], fidelity: tuple[str, ...] = ()) -> Family:
    edit = {**parameters, "input_fidelity": Choice(fidelity)} if fidelity else parameters
    return Family(generation, {"generation": parameters, "edit": edit})


DALL_E_2: Final = Family(
    "dall-e", {"generation": _DALL_E_2_PROMPTED, "edit": _DALL_E_2_PROMPTED, "variation": _DALL_E_2}
)
DALL_E_3: Final = Family("dall-e", {"generation": _DALL_E_3})
GPT_IMAGE_1: Final = _gpt("gpt-image-1", _GPT_1, ("high", "low"))
GPT_IMAGE_1_MINI: Final = _gpt("gpt-image-1", _GPT_1, ("low",))
GPT_IMAGE_2: Final = _gpt("gpt-image-2", _GPT)  # input_fidelity must be left out: it is always high
GPT_IMAGE_2_5: Final = _gpt("gpt-image-2.5", _GPT_2_5)
GPT_IMAGE_2_6: Final = _gpt("gpt-image-2.5", _GPT_2_6)  # tokens as 2.5: no formula for 2.6 is published

MODELS: Final[dict[str, Family]] = {
    "dall-e-2": DALL_E_2,
    "dall-e-3": DALL_E_3,
    "gpt-image-1": GPT_IMAGE_1,
    "gpt-image-1-mini": GPT_IMAGE_1_MINI,
    "gpt-image-1.5": GPT_IMAGE_1,
    "gpt-image-1.5-2025-12-16": GPT_IMAGE_1,
    "chatgpt-image-latest": GPT_IMAGE_1,
    "gpt-image-2": GPT_IMAGE_2,
    "gpt-image-2-2026-04-21": GPT_IMAGE_2,
    "gpt-image-2.5-sunburst": GPT_IMAGE_2_5,
    "gpt-image-2.5-sunburst-2026-09-08": GPT_IMAGE_2_5,
    "gpt-image-2.5-flare": GPT_IMAGE_2_5,
    "gpt-image-2.5-flare-2026-09-08": GPT_IMAGE_2_5,
    "gpt-image-2.6-sunburst": GPT_IMAGE_2_6,
    "gpt-image-2.6-flare": GPT_IMAGE_2_6,
}

SHUTDOWN_DATES: Final[dict[str, date]] = {
    "dall-e-2": date(2026, 5, 12),
    "dall-e-3": date(2026, 5, 12),
    "gpt-image-1": date(2026, 10, 23),
    "gpt-image-1-mini": date(2026, 12, 1),
    "gpt-image-1.5": date(2026, 12, 1),
    "gpt-image-1.5-2025-12-16": date(2026, 12, 1),
    "chatgpt-image-latest": date(2026, 12, 1),
}
"""The first day on which a model is unavailable; one that is missing here has no announced shutdown."""

DEFAULT_MODEL: Final = "dall-e-2"
DEFAULT_GPT_MODEL: Final = "gpt-image-1.5"
GPT_ONLY: Final = (_GPT_2_6.keys() | {"input_fidelity"}) - _DALL_E_3.keys()
"""Parameters that select a GPT Image model if `model` is missing (CreateImageRequest.model)."""


def is_available(model: str, today: date | None) -> bool:
    """Whether a model is available on that day; every model is if `today` is None."""
    shutdown = SHUTDOWN_DATES.get(model)
    return today is None or shutdown is None or today < shutdown
