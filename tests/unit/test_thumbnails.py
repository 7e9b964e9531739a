"""Thumbnails: small, upright, made once, and never a reason for a report to fail."""

from __future__ import annotations

import hashlib
import io
import threading
from typing import TYPE_CHECKING

import pytest
from PIL import Image, ImageChops

from pipeline.ledger.queries import RecordedImage, read_recorded_images
from pipeline.reports.thumbnails import SIDE, make_thumbnails, shrink, thumbnail_name
from pipeline.storage import LocalStore
from pipeline.stores import Stores
from tests.support.exhibits import asked, drawn, hang

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.support.workbench import Bench

RED, BLUE = (220, 30, 30), (30, 30, 220)


def _encoded(image: Image.Image, kind: str = "png", **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def _halves(size: tuple[int, int] = (800, 400)) -> Image.Image:
    """Return an image whose left half is red and whose right half is blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def _opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def _near(pixel: Any, colour: tuple[int, int, int]) -> bool:
    return all(abs(one - other) < 24 for one, other in zip(pixel[:3], colour, strict=True))


def _put(folder: Path, name: str, content: bytes, kind: str = "png") -> RecordedImage:
    image = RecordedImage(1, "job", f"images/{name}", hashlib.sha256(content).hexdigest(), len(content), kind)
    LocalStore(folder).put(image.name, content)
    return image


def _make(folder: Path, sources: list[RecordedImage], stop: threading.Event | None = None) -> int:
    return len(make_thumbnails(folder / "job", Stores(folder), sources, stop=stop))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
def test_a_thumbnail_has_the_picture_s_shape_and_colours_and_no_more_than_its_side(kind: str) -> None:
    small = _opened(shrink(_encoded(_halves(), kind)).content)
    assert (small.format, small.size) == ("WEBP", (SIDE, SIDE // 2))
    assert _near(small.getpixel((20, 80)), RED)
    assert _near(small.getpixel((300, 80)), BLUE)


def test_a_small_picture_is_not_made_larger() -> None:
    assert _opened(shrink(_encoded(_halves((40, 20)))).content).size == (40, 20)


def test_a_picture_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: to be turned a quarter clockwise
    small = _opened(shrink(_encoded(_halves(), "jpeg", exif=exif)).content)
    assert small.size == (SIDE // 2, SIDE)
    assert _near(small.getpixel((80, 20)), RED)
    assert _near(small.getpixel((80, 300)), BLUE)


def test_an_animation_is_shown_by_its_first_frame() -> None:
    frames = [Image.new("RGB", (100, 100), RED), Image.new("RGB", (100, 100), BLUE)]
    small = _opened(shrink(_encoded(frames[0], "gif", save_all=True, append_images=frames[1:])).content)
    assert _near(small.getpixel((50, 50)), RED)
    assert getattr(small, "n_frames", 1) == 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_stays_so(mode: str) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((*RED, 255), (0, 0, 32, 64))
    small = _opened(shrink(_encoded(image.convert(mode))).content).convert("RGBA")
    assert small.getpixel((60, 10))[3] < 20  # type: ignore[index]
    assert small.getpixel((4, 10))[3] > 235  # type: ignore[index]


@pytest.mark.parametrize("size", [(1700, 1300), (1300, 1700), (600_000, 3)])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_large_picture_is_never_copied_whole(
    mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []
    convert = Image.Image.convert

    def watch(image: Image.Image, *arguments: Any, **more: Any) -> Image.Image:
        copied.append(image.width * image.height)
        return convert(image, *arguments, **more)

    transparency: Any = {"RGB": (1, 2, 3), "LA": None, "RGBA": None, "I;16": None}.get(mode, 0)
    more: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    content = _encoded(Image.new(mode, size), **more)
    monkeypatch.setattr(Image.Image, "convert", watch)
    assert max(_opened(shrink(content).content).size) == SIDE
    assert max(copied) < size[0] * size[1]
    assert max(copied) <= 1 << 20


@pytest.mark.parametrize("size", [(1700, 1300), (1300, 1700)])
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK"])
def test_what_is_reduced_strip_by_strip_looks_as_if_it_were_reduced_at_once(mode: str, size: tuple[int, int]) -> None:
    image = Image.linear_gradient("L").resize(size).rotate(30).convert("RGB").convert(mode)
    small = _opened(shrink(_encoded(image, "tiff" if mode == "CMYK" else "png")).content).convert("RGB")
    expected = image.convert("RGB")
    expected.thumbnail((SIDE, SIDE))
    assert small.size == expected.size
    difference = ImageChops.difference(small, expected).resize((16, 16), Image.Resampling.BOX)
    assert max(high for _, high in difference.getextrema()) < 16  # type: ignore[misc]


def test_each_picture_is_made_once_and_named_by_its_hash(tmp_path: Path) -> None:
    sources = [_put(tmp_path, f"{number}.png", drawn(number)) for number in (1, 2, 3)]
    same = _put(tmp_path, "again.png", drawn(1))
    assert _make(tmp_path, [*sources, same]) == 3
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "job" / "thumbnails").iterdir()}
    assert made.keys() == {thumbnail_name(one.sha256).split("/")[1] for one in sources}
    (tmp_path / "job" / thumbnail_name(sources[0].sha256)).unlink()
    assert _make(tmp_path, sources) == 1
    for source in sources[1:]:
        path = tmp_path / "job" / thumbnail_name(source.sha256)
        assert path.stat().st_mtime_ns == made[path.name], "what is there is left alone"


def test_the_fingerprint_of_an_image_whose_thumbnail_is_there_is_read_from_that(tmp_path: Path) -> None:
    sources = [_put(tmp_path, f"{number}.png", drawn(number)) for number in (1, 2)]
    found = make_thumbnails(tmp_path / "job", Stores(tmp_path), sources)
    LocalStore(tmp_path).local_path(sources[1].name).unlink()  # in an object store it is far away
    again = make_thumbnails(tmp_path / "job", Stores(tmp_path), sources, {sources[1].sha256})
    assert again.keys() == {sources[1].sha256}
    one, other = (int(which[sources[1].sha256].difference_hash[:32], 16) for which in (found, again))
    assert (one ^ other).bit_count() <= 3


def test_svg_and_what_is_missing_or_broken_are_left_out(tmp_path: Path) -> None:
    sources = [
        _put(tmp_path, "drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg"),
        _put(tmp_path, "broken.png", drawn(1)[:-19]),
        RecordedImage(1, "job", "images/gone.png", "0" * 64, 9, "png"),
        _put(tmp_path, "whole.png", drawn(2)),
    ]
    assert _make(tmp_path, sources) == 1
    assert len(list((tmp_path / "job" / "thumbnails").iterdir())) == 1


def test_a_stop_ends_the_work_and_half_a_file_of_a_killed_run_is_deleted(tmp_path: Path) -> None:
    source = _put(tmp_path, "one.png", drawn(1))
    stop = threading.Event()
    stop.set()
    assert _make(tmp_path, [source], stop) == 0
    part = tmp_path / "job" / "thumbnails" / ".x.webp.0a1b2c3d.part"
    part.write_bytes(b"half")
    assert _make(tmp_path, [source]) == 1
    assert not part.exists()


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    source = _put(tmp_path, "one.png", drawn(1))
    (tmp_path / "job" / "thumbnails").write_text("in the way")
    with pytest.raises(OSError, match="thumbnails"):
        _make(tmp_path, [source])


def test_the_ledger_names_the_pictures_that_are_on_disk(bench: Bench) -> None:
    bench.submit(asked(1, n=2), asked(2))
    hang(bench, 1, drawn(1), drawn(2))
    bench.set("UPDATE image SET state = 'lost', file = NULL WHERE number = 2")
    (source,) = read_recorded_images(bench.connection, "job")
    assert (source.sha256, source.format) == (hashlib.sha256(drawn(1)).hexdigest(), "png")
