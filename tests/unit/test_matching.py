"""Which calls explain the images that a provider counts."""

from __future__ import annotations

from typing import Any

from pipeline.reconcile.matching import Counted, Expected, Kind, Matching

CAT = Kind("dall-e-2", "256x256", "image.generation")
ANY_SIZE = Kind("dall-e-2", None, "image.generation")


def call(
    pk: int, at: float, images: int = 1, *, kind: Kind = CAT, latest: float | None = None, **more: Any
) -> Expected:
    return Expected(pk, kind, images, at - 10, at, at if latest is None else latest, **more)


def test_a_call_explains_images_of_its_kind_in_its_minute() -> None:
    matching = Matching([Counted(600, CAT, 3), Counted(600, Kind("dall-e-3", "256x256", "image.generation"), 1)])
    assert matching.explain([call(1, 630, 2), call(2, 640)]) == {1, 2}
    assert [(one.kind.model, one.left) for one in matching.left()] == [("dall-e-3", 1)]


def test_a_call_for_more_images_than_are_left_explains_none() -> None:
    matching = Matching([Counted(600, CAT, 3)])
    assert matching.explain([call(1, 630, 4)]) == set()
    assert [one.left for one in matching.left()] == [3]


def test_the_minute_of_a_call_is_preferred_to_its_neighbours() -> None:
    matching = Matching([Counted(540, CAT, 1), Counted(600, CAT, 1), Counted(660, CAT, 1)])
    assert matching.explain([call(1, 659), call(2, 661), call(3, 662), call(4, 1000)]) == {1, 2, 3}
    assert {pk: matching.start_of(pk) for pk in (1, 2)} == {1: 600, 2: 660}
    assert matching.left() == []


def test_of_calls_that_could_explain_an_image_the_one_that_ends_first_does() -> None:
    matching = Matching([Counted(600, CAT, 1)])
    assert matching.explain([call(1, 610, latest=2000), call(2, 615, latest=620)]) == {2}


def test_a_call_whose_server_works_on_is_found_later() -> None:
    matching = Matching([Counted(1200, CAT, 1)])
    assert matching.explain([call(1, 610, latest=1500)]) == {1}


def test_a_size_that_is_not_stated_may_be_any_but_comes_after_the_exact_ones() -> None:
    matching = Matching([Counted(600, CAT, 1), Counted(600, ANY_SIZE, 1)])
    assert matching.explain([call(1, 610, kind=ANY_SIZE), call(2, 611), call(3, 612, kind=ANY_SIZE)]) == {1, 2}
    assert matching.left() == []


def test_other_calls_are_not_explained_by_another_operation() -> None:
    matching = Matching([Counted(600, Kind("dall-e-2", "256x256", "image.edit"), 1)])
    assert matching.explain([call(1, 610)]) == set()


def test_an_answer_with_fewer_images_explains_those_that_it_lacked() -> None:
    matching = Matching([Counted(600, CAT, 4)])
    short = call(1, 610, 2, lacking=3)
    assert matching.explain([short]) == {1}
    assert matching.explain_lacking([short, call(2, 10, lacking=1)]) == 2
    assert matching.left() == []
