"""What becomes of calls of unknown outcome, and which images are not ours."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pipeline.client.usage import InvoiceLine, UsedImages
from pipeline.ledger.charged_calls import ChargedCall
from pipeline.models.table import Models
from pipeline.reconcile.prices import compare_prices
from pipeline.reconcile.reconciliation import DAY, Foreign, Reconciliation, reconcile

MODELS = Models.load({})
NOON = 20_000 * DAY + DAY // 2
LATER = NOON + 7200.0


def made(pk: int, sent_at: float, seconds: float | None = 10, **more: Any) -> ChargedCall:
    """Return an answered call for one image; of unknown outcome if `outcome` says so."""
    fields: dict[str, Any] = {
        "attempt_pk": pk,
        "request_pk": pk,
        "job": "night",
        "id": f"r{pk}",
        "provider": "lab",
        "operation": "generation",
        "model": "dall-e-2",
        "size": "256x256",
        "quality": None,
        "n": 1,
        "images": 1,
        "outcome": "answered",
        "settled": None,
        "cost_usd": 0.016,
        "estimate_usd": 0.02,
        "first_sent_at": sent_at,
        "sent_at": sent_at,
        "ended_at": None if seconds is None else sent_at + seconds,
        "is_line": False,
        "http_status": None,
        "error_type": None,
        "idempotency_key": f"key-{pk}",
        "number": 1,
    }
    return ChargedCall(**{**fields, **more})


def lost(pk: int, sent_at: float, seconds: float | None = 10, **more: Any) -> ChargedCall:
    fields = {"outcome": "unknown", "cost_usd": None, "error_type": "ServerDisconnectedError"}
    return made(pk, sent_at, seconds, **{**fields, **more})


def used(at: float, images: int = 1, size: str | None = "256x256", model: str = "dall-e-2") -> UsedImages:
    return UsedImages(int(at // 60) * 60, model, size, "image.generation", images)


def compare(*calls: ChargedCall, usage: list[UsedImages], since: float = NOON, now: float = LATER) -> Reconciliation:
    return reconcile(["lab"], calls, usage, MODELS, since=since, now=now)


def findings(result: Reconciliation) -> dict[int, str]:
    return {one.call.attempt_pk: one.finding for one in result.unknown}


def test_what_no_answer_explains_was_charged_for_the_call_that_lost_its_response() -> None:
    result = compare(made(1, NOON), lost(2, NOON), made(3, NOON + 60), usage=[used(NOON, 2), used(NOON + 60)])
    assert (result.matched, findings(result), result.foreign) == (3, {2: "charged"}, [])
    assert (result.is_explained, result.complete_until) == (True, NOON + 120)


def test_what_is_not_counted_although_a_later_answer_is_was_not_charged() -> None:
    result = compare(lost(1, NOON), made(2, NOON + 5), usage=[used(NOON)])
    assert (findings(result), result.is_explained) == ({1: "not_charged"}, True)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lost(1, NOON + 55), "it ended after the minute of the last answer that is counted"),
        (lost(1, NOON, error_type="TimeoutError"), "the server may work on"),
        (lost(1, NOON, error_type=None, http_status=504), "the server behind the gateway may work on"),
        (lost(1, NOON, None, outcome=None), "it is in flight"),
        (lost(1, NOON, is_line=True), "whether lines of batches are counted is not known"),
        (lost(1, NOON + 45, 3600, error_type="interrupted"), "its server may work as long as the slowest did"),
    ],
)
def test_what_may_still_be_counted_is_open(call: ChargedCall, reason: str) -> None:
    result = compare(call, made(2, NOON + 5), usage=[used(NOON)])
    assert (findings(result), result.is_explained) == ({1: "open"}, False), reason


def test_what_is_older_than_yesterday_is_complete_without_an_answer() -> None:
    result = compare(lost(1, NOON), usage=[], now=NOON + 3 * DAY)
    assert findings(result) == {1: "not_charged"}


def test_a_call_that_our_death_cut_off_is_found_when_its_server_had_made_it() -> None:
    died = lost(1, NOON, 3600, error_type="interrupted")
    result = compare(died, made(2, NOON, 100), usage=[used(NOON + 100, 2)])
    assert findings(result) == {1: "charged"}
    result = compare(died, made(2, NOON + 300, 100), usage=[used(NOON + 400)])
    assert findings(result) == {1: "not_charged"}


def test_a_replay_was_made_when_its_purchase_was_first_sent() -> None:
    result = compare(made(1, NOON + 3000, first_sent_at=NOON), usage=[used(NOON)])
    assert (result.matched, result.foreign, result.missing) == (1, [], [])


def test_what_was_settled_as_charged_explains_its_image() -> None:
    result = compare(lost(1, NOON, settled="charged", cost_usd=0.016), usage=[used(NOON)])
    assert (result.matched, result.unknown) == (1, [])


def test_an_answer_that_is_not_counted_is_named_once_later_ones_are() -> None:
    calls = [made(1, NOON), made(2, NOON + 600), made(3, NOON + 1200), made(4, NOON + 300, is_line=True)]
    result = compare(*calls, usage=[used(NOON), used(NOON + 1200)])
    assert [one.attempt_pk for one in result.missing] == [2]
    assert not result.is_explained


def test_images_that_no_call_of_ours_explains_are_foreign() -> None:
    result = compare(made(1, NOON), usage=[used(NOON), used(NOON + 600, 3), used(NOON + 600, 1, model="gpt-image-2")])
    assert [(one.kind.model, one.images, one.cost_usd) for one in result.foreign] == [
        ("dall-e-2", 3, pytest.approx(0.048)),
        ("gpt-image-2", 1, None),
    ]
    assert not result.is_explained


def test_calls_from_before_may_explain_what_is_counted_and_need_not_be() -> None:
    before = [made(1, NOON - 20), made(2, NOON - 40, 30), lost(3, NOON - 40, 30)]
    result = compare(*before, usage=[used(NOON, 1)], since=NOON)
    assert (result.matched, result.missing, result.foreign, result.unknown) == (0, [], [], [])


def test_a_snapshot_and_its_model_are_one_and_auto_is_any_size() -> None:
    name = next(snapshot for one in ("gpt-image-2", "gpt-image-1.5") for snapshot in MODELS.find(one).snapshots)  # type: ignore[union-attr]
    model = MODELS.find(name)
    assert model is not None
    asked = made(1, NOON, model=model.name, size="auto")
    result = compare(asked, usage=[used(NOON, 1, "1024x1024", name)])
    assert (result.matched, result.foreign) == (1, [])


def test_a_charged_call_costs_what_the_same_request_did_else_what_its_kind_does_else_its_estimate() -> None:
    calls = [made(1, NOON, request_pk=7, cost_usd=0.5), made(2, NOON, cost_usd=0.1), lost(3, NOON, request_pk=7)]
    result = compare(
        *calls, lost(4, NOON), lost(5, NOON, size="512x512"), usage=[used(NOON, 4), used(NOON, 1, "512x512")]
    )
    assert {one.call.attempt_pk: one.cost_usd for one in result.found("charged")} == {
        3: 0.5,
        4: pytest.approx(0.3),
        5: 0.02,
    }


def _prices(result: Reconciliation, *costs: tuple[int, str, str], now: float) -> list[Any]:
    read = [InvoiceLine(day * DAY, item, Decimal(usd)) for day, item, usd in costs]
    return compare_prices(result, read, MODELS, ["dall-e-2", "gpt-image-2"], now)


def test_an_invoice_is_compared_by_day_and_model_once_it_is_complete() -> None:
    now = NOON + 5 * DAY
    calls = [made(pk, NOON + day * DAY) for pk, day in ((1, 0), (2, 1), (3, 2), (4, 4))]
    usage = [used(NOON + day * DAY) for day in (0, 1, 2, 4)]
    result = compare(*calls, usage=usage, now=now)
    day = NOON // DAY
    items = (
        (day + offset, "dall-e-2 image, output", usd) for offset, usd in ((0, "9"), (1, "0.0161"), (2, "0.5"), (4, "9"))
    )
    prices = _prices(result, *items, (day + 1, "gpt-5, input", "100"), now=now)
    assert [(one.day // DAY - day, one.is_incomplete, one.differs) for one in prices] == [
        (0, True, False),
        (1, False, False),
        (2, False, True),
        (4, True, False),
    ]
    assert (prices[1].charged_per_image, prices[1].known_per_image) == (pytest.approx(0.0161), 0.016)


def test_foreign_images_are_expected_to_cost_what_ours_do() -> None:
    now = NOON + 5 * DAY
    result = compare(made(1, NOON), usage=[used(NOON, 3)], since=NOON - DAY, now=now)
    assert [type(one) for one in result.foreign] == [Foreign]
    (price,) = _prices(result, (NOON // DAY, "dall-e-2 image, output", "0.048"), now=now)
    assert (price.images, price.foreign, price.differs) == (1, 2, False)
    (price,) = _prices(compare(usage=[used(NOON)], now=now), (NOON // DAY, "DALL-E-2, output", "0.02"), now=now)
    assert (price.images, price.known_per_image, price.differs) == (0, None, False)
