"""What an image may take: memory that all threads share, parts that are counted, and seconds in a process."""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from pipeline.engine.image_writer import validate
from pipeline.errors import BrokenImage
from pipeline.images import decoder, limits, png
from pipeline.images.inspect import inspect, open_image
from pipeline.images.limits import MIB, MemoryBudget
from pipeline.images.transform import to_srgb
from pipeline.reports.thumbnails import shrink
from tests.support.noise import grey_noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunks(count: int) -> bytes:
    whole = encoded(Image.new("RGB", (8, 8)), "png")
    return whole[:33] + chunk(b"abCd", b"") * count + whole[33:]


def tiff_directory(*entries: tuple[int, int, int, int], size: int) -> bytes:
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)
    return head + bytes(size - len(head))


def jpeg_of_scans(more: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A progressive JPEG whose last scan is there so many times more."""
    whole = encoded(Image.new("L", size, 90), "jpeg", progressive=True)
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * more + whole[-2:]


def gif_of_frames(count: int) -> bytes:
    frame = b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x4c\x01\0"
    return b"GIF89a" + struct.pack("<2H", 1, 1) + b"\x80\0\0" + bytes(6) + frame * count + b";"


TOO_MUCH: dict[str, tuple[Callable[[], bytes], str]] = {
    "a tag of a TIFF again and again": (
        lambda: tiff_directory(*[(273, 4, MIB // 4 - 10, 0)] * 65535, size=MIB),
        "values of its tags overlap",
    ),
    "many tags of a TIFF over the same bytes": (
        lambda: tiff_directory(*((tag, 4, MIB // 4 - 10, 0) for tag in range(65535)), size=MIB),
        "values of its tags overlap",
    ),
    "scans of a JPEG": (lambda: jpeg_of_scans(60_000), "more than 100 scans"),
    "marks of a JPEG": (lambda: b"\xff\xd8" + b"\xff\x01" * 5_000_000, "more than 100,000 segments"),
    "chunks of a PNG": (lambda: with_chunks(2_000_000), "more than 100,000 chunks"),
    "chunks of a WebP": (
        lambda: b"RIFF" + struct.pack("<I", 4 + 8 * 3_000_000) + b"WEBP" + b"abcd\0\0\0\0" * 3_000_000,
        "more than 100,000 chunks",
    ),
    "frames of a GIF": (lambda: gif_of_frames(500_000), "more than 10,000 frames"),
    "blocks of a GIF": (
        lambda: gif_of_frames(0)[:-1] + b"\x21\xfe" + b"\x01a" * 5_000_000 + b"\0;",
        "more than 2,000,000 blocks",
    ),
    "boxes of an AVIF": (
        lambda: struct.pack(">I4s8s", 16, b"ftyp", b"avifavif") + struct.pack(">I4s", 8, b"free") * 3_000_000,
        "more than 100,000 boxes",
    ),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_structure_that_asks_for_too_much_work_is_refused_in_no_time(name: str) -> None:
    make, words = TOO_MUCH[name]
    content = make()
    began = time.process_time()
    with pytest.raises(BrokenImage, match=words):
        validate(content, None)
    assert time.process_time() - began < 1.0


def test_a_png_whose_chunks_are_damaged_has_few_remarks() -> None:
    whole = encoded(Image.new("RGB", (8, 8)), "png")
    letters = [bytes((97, 97 + number // 26, 67, 97 + number % 26)) for number in range(500)]
    damaged = b"".join(struct.pack(">I", 0) + name + bytes(4) for name in letters)
    remarks = inspect(whole[:33] + damaged + whole[33:]).remarks
    assert len(remarks) == 6
    assert remarks[-1] == "and 495 more chunks like these"


def test_the_restart_marks_of_a_jpeg_without_end_are_counted_once() -> None:
    whole = encoded(grey_noise((64, 64), 50), "jpeg", restart_marker_blocks=1)
    began = time.process_time()
    with pytest.raises(BrokenImage):
        inspect(whole[:-2] + b"\xff\xd0" * 10_000_000 + b"\x01" * 64)
    assert time.process_time() - began < 5.0


def test_small_images_never_wait_and_large_ones_share_the_budget() -> None:
    budget, inside, leave = MemoryBudget(total=100, small=10), threading.Barrier(3), threading.Event()

    def hold(size: int) -> None:
        with budget.hold(size):
            inside.wait(timeout=5)
            leave.wait(timeout=5)

    def hold_briefly(size: int) -> int:
        with budget.hold(size):
            return size

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(hold, size) for size in (40, 60)]
        inside.wait(timeout=5)
        assert budget.used == 100
        more = threads.submit(hold_briefly, 11)
        with budget.hold(10):  # would wait for ever if it were counted
            assert not more.done()
        leave.set()
        for one in running:
            one.result(timeout=5)
        assert more.result(timeout=5) == 11


def test_an_image_above_the_budget_is_alone_and_is_not_overtaken() -> None:
    budget, order = MemoryBudget(total=100, small=10), list[int]()
    waiting = [threading.Event(), threading.Event()]

    def hold(size: int, begun: threading.Event) -> None:
        begun.set()
        with budget.hold(size):
            order.append(size)
            assert size <= 100 or budget.used == size

    with ThreadPoolExecutor(2) as threads:
        with budget.hold(50):
            large = threads.submit(hold, 500, waiting[0])
            waiting[0].wait(timeout=5)
            while not budget._entrance.locked():
                time.sleep(0)
            small = threads.submit(hold, 20, waiting[1])
            waiting[1].wait(timeout=5)
        for one in (large, small):
            one.result(timeout=5)
    assert order == [500, 20]


def test_twelve_large_images_at_once_hold_no_more_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = MemoryBudget(total=8 * MIB, small=MIB)
    seen: list[int] = []
    inflate = png._inflated

    def watch(parts: list[memoryview], size: int) -> bytearray | None:
        seen.append(budget.used)
        return inflate(parts, size)

    monkeypatch.setattr(png, "_inflated", watch)
    content = encoded(Image.new("RGB", (1000, 1000)), "png")
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda _: png.complete_png_size(content, limits.MAX_PIXELS, budget), range(12)))
    assert found == [(1000, 1000)] * 12
    assert len(seen) == 12
    assert 3_000_000 <= max(seen) <= 8 * MIB
    assert budget.used == 0


def test_thumbnails_of_large_images_are_made_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = MemoryBudget(total=8 * MIB, small=MIB)
    monkeypatch.setattr("pipeline.images.inspect.memory_budget", budget)
    seen: list[int] = []

    def watch(image: Image.Image, *arguments: object) -> Image.Image:
        seen.append(budget.used)
        return to_srgb(image, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("pipeline.images.transform.to_srgb", watch)
    content = encoded(Image.new("P", (700, 700)), "gif")
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(shrink, [content] * 8))) == 1
    assert len(seen) == 8
    assert 700 * 700 * 8 <= max(seen) <= 8 * MIB
    assert budget.used == 0


@pytest.fixture
def fresh_decoders() -> Iterator[None]:
    """Decoders that were started in this test alone."""
    decoder._end_all()
    yield
    decoder._end_all()


HEAVY = encoded(Image.new("RGB", (60, 40), "red"), "tiff", compression="tiff_lzw")


@pytest.mark.usefixtures("fresh_decoders")
def test_what_takes_too_long_is_killed_and_the_next_image_has_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.001)
    with pytest.raises(BrokenImage, match=r"TIFF that takes too long to decode: 0\.001 seconds"):
        inspect(HEAVY)
    assert decoder._idle == []
    monkeypatch.setattr(limits, "SECONDS", 30.0)
    assert inspect(HEAVY).width == 60


@pytest.mark.usefixtures("fresh_decoders")
def test_a_process_that_was_killed_meanwhile_is_replaced() -> None:
    inspect(HEAVY)
    (idle,) = decoder._idle
    os.kill(idle._process.pid, signal.SIGKILL)
    idle._process.wait()
    assert inspect(HEAVY).height == 40


@pytest.mark.usefixtures("fresh_decoders")
def test_the_signals_of_a_run_do_not_end_it_and_no_key_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    inspect(HEAVY)
    (idle,) = decoder._idle
    environment = f"/proc/{idle._process.pid}/environ"
    if os.path.exists(environment):  # noqa: PTH110 - Linux
        with open(environment, "rb") as file:  # noqa: PTH123
            assert b"sk-secret" not in file.read()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(idle._process.pid, number)
    inspect(HEAVY)
    assert decoder._idle == [idle]


def test_a_heavy_image_has_the_pixels_that_it_has_in_a_thread() -> None:
    info, image = open_image(HEAVY)
    assert (info.format, info.mode, image.size, image.getpixel((0, 0))) == ("tiff", "RGB", (60, 40), (255, 0, 0))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp"])
def test_ordinary_images_never_leave_their_thread(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "_Decoder", None)
    decoder._end_all()
    assert validate(encoded(Image.new("RGB", (1536, 1024), "blue"), kind), None).width == 1536


@pytest.mark.usefixtures("fresh_decoders")
@pytest.mark.parametrize(("segments", "processes"), [(2, 0), (3, 1)])
def test_a_jpeg_with_long_exif_is_decoded_in_a_process(segments: int, processes: int) -> None:
    whole = encoded(Image.new("RGB", (8, 8)), "jpeg")
    exif = b"\xff\xe1" + struct.pack(">H", 65_000) + b"Exif\0\0" + bytes(65_000 - 8)
    assert inspect(whole[:2] + exif * segments + whole[2:]).width == 8
    assert len(decoder._idle) == processes


def test_a_damaged_tiff_writes_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    damaged = bytearray(HEAVY)
    (at,) = struct.unpack_from("<I", damaged, 4)
    for entry in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", damaged, at)[0], 12):
        tag, _, _, value = struct.unpack_from("<HHII", damaged, entry)
        if tag == 273:
            damaged[value : value + 12] = b"\xff" * 12
    with pytest.raises(BrokenImage):
        inspect(bytes(damaged))
    assert capfd.readouterr().err == ""


def test_a_tiff_with_two_compressions_writes_nothing_either(capfd: pytest.CaptureFixture[str]) -> None:
    damaged = bytearray(encoded(grey_noise((48, 36), 60), "tiff"))
    (at,) = struct.unpack_from("<I", damaged, 4)
    entries = range(at + 2, at + 2 + 12 * struct.unpack_from("<H", damaged, at)[0], 12)
    (place,) = [entry for entry in entries if struct.unpack_from("<H", damaged, entry)[0] == 258]
    damaged[place : place + 12] = struct.pack("<HHII", 259, 3, 1, 8)
    with pytest.raises(BrokenImage):
        inspect(bytes(damaged))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("mode", "compression"), [("RGB", "tiff_lzw"), ("1", "tiff_ccitt"), ("1", "group4")])
def test_what_a_process_has_decoded_comes_back_without_compression(mode: str, compression: str) -> None:
    """Else a thread would decode it a second time, with what writes to the terminal."""
    content = encoded(grey_noise((47, 36), 60).convert(mode), "tiff", compression=compression)
    _, pixels = decoder.decode_apart("tiff", content, 10_000, with_pixels=True)
    with Image.open(io.BytesIO(pixels)) as image:
        assert image.info["compression"] == "raw"
        assert image.tobytes() == Image.open(io.BytesIO(content)).tobytes()
