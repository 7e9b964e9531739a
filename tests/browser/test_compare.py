"""The report the morning after: flags, what was made again, and images side by side under one zoom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.test_report_page import _captions, _written
from tests.support.browser import pale_texts, wait_until
from tests.support.exhibits import asked, drawn, hang

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.support.browser import Viewer
    from tests.support.workbench import Bench

COMPLETE = "[...document.querySelectorAll('.seen img')].every((one) => one.complete && one.naturalWidth > 0)"
PLACES = """() => [...document.querySelectorAll('.seen img')].map((image) => {
  const [box, pane] = [image.getBoundingClientRect(), image.parentElement.getBoundingClientRect()];
  const middle = (from, size, start, all) => (start + all / 2 - from) / size; // of the pane, in parts of the image
  return { x: middle(box.x, box.width, pane.x, pane.width), y: middle(box.y, box.height, pane.y, pane.height),
    fill: Math.max(box.width / pane.width, box.height / pane.height), shape: box.width / box.height };
})"""


@pytest.fixture
def page(bench: Bench, viewer: Viewer) -> Page:
    """A report of five requests of different shapes; the second was made again, the third and the fifth are flagged."""
    sizes = [(48, 32), (64, 64), (32, 48), (48, 48), (48, 48)]
    bench.submit(*(asked(number, f"prompt {number}", id=f"r{number}") for number in range(5)))
    for number, size in enumerate(sizes):
        images = [drawn(number, size), drawn(number + 50, size)] if number == 1 else [drawn(number, size)]
        hang(bench, number, *images)
    bench.set("UPDATE image SET redo = 'replaced' WHERE request = 2 AND number = 1")
    bench.set("UPDATE image SET width = 256, height = 256 WHERE request NOT IN (3)")
    bench.set("UPDATE image SET is_blank = 1 WHERE request = 5")
    return viewer.open(_written(bench))


def _open(page: Page, *numbers: int) -> None:
    """Choose these tiles with the key, and compare them."""
    for number in numbers:
        page.locator(".tile .open").nth(number).focus()
        page.keyboard.press("c")
    page.locator("#compare").click()
    wait_until(page, COMPLETE)


def _places(page: Page) -> Any:
    return page.evaluate(PLACES)


def test_two_to_four_images_are_side_by_side_and_no_other_number(page: Page) -> None:
    assert page.locator("#compare").is_disabled()
    page.locator(".tile .open").first.focus()
    page.keyboard.press("c")
    assert page.locator("#compare").is_disabled()
    assert page.locator("#compare").inner_text() == "Compare (1)"
    for number in (1, 2, 3, 4):
        page.locator(".tile").nth(number).hover()
        page.locator(".tile").nth(number).locator(".compare").click()
    assert page.locator("#compare").inner_text() == "Compare (4)"
    assert page.locator("#said").inner_text() == "4 images are compared at most"
    page.locator("#compare").click()
    boxes = [page.locator(".pane").nth(number).bounding_box() for number in range(4)]
    assert len({round(box["y"]) for box in boxes if box}) == 1
    assert len({round(box["x"]) for box in boxes if box}) == 4
    page.keyboard.press("Escape")
    assert not page.locator("#comparison").is_visible()
    page.locator(".tile .open").first.focus()
    page.keyboard.press("c")
    assert page.locator("#compare").inner_text() == "Compare (3)"


def test_one_zoom_and_one_place_hold_for_all(page: Page) -> None:
    _open(page, 0, 1, 2)
    fitted = _places(page)
    assert [round(one["shape"], 2) for one in fitted] == [1.5, 1.0, 0.67]
    assert all(abs(one["fill"] - 1) < 0.01 and abs(one["x"] - 0.5) < 0.01 for one in fitted)
    for _ in range(3):
        page.keyboard.press("+")
    assert page.locator("#zoom").inner_text() == "338 %"
    assert all(abs(one["fill"] - 3.375) < 0.03 for one in _places(page))
    box = page.locator(".seen").nth(1).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 90, box["y"] + box["height"] / 2 + 40, steps=3)
    page.mouse.up()
    moved = _places(page)
    assert moved[0]["x"] > 0.55
    assert moved[0]["y"] < 0.5
    assert all(abs(one[axis] - moved[0][axis]) < 0.01 for one in moved for axis in ("x", "y"))
    page.locator("#zoom-fit").click()
    assert all(abs(one["fill"] - 1) < 0.01 and abs(one["x"] - 0.5) < 0.01 for one in _places(page))
    page.mouse.move(box["x"] + 20, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -300)
    wait_until(page, "document.getElementById('zoom').textContent !== '100 %'")
    wheeled = _places(page)
    assert wheeled[0]["x"] < 0.45
    assert all(
        abs(one["x"] - wheeled[0]["x"]) < 0.01 and abs(one["fill"] - wheeled[0]["fill"]) < 0.01 for one in wheeled
    )


def test_images_are_marked_where_they_are_compared(page: Page) -> None:
    _open(page, 0, 1)
    page.locator(".pane .reject").nth(1).click()
    page.locator(".seen").first.focus()
    page.keyboard.press("a")
    assert page.locator(".pane [aria-pressed=true]").all_inner_texts() == ["Accept", "Reject"]
    page.locator("#compare-close").click()
    assert page.locator(".tile[data-mark]").evaluate_all("all => all.map((one) => one.dataset.mark)") == [
        "accept",
        "reject",
    ]
    assert page.locator("#redo code").inner_text().startswith("pipeline redo job --picks picks.jsonl")
    assert "1 rejected image again" in page.locator("#redo").inner_text()


def test_flags_are_shown_and_filtered(page: Page) -> None:
    assert page.locator("#flag option").all_inner_texts() == [
        *("all", "blank (1)", "wrong size (1)", "made again, and the old ones (2)"),
    ]
    assert page.locator(".badges").all_inner_texts() == ["wrong size", "blank"]
    page.select_option("#flag", "blank")
    assert _captions(page) == ["prompt 4"]
    assert page.locator("#count").inner_text() == "1 image"
    page.locator(".tile .open").click()
    assert "blank" in page.locator(".panel dl").inner_text()


def test_what_was_made_again_stands_beside_the_old_image(page: Page) -> None:
    assert page.locator(".tile").count() == 5
    page.select_option("#flag", "replaced")
    assert _captions(page) == ["prompt 1", "prompt 1"]
    assert page.locator(".badges").all_text_contents() == ["replaced"]
    page.locator(".tile .open").nth(1).focus()
    page.keyboard.press("x")  # what is replaced is not marked
    assert page.locator("#save").is_disabled()
    _open(page, 0, 1)
    assert page.locator(".pane figcaption > span").all_inner_texts() == ["r1-2.png", "r1-1.png · replaced"]
    assert page.locator(".pane .reject").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_texts_can_be_read(bench: Bench, viewer: Viewer, scheme: str) -> None:
    bench.submit(*(asked(number, id=f"r{number}") for number in range(2)))
    for number in range(2):
        hang(bench, number, drawn(number))
    page = viewer.open(_written(bench), scheme=scheme)
    assert pale_texts(page) == []
    _open(page, 0, 1)
    page.locator(".pane .accept").first.click()
    assert pale_texts(page) == []
