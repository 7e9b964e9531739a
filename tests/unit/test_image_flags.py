"""Flags of images: what the ledger tells of them, and that no flag concerns what does not count."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.ledger.image_flags import NO_FLAGS, ImageFlags, read_flags
from tests.support.workbench import request

if TYPE_CHECKING:
    from tests.support.workbench import Bench

GREY = "808080"


def _hash(bits: int, colour: str = GREY) -> str:
    return f"{bits:032x}{colour}"


def _store(bench: Bench, number: int, **columns: object) -> None:
    """Record one image of the request of this number."""
    row: dict[str, object] = {
        "request": number,
        "attempt": 1,
        "job": 1,
        "number": 1,
        "state": "stored",
        "file": f"images/{number}.png",
        "sha256": f"{number:064x}",
        "bytes": 9,
        "width": 256,
        "height": 256,
        "format": "png",
        **columns,
    }
    marks = ", ".join("?" * len(row))
    bench.set(f"INSERT INTO image ({', '.join(row)}) VALUES ({marks})", *row.values())


@pytest.fixture
def made(bench: Bench) -> Bench:
    """A job of six requests for images of 256x256, without images."""
    bench.submit(*(request(number, id=f"r{number}") for number in range(1, 7)))
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (1, 'lab', 1, 1)")
    return bench


def _flags(bench: Bench) -> dict[int, ImageFlags]:
    return {int(file[7:-4]): flags for file, flags in read_flags(bench.connection, "job").items()}


def test_a_duplicate_is_the_later_one_of_the_same_bytes_or_of_near_hashes(made: Bench) -> None:
    _store(made, 1, sha256="a" * 64)
    _store(made, 2, difference_hash=_hash(0b1011))
    _store(made, 3, sha256="a" * 64)
    _store(made, 4, difference_hash=_hash(1 << 127 | 0b1000))  # three bits beside the second
    _store(
        made, 5, difference_hash=_hash(1 << 127 | 1 << 64 | 1 << 32 | 0b1000)
    )  # two beside the fourth, five the second
    _store(made, 6, difference_hash=_hash(0b1011, "a08080"))  # of another colour
    assert _flags(made) == {
        3: ImageFlags(("duplicate",), "images/1.png"),
        4: ImageFlags(("duplicate",), "images/2.png"),
        5: ImageFlags(("duplicate",), "images/4.png"),
    }


def test_blank_images_are_no_duplicates(made: Bench) -> None:
    for number in (1, 2):
        _store(made, number, is_blank=1, difference_hash=_hash(0), sha256="a" * 64)
    _store(made, 3, difference_hash=_hash(0))
    assert _flags(made) == {1: ImageFlags(("blank",)), 2: ImageFlags(("blank",))}


def test_what_is_replaced_or_superseded_is_no_duplicate_and_has_none(made: Bench) -> None:
    for number in range(1, 5):
        _store(made, number, difference_hash=_hash(7), redo={1: "replaced", 3: "asked"}.get(number))
    made.submit(*(request(number, id=f"r{number}") for number in (1, 3, 4)))
    assert _flags(made) == {4: ImageFlags(("duplicate",), "images/3.png")}


@pytest.mark.parametrize(
    ("params", "columns", "flags"),
    [
        ({}, {"width": 255}, ("wrong_size",)),
        ({}, {"width": 256, "height": 512, "format": "webp"}, ("wrong_size",)),
        ({"size": "auto"}, {"width": 1}, ()),
        ({"size": None}, {"width": 1}, ()),
        ({"size": "large"}, {"width": 1}, ()),
        ({}, {"width": None, "height": None}, ()),
        ({"output_format": "webp"}, {}, ("wrong_format",)),
        ({"output_format": "jpg"}, {"format": "jpeg"}, ()),
        ({"output_format": "jpeg"}, {"format": "jpeg"}, ()),
        ({"output_format": "jpeg"}, {"width": 1, "is_blank": 1}, ("blank", "wrong_size", "wrong_format")),
        ({"output_format": 7}, {}, ()),
    ],
)
def test_size_and_format_are_those_that_were_asked_for(
    bench: Bench, params: dict[str, Any], columns: dict[str, object], flags: tuple[str, ...]
) -> None:
    bench.submit(request(1, **params))
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (1, 'lab', 1, 1)")
    _store(bench, 1, **columns)
    assert read_flags(bench.connection, "job").get("images/1.png", NO_FLAGS).flags == flags


def test_every_near_hash_is_found_as_by_comparing_all(bench: Bench) -> None:
    draw = random.Random(7)
    seeds = [draw.getrandbits(128) for _ in range(40)]
    hashes = [draw.choice(seeds) ^ sum(1 << draw.randrange(128) for _ in range(draw.randrange(5))) for _ in range(400)]
    bench.submit(*(request(number, id=f"r{number}") for number in range(1, 401)))
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (1, 'lab', 1, 1)")
    for number, bits in enumerate(hashes, start=1):
        _store(bench, number, difference_hash=_hash(bits & (1 << 128) - 1))
    expected = {
        place + 1
        for place, bits in enumerate(hashes)
        if any(((bits ^ other) & (1 << 128) - 1).bit_count() <= 3 for other in hashes[:place])
    }
    assert set(_flags(bench)) == expected
    assert 100 < len(expected) < 400


def test_many_equal_images_take_no_longer_than_many_different_ones(bench: Bench) -> None:
    bench.submit(*(request(number, id=f"r{number}") for number in range(1, 3001)))
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (1, 'lab', 1, 1)")
    for number in range(1, 3001):
        _store(bench, number, difference_hash=_hash(5))
    began = time.process_time()
    assert len(_flags(bench)) == 2999
    assert time.process_time() - began < 2
