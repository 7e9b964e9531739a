"""Which requests can go by batch: by their model, their operation and their provider."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.config.batch_rules import BatchRules
from pipeline.models.batch_eligibility import batch_fault, ends_too_soon, shutdown_reason
from pipeline.models.table import Models

MODELS = Models.load()
RULES = BatchRules()
GPT_IMAGE = [
    *("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "chatgpt-image-latest", "gpt-image-2", "gpt-image-2.5-flare"),
    *("gpt-image-2.5-sunburst", "gpt-image-2.6-flare", "gpt-image-2.6-sunburst", "gpt-image-2-2026-04-21"),
]


@pytest.mark.parametrize("name", GPT_IMAGE)
@pytest.mark.parametrize("operation", ["generation", "edit"])
def test_every_gpt_image_model_goes_by_batch(name: str, operation: str) -> None:
    model = MODELS.find(name)
    assert model is not None
    assert batch_fault(name, model, operation, RULES) is None


@pytest.mark.parametrize("name", ["dall-e-2", "dall-e-3"])
def test_older_models_do_not(name: str) -> None:
    assert batch_fault(name, MODELS.find(name), "generation", RULES) == f"`{name}` cannot go by batch"


def test_a_variation_does_not_unless_it_is_served_as_an_edit() -> None:
    assert batch_fault("dall-e-2", MODELS.find("dall-e-2"), "variation", RULES) == "a variation cannot go by batch"
    model = MODELS.find("gpt-image-2")
    assert model is not None
    assert batch_fault("gpt-image-2", model, model.served_by("variation"), RULES) is None


@pytest.mark.parametrize("name", ["flux", None])
def test_a_model_that_the_table_does_not_know_is_tried(name: str | None) -> None:
    assert batch_fault(name, None, "generation", RULES) is None
    assert batch_fault(name, None, "variation", RULES) == "a variation cannot go by batch"


def test_a_provider_without_a_batch_api_takes_none() -> None:
    assert batch_fault("gpt-image-2", MODELS.find("gpt-image-2"), "edit", None) == "the provider has no Batch API"


def test_the_table_in_the_config_decides_for_own_models() -> None:
    own = {"own": {"inherits": "gpt-image-2", "batch": None}, "other": {"inherits": "dall-e-2", "batch": True}}
    models = Models.load(own)
    assert batch_fault("own", models.find("own"), "generation", RULES) is not None
    assert batch_fault("other", models.find("other"), "generation", RULES) is None


@pytest.mark.parametrize(
    ("day", "hour", "expected"),
    [(29, 23, False), (30, 0, False), (30, 1, True), (30, 12, True)],
)
def test_a_model_ends_too_soon_if_its_last_day_comes_before_a_batch_expires(
    day: int, hour: int, expected: bool
) -> None:
    model = MODELS.find("gpt-image-1.5")  # 2026-12-01
    assert model is not None
    now = datetime(2026, 11, day, hour, tzinfo=UTC).timestamp()
    assert ends_too_soon(model, now, 24) is expected
    assert shutdown_reason(model).startswith("gpt-image-1.5 is shut down on 2026-12-01")


def test_a_model_without_an_end_or_that_is_unknown_does_not_end_too_soon() -> None:
    assert not ends_too_soon(MODELS.find("gpt-image-2"), 1e12, 24)
    assert not ends_too_soon(None, 1e12, 24)
