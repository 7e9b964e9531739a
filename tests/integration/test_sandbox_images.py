"""Drawing is deterministic, fast, and in the requested format and size."""

from __future__ import annotations

import io
import random
import time
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from pipeline.sandbox.drawing.image_spec import CAPTION_CHARACTERS, ImageSpec, caption_of, seed_of
from pipeline.sandbox.drawing.images import PALETTES, draw
from pipeline.sandbox.drawing.patterns import PATTERNS
from tests.support.sandbox_client import decoded, hole, png

FILES = {"source": png("RGB", (90, 60)), "mask": hole((90, 60)), "plain": png("L", (8, 8))}


def spec(prompt: str = "a cat", width: int = 256, height: int = 256) -> ImageSpec:
    return ImageSpec(seed_of(prompt), caption_of(prompt), width, height)


def test_the_same_spec_gives_the_same_bytes() -> None:
    assert draw(spec(), FILES.__getitem__) == draw(spec(), FILES.__getitem__)


def test_a_hundred_prompts_give_a_hundred_images() -> None:
    assert len({draw(spec(f"cat {number}"), FILES.__getitem__) for number in range(100)}) == 100


def test_every_pattern_is_chosen_by_some_prompt() -> None:
    chosen = set()
    for number in range(100):
        rng = random.Random(seed_of(number))
        rng.choice(PALETTES)
        chosen.add(rng.choice(PATTERNS))
    assert chosen == set(PATTERNS)


@pytest.mark.parametrize("size", [(256, 256), (1024, 1536), (1792, 1024), (3840, 1280), (16, 16)])
@pytest.mark.parametrize("number", range(len(PATTERNS)))
def test_an_image_has_the_requested_size(size: tuple[int, int], number: int) -> None:
    assert decoded(draw(spec(str(number), *size), FILES.__getitem__)).size == size


def test_a_caption_is_short_and_without_control_characters() -> None:
    assert caption_of("  a\n\x00cat\t ") == "a cat"
    assert len(caption_of("word " * 100)) <= CAPTION_CHARACTERS
    assert caption_of("\u732b") == "\u732b"


def test_the_caption_is_drawn_on_the_image() -> None:
    with_words = decoded(draw(replace(spec(), caption="a cat"), FILES.__getitem__)).convert("RGB")
    without = decoded(draw(replace(spec(), caption=""), FILES.__getitem__)).convert("RGB")
    assert with_words.crop((0, 0, 256, 220)).tobytes() == without.crop((0, 0, 256, 220)).tobytes()
    assert with_words.tobytes() != without.tobytes()


@pytest.mark.parametrize("mask", [None, "mask"])
def test_an_edit_without_a_mask_changes_the_middle_and_keeps_the_corners(mask: str | None) -> None:
    edited = replace(spec(), source="source", mask=mask, keeps_source=True)
    content = decoded(draw(edited, FILES.__getitem__)).convert("RGB")
    assert content.getpixel((2, 2)) == (0xC0, 0x49, 0x6B)
    assert content.getpixel((200, 128)) != (0xC0, 0x49, 0x6B)


def _edited(source: Image.Image, **saved: Any) -> Image.Image:
    """The result of an edit of a source, in its colours."""
    stream = io.BytesIO()
    source.save(stream, "JPEG" if saved else "PNG", **saved)
    edited = replace(spec(), source="source", keeps_source=True)
    return decoded(draw(edited, {"source": stream.getvalue()}.__getitem__)).convert("RGB")


def test_an_edit_keeps_the_brightness_of_16_bit_grey() -> None:
    assert _edited(Image.new("I;16", (90, 60), 0x7CFF)).getpixel((2, 2)) == (0x7C, 0x7C, 0x7C)


def test_an_edit_of_a_photograph_that_is_turned_by_exif_is_upright() -> None:
    exif, photograph = Image.Exif(), Image.new("RGB", (64, 64), "black")
    exif[0x0112] = 6  # its left side is the top
    photograph.paste("white", (0, 0, 24, 64))
    edited = _edited(photograph, exif=exif, quality=95)
    tones = [edited.crop((x, y, x + 1, y + 1)).convert("L").tobytes()[0] for x, y in [(2, 2), (253, 2), (2, 200)]]
    assert [tone > 128 for tone in tones] == [True, True, False]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_variation_is_drawn_from_any_source(name: str) -> None:
    assert decoded(draw(replace(spec(), source=name), FILES.__getitem__)).size == (256, 256)


def test_less_compression_quality_makes_a_smaller_jpeg() -> None:
    sizes = [len(draw(replace(spec(), format="jpeg", compression=q), FILES.__getitem__)) for q in (0, 50, 100)]
    assert sizes == sorted(set(sizes))


def test_a_megapixel_is_drawn_fast_enough() -> None:
    start = time.process_time()
    for number in range(10):
        with Image.open(io.BytesIO(draw(spec(str(number), 1024, 1024), FILES.__getitem__))) as drawn:
            assert drawn.size == (1024, 1024)
    assert (time.process_time() - start) / 10 < 0.25, "about 12 ms each on a small machine; this is twenty times that"
