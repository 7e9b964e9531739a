"""What one request takes of a batch, and how requests are cut into batches and waves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.config.batch_rules import BatchRules
from pipeline.models.batch_estimate import (
    BatchEstimate,
    LineEstimate,
    count_waves,
    cut_batches,
    enqueued_room,
    estimate_line,
)
from pipeline.models.table import Models

MODEL = Models.load().find("gpt-image-2")
LOW = {"model": "gpt-image-2", "size": "1024x1024"}


def line(images: int = 1, output_bytes: int = 1, tokens: int = 1, input_bytes: int = 1) -> LineEstimate:
    return LineEstimate(images, output_bytes, tokens, input_bytes)


def sizes(lines: list[LineEstimate], **rules: Any) -> list[int]:
    return [batch.requests for batch in cut_batches(lines, BatchRules(**rules))]


def test_a_png_of_a_megapixel_comes_as_about_2_8_mb_and_jpeg_as_less() -> None:
    png = estimate_line("a cat", LOW, 1, [], "generation", MODEL)
    assert 2_750_000 < png.output_bytes < 2_850_000
    jpeg = estimate_line("a cat", {**LOW, "output_format": "jpeg"}, 1, [], "generation", MODEL)
    assert jpeg.output_bytes < png.output_bytes / 2


def test_n_images_take_n_times_the_output_and_the_tokens_of_one_prompt() -> None:
    one, four = (estimate_line("a cat", LOW, n, [], "generation", MODEL) for n in (1, 4))
    assert (one.images, four.images) == (1, 4)
    assert four.output_bytes == pytest.approx(4 * one.output_bytes, rel=0.01)
    assert four.tokens == one.tokens == 2


def test_a_size_that_is_auto_or_left_out_counts_as_the_largest_that_is_chosen() -> None:
    auto, none = (
        estimate_line("a cat", params, 1, [], "generation", MODEL).output_bytes
        for params in ({**LOW, "size": "auto"}, {"model": "gpt-image-2"})
    )
    assert auto == none == pytest.approx(1024 * 1536 * 2 * 4 / 3, rel=0.01)


@pytest.mark.parametrize(
    ("params", "least", "most"),
    [
        ({"output_format": "svg"}, 200_000, 400_000),
        ({"output_format": "gif", "frame_count": 2}, 2 << 20, 4 << 20),
        ({"output_format": "gif"}, 9 << 20, 14 << 20),
        ({"output_format": "gif", "frame_count": "many"}, 9 << 20, 14 << 20),
        ({"output_format": "tiff"}, 2 << 20, 3 << 20),
    ],
)
def test_other_formats_have_an_estimate_too(params: dict[str, object], least: int, most: int) -> None:
    found = estimate_line("a cat", {"size": "1024x1024", **params}, 1, [], "generation", None)
    assert least < found.output_bytes < most


def test_an_image_counts_by_its_patches_but_not_less_than_was_measured_nor_more() -> None:
    tokens = [
        estimate_line("x", LOW, 1, [size], "edit", MODEL).tokens - 1
        for size in ((512, 512), (1024, 1024), (1024, 1280), (4096, 4096))
    ]
    assert tokens == [1024, 1024, 1280, 1536]


def test_the_one_edit_that_was_measured_is_not_counted_too_low() -> None:
    # 512x512 with a prompt of about 2,500 tokens (10,000 characters of English) counted as about 3,500.
    assert estimate_line("word " * 2000, LOW, 1, [(512, 512)], "edit", MODEL).tokens >= 3500


def test_text_counts_in_bytes_so_that_other_scripts_are_not_counted_too_low() -> None:
    assert estimate_line("猫の絵を描く", LOW, 1, [], "generation", MODEL).tokens == 6


def test_a_prompt_counts_in_the_bytes_of_its_line() -> None:
    short, long = (estimate_line("x" * length, LOW, 1, [], "generation", MODEL) for length in (1, 10_001))
    assert long.input_bytes - short.input_bytes == 10_000


@pytest.mark.parametrize("prompt", [None, "", 'a "cat" \\ Ω\n', "猫"])
def test_the_bytes_of_a_line_are_those_of_its_prompt_and_parameters_as_json(prompt: str | None) -> None:
    empty = estimate_line("", {}, 1, [], "generation", None).input_bytes - len('["", {}]')
    sent = json.dumps([prompt, {**LOW, "user": "Ω"}], ensure_ascii=False).encode()
    assert estimate_line(prompt, {**LOW, "user": "Ω"}, 1, [], "generation", MODEL).input_bytes == empty + len(sent)


@pytest.mark.parametrize(
    ("lines", "rules", "expected"),
    [
        ([line()] * 5, {"most_requests": 2}, [2, 2, 1]),
        ([line(images=4)] * 5, {"most_images": 8}, [2, 2, 1]),
        ([line(output_bytes=40)] * 5, {"most_output_bytes": 100}, [2, 2, 1]),
        ([line(input_bytes=40)] * 5, {"most_bytes": 100}, [2, 2, 1]),
        ([line(tokens=40)] * 5, {"enqueued_tokens": 100}, [2, 2, 1]),
        ([line(tokens=4000)] * 5, {"enqueued_tokens": None}, [5]),
        ([line(images=10), line(), line()], {"most_images": 8}, [1, 2]),
        ([line(), line(images=10), line()], {"most_images": 8}, [1, 1, 1]),
        ([], {}, []),
    ],
)
def test_lines_are_cut_at_each_bound_and_one_alone_may_exceed_it(
    lines: list[LineEstimate], rules: dict[str, int | None], expected: list[int]
) -> None:
    assert sizes(lines, **rules) == expected


def test_an_empty_batch_has_room_for_any_line() -> None:
    assert BatchEstimate().has_room(line(images=10), BatchRules(most_images=8))


def test_batches_go_in_waves_when_the_queue_of_the_model_is_full() -> None:
    lines = [line(images=50, tokens=30)] * 8
    rules = BatchRules(most_images=100, enqueued_tokens=200)
    batches = cut_batches(lines, rules)
    assert ([batch.tokens for batch in batches], enqueued_room(rules)) == ([60, 60, 60, 60], 160)
    assert count_waves(batches, rules) == 2
    assert count_waves(batches, BatchRules(enqueued_tokens=None)) == 1
    assert count_waves([], rules) == 0
