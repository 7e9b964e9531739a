"""Costs are those that OpenAI publishes; what is guessed is said, and a bound is a bound."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.prices import grid_tokens
from pipeline.models.table import Models

if TYPE_CHECKING:
    from pipeline.models.model import Model

TABLE = Models.load()


def model(name: str) -> Model:
    found = TABLE.find(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ("1024x1024", (196, 439, 1756, 3122, 7024)),
        ("1536x1024", (158, 343, 1372, 2459, 5488)),
        ("1024x1536", (158, 343, 1372, 2459, 5488)),
        ("2048x1152", (157, 367, 1413, 2511, 5650)),
        ("2048x2048", (397, 892, 3568, 6343, 14272)),
        ("3840x2160", (371, 865, 3336, 5930, 13342)),
    ],
)
def test_the_token_table_of_the_free_sizes_is_exact(size: str, tokens: tuple[int, ...]) -> None:
    width, height = map(int, size.split("x"))
    assert tuple(grid_tokens(edge, width, height) for edge in (16, 24, 48, 64, 96)) == tokens


SQUARE, WIDE, TALL = "1024x1024", "1536x1024", "1024x1536"
PER_IMAGE = {  # USD, output only: OpenAI's image guide and model pages
    "gpt-image-1": {"low": (0.011, 0.016), "medium": (0.042, 0.063), "high": (0.167, 0.25)},
    "gpt-image-1-mini": {"low": (0.005, 0.006), "medium": (0.011, 0.015), "high": (0.036, 0.052)},
    "gpt-image-1.5": {"low": (0.009, 0.013), "medium": (0.034, 0.05), "high": (0.133, 0.20)},
    "gpt-image-2": {"low": (0.006, 0.005), "medium": (0.053, 0.041), "high": (0.211, 0.165)},
    "gpt-image-2.5-flare": {
        "low": (0.006, 0.005),
        "medium": (0.013, 0.010),
        "high": (0.053, 0.041),
        "xhigh": (0.094, 0.074),
        "max": (0.211, 0.165),
    },
}


@pytest.mark.parametrize(
    ("name", "quality", "size", "usd"),
    [
        (name, quality, size, usd[size != SQUARE])
        for name, qualities in PER_IMAGE.items()
        for quality, usd in qualities.items()
        for size in (SQUARE, TALL)
    ],
)
def test_the_published_prices_of_a_picture_are_met(name: str, quality: str, size: str, usd: float) -> None:
    estimate = model(name).estimate("generation", "", {"quality": quality, "size": size}, 1, [])
    assert estimate.usd is not None
    assert estimate.usd == pytest.approx(usd, abs=0.0008)  # the guide rounds .0507 to .05


@pytest.mark.parametrize(
    ("name", "params", "usd"),
    [
        ("dall-e-2", {"size": "256x256"}, 0.016),
        ("dall-e-2", {"size": "512x512"}, 0.018),
        ("dall-e-2", {}, 0.020),
        ("dall-e-3", {}, 0.040),
        ("dall-e-3", {"size": "1792x1024"}, 0.080),
        ("dall-e-3", {"quality": "hd"}, 0.080),
        ("dall-e-3", {"quality": "hd", "size": "1024x1792"}, 0.120),
    ],
)
def test_dall_e_costs_a_price_a_picture(name: str, params: dict[str, object], usd: float) -> None:
    one = model(name)
    operation = "generation"
    assert one.estimate(operation, "a" * 900, params, 3, []).usd == pytest.approx(3 * usd)
    assert one.max_cost(operation, "a" * 900, params, 3, []) == pytest.approx(3 * usd)
    assert one.cost(operation, params, 2, None).usd == pytest.approx(2 * usd)


def test_variations_and_edits_of_dall_e_cost_the_same() -> None:
    for operation in ("edit", "variation"):
        assert model("dall-e-2").cost(operation, {"size": "512x512"}, 1, None).usd == 0.018


def test_usage_goes_before_any_table() -> None:
    usage = {"input_tokens": 12, "output_tokens": 784, "total_tokens": 796}
    assert model("gpt-image-2").cost("generation", {"quality": "high"}, 1, usage).usd == 0.02358


@pytest.mark.parametrize(
    ("name", "usage", "usd"),
    [
        (
            "gpt-image-2",
            {
                "input_tokens": 1151,
                "output_tokens": 1000,
                "input_tokens_details": {"text_tokens": 127, "image_tokens": 1024},
            },
            (127 * 5 + 1024 * 8 + 1000 * 30) / 1e6,
        ),
        (
            "gpt-image-1.5",
            {
                "input_tokens": 20,
                "output_tokens": 1200,
                "input_tokens_details": {"text_tokens": 20, "image_tokens": 0},
                "output_tokens_details": {"image_tokens": 1056, "text_tokens": 144},
            },
            (20 * 5 + 1056 * 32 + 144 * 10) / 1e6,
        ),
        ("gpt-image-1-mini", {"input_tokens": 100, "output_tokens": 272}, (100 * 2.5 + 272 * 8) / 1e6),
        ("gpt-image-2", {"input_tokens": 100, "output_tokens": 272}, (100 * 8 + 272 * 30) / 1e6),
    ],
)
def test_usage_is_split_by_its_details_and_counted_dear_where_it_has_none(
    name: str, usage: dict[str, Any], usd: float
) -> None:
    assert model(name).cost("edit", {}, 1, usage).usd == pytest.approx(usd, abs=1e-8)


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 0, "output_tokens": 0}, {"output_tokens": "many"}])
def test_usage_that_counts_nothing_is_replaced_by_the_table(usage: dict[str, Any] | None) -> None:
    params = {"quality": "medium", "size": SQUARE}
    assert model("gpt-image-2").cost("generation", params, 2, usage).usd == pytest.approx(2 * 0.05268)


HIGH = {"quality": "high", "size": SQUARE}  # 7,024 tokens: $0.21


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        ({"input_tokens": 12.0, "output_tokens": 1056.0, "total_tokens": 1068.0}, (12 * 5 + 1056 * 30) / 1e6),
        ({"prompt_tokens": 12, "completion_tokens": 1056, "total_tokens": 1068}, (12 * 5 + 1056 * 30) / 1e6),
        (
            {
                "prompt_tokens": 12,
                "completion_tokens": 1056,
                "prompt_tokens_details": {"text_tokens": 4, "image_tokens": 8},
                "completion_tokens_details": {"text_tokens": 56},
            },
            (4 * 5 + 8 * 8 + 1000 * 30 + 56 * 30) / 1e6,
        ),
        ({"input_tokens": 0, "output_tokens": 0, "prompt_tokens": 12, "completion_tokens": 1056}, 0.03174),
        ({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "cost": 0.25}, 0.25),
        ({"cost": 0.03}, 0.03),
        ({"input_tokens": 12, "output_tokens": 1056, "cost": 0.25}, 0.03174),
    ],
)
def test_usage_is_read_under_the_names_of_other_servers(usage: dict[str, Any], usd: float) -> None:
    assert model("gpt-image-2").cost("generation", HIGH, 1, usage).usd == pytest.approx(usd, abs=1e-8)


@pytest.mark.parametrize("cost", [0, -1, True, "0.25", None, float("nan"), float("inf"), 25_000_000])
def test_a_stated_cost_that_is_none_is_replaced_by_the_table(cost: object) -> None:
    assert model("gpt-image-2").cost("generation", HIGH, 1, {"cost": cost}).usd == pytest.approx(7024 * 30 / 1e6)


@pytest.mark.parametrize(
    ("usage", "ignored"),
    [
        ({"input_tokens": 12, "output_tokens": 1, "total_tokens": 13}, (12 * 5 + 30) / 1e6),
        ({"output_tokens": 700}, 0.021),
        ({"cost": 0.001}, 0.001),
    ],
)
def test_usage_far_below_the_table_does_not_count_and_is_told(usage: dict[str, Any], ignored: float) -> None:
    for n in (1, 3):
        found = model("gpt-image-2").cost("generation", HIGH, n, {name: n * usage[name] for name in usage})
        assert found.usd == pytest.approx(n * 7024 * 30 / 1e6)
        assert found.ignored_usd == pytest.approx(n * ignored)
    assert model("gpt-image-2").cost("generation", HIGH, 1, usage).usd == pytest.approx(7024 * 30 / 1e6)


def test_usage_of_a_tenth_of_the_table_counts() -> None:
    found = model("gpt-image-2").cost("generation", HIGH, 1, {"output_tokens": 703})
    assert (found.usd, found.ignored_usd) == (703 * 30 / 1e6, None)


def test_auto_may_be_the_cheapest_quality() -> None:
    usage = {"output_tokens": 196}  # low
    assert model("gpt-image-2").cost("generation", {}, 1, usage).ignored_usd is None
    assert model("gpt-image-2").cost("generation", {}, 1, usage).usd == 196 * 30 / 1e6
    assert model("gpt-image-2").cost("generation", {}, 1, {"output_tokens": 5}).ignored_usd == 150 / 1e6


def test_a_response_without_an_image_costs_what_its_usage_says() -> None:
    found = model("gpt-image-2").cost("generation", HIGH, 0, {"input_tokens": 100, "output_tokens": 1})
    assert (found.usd, found.ignored_usd) == ((100 * 5 + 30) / 1e6, None)


def test_a_price_an_image_is_replaced_by_a_stated_cost_only() -> None:
    one = model("dall-e-3")
    assert one.cost("generation", {}, 1, {"output_tokens": 9}).usd == 0.04
    assert one.cost("generation", {}, 1, {"cost": 0.05}).usd == 0.05
    assert one.cost("generation", {}, 1, {"cost": 0.003}).usd == 0.04


def test_what_has_no_price_is_none_and_never_0() -> None:
    lab = Models.load({"lab": {"operations": ["generation"], "prompt": 9, "n": 1}}).find("lab")
    assert lab is not None
    estimate = lab.estimate("generation", "a", {}, 1, [])
    assert estimate.usd is None
    assert estimate.assumed == ("lab has no price in the table",)
    assert lab.max_cost("generation", "a", {}, 1, []) is None
    assert lab.cost("generation", {}, 1, {"output_tokens": 5}).usd is None
    svg = {"output_format": "svg"}
    assert model("gpt-image-2.6-flare").estimate("generation", "a", svg, 1, []).usd is None
    assert model("gpt-image-2.6-flare").cost("generation", svg, 1, {"output_tokens": 5}).usd is None
    assert model("gpt-image-1").estimate("generation", "a", {"size": "640x640"}, 1, []).usd is None


def test_what_is_guessed_is_said() -> None:
    assumed = " | ".join(model("gpt-image-2.6-flare").estimate("edit", "a cat", {}, 1, [(1024, 1024)]).assumed)
    for words in ("quality auto counted as high", "size auto counted as 1024x1024", "one token per 4 characters"):
        assert words in assumed
    assert "input images counted as 1,536 tokens each" in assumed
    assert "not verified" in assumed
    stated = model("gpt-image-2").estimate("generation", "a cat", {"quality": "low", "size": SQUARE}, 1, [])
    assert stated.assumed == ("the prompt counted as one token per 4 characters",)


def test_a_faithful_input_costs_more() -> None:
    one = model("gpt-image-1")
    faithful = one.estimate("edit", "a", {"input_fidelity": "high"}, 1, [(9, 9)]).usd
    plain = one.estimate("edit", "a", {}, 1, [(9, 9)]).usd
    assert faithful is not None
    assert plain is not None
    assert faithful - plain == pytest.approx(6240 * 10 / 1e6)


def test_a_partial_image_costs_100_tokens() -> None:
    one = model("gpt-image-2")
    params = {"quality": "low", "size": SQUARE}
    more = one.estimate("generation", "", params | {"partial_images": 3}, 1, []).usd
    assert more == pytest.approx(300 * 30 / 1e6 + 196 * 30 / 1e6)


def test_the_bound_takes_the_dearest_of_what_is_left_open() -> None:
    one = model("gpt-image-2")
    dearest = grid_tokens(96, 2880, 2880) * 30 / 1e6
    bound = one.max_cost("generation", "", {}, 1, [])
    assert bound is not None
    assert dearest <= bound < dearest + 0.001
    all_sizes = [
        grid_tokens(96, width, height)
        for width, height in product(range(256, 3841, 64), repeat=2)
        if max(width, height) <= 3 * min(width, height) and 655_360 <= width * height <= 8_294_400
    ]
    assert max(all_sizes) <= grid_tokens(96, 2880, 2880)


NAMES = [name for name in sorted(TABLE.by_name) if not name.startswith("dall-e")]


@given(
    name=st.sampled_from(NAMES),
    operation=st.sampled_from(["generation", "edit"]),
    prompt=st.text(max_size=200),
    params=st.fixed_dictionaries(
        {
            "quality": st.sampled_from([None, "auto", "low", "high"]),
            "size": st.sampled_from([None, "auto", SQUARE, TALL, WIDE]),
            "input_fidelity": st.sampled_from([None, "low", "high"]),
        }
    ),
    counts=st.tuples(st.integers(1, 10), st.integers(0, 16)),
)
def test_the_bound_is_never_below_the_estimate(
    name: str, operation: str, prompt: str, params: dict[str, object], counts: tuple[int, int]
) -> None:
    n, inputs = counts
    estimate = model(name).estimate(operation, prompt, params, n, [(1024, 1024)] * inputs)
    bound = model(name).max_cost(operation, prompt, params, n, [(1024, 1024)] * inputs)
    assert estimate.usd is not None
    assert bound is not None
    assert 0 < estimate.usd <= bound
