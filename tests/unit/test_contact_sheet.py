"""The contact sheet: every image with its caption, in order, over as many pages as it takes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageFont

from pipeline.reports.contact_sheet import COLUMNS, ROWS, wrap, write_sheet
from pipeline.reports.thumbnails import SIDE
from tests.support.exhibits import asked, drawn, fail, hang

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench

FULL = COLUMNS * ROWS
LEFT, TOP = 64 + SIDE // 2, 64 + 88 + SIDE // 2  # the middle of the first picture
RIGHT, DOWN = SIDE + 28, SIDE + 8 + 4 * 21 + 28  # to that of the next


def _colour(sheet: Image.Image, place: int) -> tuple[int, ...]:
    pixel = sheet.getpixel((LEFT + place % COLUMNS * RIGHT, TOP + place // COLUMNS * DOWN))
    assert isinstance(pixel, tuple)
    return pixel


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def _near(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(a - b) < 12 for a, b in zip(one, other, strict=True))


def _own(number: int) -> tuple[int, ...]:
    pixel = Image.open(io.BytesIO(drawn(number))).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


def _sheets(bench: Bench, name: str = "sheet.png") -> list[Path]:
    return write_sheet(bench.connection, "job", bench.folder, bench.stores, bench.folder / name)


def test_pictures_stand_in_the_order_of_the_job_and_go_on_on_further_pages(bench: Bench) -> None:
    bench.submit(*(asked(number) for number in range(FULL + 2)))
    for number in reversed(range(FULL + 2)):
        hang(bench, number, drawn(number))
    paths = _sheets(bench)
    assert [path.name for path in paths] == ["sheet.png", "sheet-2.png"]
    first, second = (_opened(path) for path in paths)
    for place in (0, 1, COLUMNS, FULL - 1):
        assert _near(_colour(first, place), _own(place)), place
    assert _near(_colour(second, 1), _own(FULL + 1))
    assert first.width == second.width
    assert first.height > second.height, "the last page ends with its last row"


def test_the_same_pictures_make_the_same_bytes(bench: Bench) -> None:
    bench.submit(asked(1, "a cat"), asked(2, "a dog"))
    hang(bench, 1, drawn(1))
    hang(bench, 2, drawn(2))
    (first,) = _sheets(bench)
    (again,) = _sheets(bench, "again.png")
    assert first.read_bytes() == again.read_bytes()


def test_a_caption_is_drawn_below_its_picture(bench: Bench) -> None:
    def below(prompt: str) -> bytes:
        bench.set("UPDATE request SET prompt = ?", prompt)
        top = TOP + SIDE // 2 + 4
        return _opened(_sheets(bench)[0]).crop((64, top, 64 + SIDE, top + 3 * 21)).tobytes()

    bench.submit(asked(1))
    hang(bench, 1, drawn(1))
    words = below("a cat in the garden")
    assert words != below("a dog in the garden")
    assert len(set(words)) > 8, "letters with soft edges"


def test_what_has_no_pixels_here_has_a_place_with_a_word(bench: Bench) -> None:
    bench.submit(asked(1), asked(2), asked(3))
    hang(bench, 1, b"<svg/>", format="svg")
    hang(bench, 2, drawn(2), on_disk=False)
    hang(bench, 3, drawn(3))
    sheet = _opened(_sheets(bench)[0])
    assert _near(_colour(sheet, 2), _own(3))
    corner = sheet.getpixel((66, 64 + 88 + 2))
    assert corner == sheet.getpixel((66 + RIGHT, 64 + 88 + 2)) == (0xEF, 0xED, 0xEA)


def test_failed_and_superseded_requests_are_left_out_and_a_job_without_pictures_has_an_empty_sheet(
    bench: Bench,
) -> None:
    bench.submit(asked(1), asked(2))
    fail(bench, 1)
    hang(bench, 2, drawn(2))
    bench.submit(asked(1))
    (path,) = _sheets(bench)
    assert _colour(_opened(path), 0) == (255, 255, 255)


def test_lines_are_broken_between_words_and_the_last_ends_in_an_ellipsis() -> None:
    font = ImageFont.load_default(16)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert wrap("short", font, 300, 3) == ["short"]
    assert wrap("", font, 300, 3) == [""]
    lines = wrap("words and words and\nmore words " * 40, font, 300, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert all(font.getlength(line) <= 300 for line in lines)
    assert all(line.split()[-1] in {"words", "and", "more"} for line in lines[:-1])
    assert "".join(wrap("x" * 100, font, 300, 9)) == "x" * 100
