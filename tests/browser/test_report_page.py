"""The report as people use it: in a real browser, from the disk, without a network."""

from __future__ import annotations

import hashlib
import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.load import Config
from pipeline.ledger.queries import read_recorded_images
from pipeline.reports.html_report import page as html_page
from pipeline.reports.html_report import write_report
from pipeline.reports.next_command import NextCommand
from pipeline.reports.report_data import read_report_data
from pipeline.reports.thumbnails import make_thumbnails
from tests.support.browser import pale_texts, wait_until
from tests.support.exhibits import asked, drawn, fail, hang

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.support.browser import Viewer
    from tests.support.workbench import Bench

ANIMALS, STYLES = ("cat", "dog", "heron"), ("ukiyo-e", "bauhaus")
COMPLETE = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"


def _matrix(bench: Bench) -> None:
    """Hang a job of three animals in two styles; the last one failed, the first one has two pictures."""
    pairs = [(animal, style) for animal in ANIMALS for style in STYLES]
    requests = [
        asked(
            number,
            f"a {animal} in the style of {style}",
            variables={"animal": animal, "style": style},
            n=2 - (number > 0),
        )
        for number, (animal, style) in enumerate(pairs)
    ]
    bench.submit(*requests)
    hang(bench, 0, drawn(0), drawn(100), revised_prompt="A cat, as Hokusai saw it", cost_usd=0.5, attempts=2)
    for number in range(1, 5):
        hang(bench, number, drawn(number), seconds=number, cost_usd=0.01 * number, attempts=number)
    fail(bench, 5)


def _written(bench: Bench, *, thumbnails: bool = True) -> str:
    path = write_report(bench.connection, "job", bench.folder, NextCommand.here(Config(None, bench.folder, None, {})))
    if thumbnails:
        make_thumbnails(bench.folder / "job", bench.stores, read_recorded_images(bench.connection, "job"))
    return path.as_uri()


@pytest.fixture
def url(bench: Bench) -> str:
    """The address of a report of six requests."""
    _matrix(bench)
    return _written(bench)


def _captions(page: Page) -> list[str]:
    return [
        text.removeprefix("a ").replace(" in the style of ", " ")
        for text in page.locator(".caption").all_text_contents()
    ]


def _groups(page: Page) -> dict[str, str]:
    names = page.locator(".group h2 .name").all_inner_texts()
    return dict(zip(names, page.locator(".group h2 .many").all_inner_texts(), strict=True))


def _ids(page: Page) -> Any:
    return page.evaluate("document.activeElement.closest('.tile')?.item.index")


def test_it_opens_from_the_disk_without_a_network_and_shows_its_pictures(viewer: Viewer, url: str) -> None:
    page = viewer.open(url, offline=True)
    wait_until(page, COMPLETE)
    pictures = page.locator(".tile img")
    assert pictures.count() == 6
    sources = [pictures.nth(number).get_attribute("src") or "" for number in range(6)]
    assert all(re.fullmatch(r"thumbnails/[0-9a-f]{64}\.webp", source) for source in sources)
    assert pictures.first.get_attribute("alt") == "a cat in the style of ukiyo-e"
    assert page.locator("h1").inner_text() == "job"
    assert "6" in page.locator("#facts").inner_text()
    assert {address.partition(":")[0] for address in viewer.requested} <= {"file", "data"}


def test_the_large_view_shows_the_file_itself(viewer: Viewer, url: str) -> None:
    page = viewer.open(url, offline=True)
    page.locator(".tile .open").nth(2).click()
    large = page.locator(".pswp__item[aria-hidden=false] img:not(.pswp__img--placeholder)")
    wait_until(
        page,
        "document.querySelector('.pswp__item[aria-hidden=false] img:not(.pswp__img--placeholder)')?.naturalWidth > 0",
    )
    assert re.search(r"^images/prompt-1-\w+-1\.png$", large.get_attribute("src") or large.evaluate("one => one.src"))


def test_pictures_are_grouped_by_an_axis_of_the_matrix(viewer: Viewer, url: str) -> None:
    page = viewer.open(url)
    assert _groups(page) == {
        "cat": "3 images",
        "dog": "2 images",
        "heron": "1 image, 1 request without an image",
    }, "the first variable is the likely choice"
    assert page.locator("#group option").all_inner_texts() == ["Nothing", "animal", "style", "n", "status"]
    page.select_option("#group", label="style")
    assert _groups(page) == {"ukiyo-e": "4 images", "bauhaus": "2 images, 1 request without an image"}
    assert _captions(page)[:4] == ["cat ukiyo-e", "cat ukiyo-e", "dog ukiyo-e", "heron ukiyo-e"]
    page.select_option("#group", label="Nothing")
    assert page.locator(".group h2").count() == 0
    assert page.locator(".tile").count() == 7


def test_rows_without_a_variable_stand_in_a_group_of_their_own(bench: Bench, viewer: Viewer) -> None:
    bench.submit(asked(1, variables={"constructor": "x"}), asked(2), asked(3, variables={"constructor": ""}))
    for number in (1, 2, 3):
        hang(bench, number, drawn(number))
    page = viewer.open(_written(bench))
    assert _groups(page) == {}, "no group has two pictures, so nothing is grouped until it is asked for"
    page.select_option("#group", label="constructor")
    assert _groups(page) == {"x": "1 image", "(empty)": "1 image", "without constructor": "1 image"}


def test_a_status_is_chosen(viewer: Viewer, url: str) -> None:
    page = viewer.open(url)
    assert page.locator("#status option").all_inner_texts() == ["all (6)", "succeeded (5)", "failed (1)"]
    page.select_option("#status", "failed")
    assert _captions(page) == ["heron bauhaus"]
    page.locator(".tile .word").wait_for()  # what is not drawn yet has no inner text
    assert page.locator(".tile .word").text_content() == "failed"
    assert page.locator("#count").inner_text() == "1 request without an image"
    page.select_option("#status", "succeeded")
    assert page.locator(".tile").count() == 6
    assert page.locator("#count").inner_text() == "6 images"


def test_words_are_found_in_prompts_variables_and_revised_prompts(viewer: Viewer, url: str) -> None:
    page = viewer.open(url)
    for words, found in [
        ("BAUHAUS dog", ["dog bauhaus"]),
        ("hokusai", ["cat ukiyo-e"] * 2),
        ("heron bauhaus", ["heron bauhaus"]),
    ]:
        page.fill("#search", words)
        wait_until(page, f"document.querySelectorAll('.tile').length === {len(found)}")
        assert _captions(page) == found
    page.fill("#search", "no such words")
    page.locator("#none").wait_for()
    assert page.locator(".tile").count() == 0
    page.click("#clear")
    assert page.locator(".tile").count() == 7
    assert page.input_value("#search") == ""


@pytest.mark.parametrize(
    ("order", "first", "last"),
    [
        ("job", "cat ukiyo-e", "heron bauhaus"),
        ("id", "cat ukiyo-e", "heron bauhaus"),
        ("cost", "cat ukiyo-e", "heron bauhaus"),
        ("newest", "heron bauhaus", "cat ukiyo-e"),
        ("slowest", "heron ukiyo-e", "cat bauhaus"),
        ("attempts", "heron ukiyo-e", "heron bauhaus"),
    ],
)
def test_pictures_are_sorted(viewer: Viewer, url: str, order: str, first: str, last: str) -> None:
    page = viewer.open(url)
    page.select_option("#group", label="Nothing")
    page.select_option("#sort", order)
    captions = _captions(page)
    assert (captions[0], captions[-1]) == (first, last)


def test_everything_is_done_with_the_keyboard(viewer: Viewer, url: str) -> None:
    page = viewer.open(url)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("cat")
    wait_until(page, "document.querySelectorAll('.tile').length === 3")
    page.keyboard.press("Escape")
    wait_until(page, "document.querySelectorAll('.tile').length === 7")
    page.locator(".tile .open").first.focus()
    width = page.locator(".open:focus-visible").evaluate("one => getComputedStyle(one).outlineWidth")
    assert width == "3px", "the focus is seen"
    seen = [_ids(page)]
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowUp", "Home", "End", "ArrowLeft"):
        page.keyboard.press(key)
        seen.append(_ids(page))
    # rows of the groups: [0 1 2] [3 4] [5 6]
    assert seen == [0, 1, 2, 4, 6, 4, 0, 6, 5]
    page.keyboard.press("Tab")
    assert _ids(page) is None, "one stop for Tab, however many pictures"
    page.keyboard.press("Shift+Tab")
    assert _ids(page) == 5


def test_the_large_view_tells_all_of_a_picture_and_is_left_where_one_has_got_to(viewer: Viewer, url: str) -> None:
    page = viewer.open(url)
    page.locator(".tile .open").first.focus()
    page.keyboard.press("Enter")
    panel = page.locator(".panel")
    panel.wait_for()
    text = panel.inner_text()
    for said in (
        "a cat in the style of ukiyo-e",
        "A cat, as Hokusai saw it",
        "dall-e-2",
        "256x256",
        "$0.50",
        "2.5 s",
        "48 \u00d7 32, png",
    ):
        assert said in text
    assert re.search(r"attempts\s+2\b", text)
    assert "images/prompt-0-" in panel.locator("a").inner_text()
    assert (panel.locator("a").get_attribute("href") or "").startswith("images/prompt-0-")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    wait_until(page, "document.querySelector('.panel .prompt').textContent === 'a cat in the style of bauhaus'")
    page.keyboard.press("a")
    assert panel.get_by_role("button", name="Accept").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    panel.wait_for(state="detached")
    assert _ids(page) == 2
    assert page.locator('.tile[data-mark="accept"]').count() == 1


def test_a_failed_request_is_looked_at_too(viewer: Viewer, url: str) -> None:
    page = viewer.open(url)
    page.locator(".tile .open").last.click()
    assert "content_policy_violation" in page.locator(".panel .error").inner_text()
    assert page.locator(".panel").get_by_role("button", name="Accept").count() == 0


def _saved(page: Page) -> list[dict[str, str]]:
    with page.expect_download() as waiting:
        page.click("#save")
    assert waiting.value.suggested_filename == "picks.jsonl"
    return [json.loads(line) for line in waiting.value.path().read_text().splitlines()]


def _reload_until_marked(page: Page) -> None:
    """Reload the page. A busy browser may start the new page before it has stored what the old one kept."""
    deadline = time.monotonic() + 20
    page.reload()
    while not page.locator("[data-mark]").count():
        assert time.monotonic() < deadline, "the marks are lost"
        page.reload()


def test_marks_are_saved_as_picks_jsonl_and_kept_by_the_browser(viewer: Viewer, bench: Bench, url: str) -> None:
    page = viewer.open(url, accept_downloads=True)
    assert page.locator("#save").is_disabled()
    page.locator(".tile .open").nth(3).focus()
    page.keyboard.press("x")
    page.locator(".tile").first.hover()
    page.locator(".tile .accept").first.click()
    page.locator(".tile .open").nth(1).focus()
    page.keyboard.press("a")
    page.keyboard.press("a")  # a second time takes it back
    assert page.locator("#save").inner_text() == "Save picks.jsonl (2)"
    _reload_until_marked(page)
    assert page.locator("#save").inner_text() == "Save picks.jsonl (2)"
    files = bench.ask("SELECT r.id, i.file, i.sha256 FROM image i JOIN request r ON r.pk = i.request ORDER BY i.pk")
    kept = [(files[0], "accept"), (files[3], "reject")]
    assert _saved(page) == [{"id": id_, "file": file, "sha256": sha, "mark": mark} for (id_, file, sha), mark in kept]
    page.select_option("#marked", "reject")
    assert _captions(page) == ["dog ukiyo-e"]
    page.select_option("#marked", "none")
    assert page.locator(".tile").count() == 4


def test_a_picture_that_was_made_anew_has_no_mark(viewer: Viewer, bench: Bench, url: str) -> None:
    page = viewer.open(url)
    page.locator(".tile .open").first.focus()
    page.keyboard.press("a")
    bench.set("UPDATE image SET sha256 = ? WHERE number = 1", hashlib.sha256(b"another").hexdigest())
    _written(bench, thumbnails=False)
    page.reload()
    assert page.locator("[data-mark]").count() == 0
    viewer.forgive("ERR_FILE_NOT_FOUND")


def test_failures_come_first_with_their_cause(viewer: Viewer, url: str) -> None:
    page = viewer.open(url)
    failures = page.locator("#failures")
    order = page.evaluate(
        "document.querySelector('#failures').compareDocumentPosition(document.querySelector('#gallery'))"
    )
    assert order == 4, "before the pictures"
    text = failures.inner_text()
    assert "1 request failed" in text
    assert "400 content_policy_violation" in text
    assert "rejected by our safety system" in text
    failures.locator("summary").click()
    assert "a heron in the style of bauhaus" in failures.locator("details").inner_text()


def test_each_cause_has_the_command_that_mends_it_and_no_other(viewer: Viewer, bench: Bench, tmp_path: Path) -> None:
    bench.submit(asked(1), asked(2), asked(3), file=tmp_path / "night.yaml")
    fail(bench, 1)
    fail(bench, 2)
    fail(bench, 3, {"http_status": 500, "type": None, "code": None, "message": "It broke.", "kind": "ServerFault"})
    page = viewer.open(_written(bench), permissions=["clipboard-read", "clipboard-write"])
    refused, broken = page.locator("#failures .causes > li").all()
    assert "Change the prompt or the image in the job file" in refused.inner_text()
    assert "try it again later" in broken.inner_text()
    edited, resumed = (one.locator(".command code").all_inner_texts() for one in (refused, broken))
    assert edited == [f"pipeline run {tmp_path}/night.yaml --output {tmp_path}"]
    assert resumed == [f"pipeline resume job --output {tmp_path}"]
    assert page.locator("#failures").inner_text().count("pipeline resume job") == 1, "none for what is refused again"
    broken.get_by_role("button", name="Copy").click()
    broken.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == resumed[0]


def test_a_stop_that_holds_is_shown_with_what_mends_it_before_the_command(viewer: Viewer, bench: Bench) -> None:
    bench.submit(asked(1))
    stop = {"message": "no <b>money</b>", "reach": "provider `lab`", "at": 1_795_000_000.0, "advice": "top up"}
    data = {**read_report_data(bench.connection, "job"), "stops": [{**stop, "commands": ["pipeline run"]}]}
    path = bench.folder / "report.html"
    path.write_text(html_page(data))
    text = viewer.open(path.as_uri()).locator("#stops").inner_text()
    parts = ("provider `lab`", "no <b>money</b>", "top up", "pipeline run")
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)
    assert viewer.open(_written(bench)).locator("#stops").is_hidden()


def test_a_job_made_in_python_is_told_to_edit_its_program_and_has_no_command_to_type(viewer: Viewer, url: str) -> None:
    failures = viewer.open(url).locator("#failures")
    assert "in the Python program that made the job" in failures.inner_text()
    assert failures.locator(".command").count() == 0


def test_images_and_requests_are_counted_once_and_by_name(viewer: Viewer, bench: Bench) -> None:
    bench.submit(*(asked(number) for number in range(4)))
    for number in range(4):
        hang(bench, number, drawn(number), drawn(100 + number))
    bench.submit(asked(0), asked(1), asked(9))
    fail(bench, 9)
    page = viewer.open(_written(bench))
    facts = dict(
        zip(page.locator("#facts dt").all_inner_texts(), page.locator("#facts dd").all_inner_texts(), strict=True)
    )
    assert {"images": "4", "images of replaced or removed requests": "4", "requests": "3"}.items() <= facts.items()
    assert page.locator("#count").inner_text() == "4 images, 1 request without an image"
    assert page.locator("#status option").all_inner_texts() == [
        "all (3)",
        "succeeded (2)",
        "failed (1)",
        "replaced or removed (2)",
    ]
    page.fill("#search", "prompt-1-")
    wait_until(page, "document.querySelectorAll('.tile').length === 2")
    assert page.locator("#count").inner_text() == "2 images, of 4 images, 1 request without an image"
    page.fill("#search", "")
    page.select_option("#status", "superseded")
    wait_until(page, "document.querySelectorAll('.tile').length === 4")
    assert page.locator("#count").inner_text() == "4 images"
    page.select_option("#status", "")
    page.locator(".tile .open").nth(1).click()
    assert page.locator(".pswp__counter").inner_text() == "2 / 4 images", "requests without an image are not counted"
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    wait_until(page, "document.querySelector('.pswp__counter').textContent === 'no image'")


def test_an_edit_shows_its_source_and_its_mask_and_the_prompt_is_copied(viewer: Viewer, bench: Bench) -> None:
    inputs = [{"role": role, "file": f"inputs/{role} 1.png", "sha256": "0" * 64} for role in ("image", "mask")]
    bench.submit(asked(1, "a pool with a flamingo"), asked(2))
    hang(bench, 1, drawn(1), operation="edit", inputs=json.dumps(inputs))
    hang(bench, 2, drawn(2))
    (bench.folder / "job" / "inputs").mkdir()
    (bench.folder / "job" / "inputs" / "image 1.png").write_bytes(drawn(5))
    page = viewer.open(_written(bench), permissions=["clipboard-read", "clipboard-write"])
    page.locator(".tile .open").first.click()
    shown = page.locator(".panel .inputs")
    wait_until(page, "document.querySelector('.panel .inputs img')?.naturalWidth === 48")
    shown.locator(".missing").wait_for()
    assert shown.locator("a").first.get_attribute("href") == "inputs/image%201.png"
    assert shown.inner_text().split("\n") == ["Source", "the file is missing", "Mask"]
    page.get_by_role("button", name="Copy prompt").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "a pool with a flamingo"
    page.keyboard.press("ArrowRight")
    wait_until(page, "document.querySelector('.panel .prompt').textContent === 'prompt 2'")
    assert shown.count() == 0
    viewer.forgive("ERR_FILE_NOT_FOUND")


def test_back_closes_the_large_view_and_then_leaves_the_page(viewer: Viewer, url: str) -> None:
    page = viewer.open("about:blank", width=390, has_touch=True, is_mobile=True)
    page.goto(url)
    panel = page.locator(".panel")
    page.locator(".tile .open").first.tap()
    panel.wait_for()
    page.go_back()
    panel.wait_for(state="detached")
    assert page.url == url, "still on the page"
    assert _ids(page) == 0
    for _ in range(2):  # closed in the page, and opened again before the browser has gone back
        page.locator(".tile .open").first.tap()
        panel.wait_for()
        page.keyboard.press("Escape")
        panel.wait_for(state="detached")
    page.locator(".tile .open").first.focus()
    page.keyboard.press("Enter")
    panel.wait_for()
    page.go_back()
    panel.wait_for(state="detached")
    page.go_back()
    assert page.url == "about:blank", "nothing of the large view is left in the history"


def test_a_group_and_the_top_are_one_step_away_and_tiles_have_a_size(viewer: Viewer, bench: Bench) -> None:
    bench.submit(*(asked(number, variables={"letter": "abcd"[number // 60]}) for number in range(240)))
    page = viewer.open(_written(bench))
    assert page.locator("#top").is_hidden()
    assert page.locator("#jump option").all_inner_texts() == ["choose …", "a (60)", "b (60)", "c (60)", "d (60)"]
    page.select_option("#jump", "2")
    page.locator("#top").wait_for()
    head = page.locator(".group").nth(2).bounding_box()
    tools = page.locator("#tools").bounding_box()
    assert head is not None
    assert tools is not None
    assert tools["height"] <= head["y"] < tools["height"] + 60, "right below the tools"
    assert (_ids(page), page.input_value("#jump")) == (120, "")
    page.click("#top")
    wait_until(page, "scrollY === 0")
    page.select_option("#jump", "3")
    page.locator(".tile .open").nth(200).focus()
    page.keyboard.press("t")
    wait_until(page, "scrollY === 0")
    columns = "getComputedStyle(document.querySelector('#gallery')).getPropertyValue('--columns')"
    seen = []
    for size in ("small", "medium", "large"):
        page.select_option("#size", size)
        seen.append(int(page.evaluate(columns)))
    assert seen == sorted(set(seen))[::-1], "larger tiles are fewer in a row"
    page.reload()
    assert (page.input_value("#size"), int(page.evaluate(columns))) == ("large", seen[2]), "the size is kept"
    page.select_option("#group", "")
    assert page.locator("#jump").is_hidden()


def test_the_keys_are_explained_above_the_images_and_so_is_why_nothing_can_be_saved(viewer: Viewer, url: str) -> None:
    page = viewer.open(url)
    keys, gallery = page.locator(".keys"), page.locator("#gallery")
    assert keys.bounding_box()["y"] < gallery.bounding_box()["y"]  # type: ignore[index]
    assert "a accept" in keys.inner_text()
    assert page.locator("#marks-made").inner_text() == "mark images with a or x first"
    assert page.locator("#save").get_attribute("aria-describedby") == "marks-made"
    page.locator(".tile .open").first.focus()
    page.keyboard.press("a")
    assert page.locator("#marks-made").inner_text() == "1 image marked"
    touched = viewer.open(url, width=390, has_touch=True, is_mobile=True)
    assert touched.locator(".keys").is_hidden()
    assert touched.locator("#marks-made").inner_text() == "mark images first"


def test_where_nothing_failed_there_is_no_section_of_failures(viewer: Viewer, bench: Bench) -> None:
    bench.submit(asked(1), asked(2))
    hang(bench, 1, drawn(1))
    page = viewer.open(_written(bench))
    assert page.locator("#failures").is_hidden()
    assert "pipeline run" in page.locator("#queued").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_readable_in_light_and_in_dark(viewer: Viewer, url: str, scheme: str) -> None:
    page = viewer.open(url, scheme=scheme)
    page.locator("#failures summary").click()
    page.locator(".tile .open").first.focus()
    page.keyboard.press("a")
    assert pale_texts(page) == []
    back = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(back) < 64) == (scheme == "dark")
    page.keyboard.press("Enter")
    page.locator(".panel").wait_for()
    assert pale_texts(page) == []


def test_a_telephone_has_two_columns_no_sideways_scrolling_and_marks_by_touch(viewer: Viewer, url: str) -> None:
    page = viewer.open(url, width=390, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.querySelector('#gallery')).getPropertyValue('--columns')") == "2"
    page.locator(".tile .open").first.tap()
    page.locator(".panel").wait_for()
    page.locator(".panel").get_by_role("button", name="Reject").tap()
    assert page.locator('.tile[data-mark="reject"]').count() == 1
    assert page.locator(".panel").bounding_box()["width"] == 390  # type: ignore[index]


def test_without_thumbnails_the_pictures_themselves_are_shown_and_a_missing_one_is_named(
    bench: Bench, viewer: Viewer
) -> None:
    bench.submit(asked(1), asked(2), asked(3))
    hang(bench, 1, drawn(1))
    hang(bench, 2, drawn(2), on_disk=False)
    hang(
        bench,
        3,
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='9' height='9'/></svg>",
        format="svg",
    )
    page = viewer.open(_written(bench, thumbnails=False))
    page.locator(".word.missing").wait_for()
    wait_until(page, "document.images.length === 2 && " + COMPLETE)
    assert [
        src.rpartition(".")[2] for src in page.eval_on_selector_all(".tile img", "all => all.map((one) => one.src)")
    ] == ["png", "svg"]
    viewer.forgive("ERR_FILE_NOT_FOUND")


HOSTILE = [
    "</script><script>window.hurt = 1</script>",
    "<img src=x onerror='window.hurt = 1'>",
    '"><svg onload=window.hurt=1>',
    "javascript:window.hurt=1",
    "{{ data }} {{ scripts }} ${window.hurt=1} \u2028 \u2029 <!--<script>",
    "__proto__",
]


def test_hostile_words_are_shown_as_words_and_run_nothing(bench: Bench, viewer: Viewer) -> None:
    bench.submit(
        *(asked(at, text, variables={text: text, "same": text}) for at, text in enumerate(HOSTILE)),
        asked(9, HOSTILE[0]),
    )
    for at, text in enumerate(HOSTILE):
        hang(bench, at, drawn(at), revised_prompt=text)
    fail(bench, 9, {"http_status": 400, "type": HOSTILE[1], "code": HOSTILE[0], "message": HOSTILE[2]})
    bench.set("UPDATE image SET file = ? WHERE pk = 4", "javascript:window.hurt=1//\"'#?%2e%2e/../../x.png")
    page = viewer.open(_written(bench))
    page.select_option("#group", label="same")
    for at in range(len(HOSTILE)):
        page.locator(".tile .open").nth(at).focus()
        page.keyboard.press("Enter")
        page.locator(".panel").wait_for()
        assert page.locator(".panel .prompt").inner_text().split() == HOSTILE[at].split()
        page.keyboard.press("Escape")
        page.locator(".panel").wait_for(state="detached")
    assert page.locator(".caption").all_text_contents()[0] == HOSTILE[0]
    hrefs = page.eval_on_selector_all("a[href], img[src]", "all => all.map((one) => one.href || one.src)")
    assert all(href.startswith((f"file://{bench.folder}/job/", "data:")) or "#gallery" in href for href in hrefs)
    assert page.evaluate("window.hurt") is None
    assert page.evaluate("({}).same") is None
    assert page.locator("#gallery script, #failures script, #failures img, .panel svg").count() == 0
    viewer.forgive("ERR_FILE_NOT_FOUND")


def test_a_script_that_gets_into_the_page_all_the_same_is_not_run(viewer: Viewer, url: str) -> None:
    page = viewer.open(url)
    page.evaluate("""() => {
      document.body.insertAdjacentHTML("beforeend", "<img src='data:,' onerror='window.hurt = 1'>");
      const script = document.createElement("script");
      script.textContent = "window.hurt = 1";
      document.body.append(script);
      return new Promise((done) => setTimeout(done, 50));
    }""")
    assert page.evaluate("window.hurt") is None
    assert viewer.forgive("Content Security Policy") == 2


def test_ten_thousand_pictures_scroll_smoothly(bench: Bench, viewer: Viewer) -> None:
    categories = [f"category {number}" for number in range(12)]
    bench.submit(
        *(
            asked(at, f"prompt {at} of a long night", variables={"category": categories[at % 12]})
            for at in range(10_000)
        )
    )
    bench.connection.execute("BEGIN")
    pictures = [drawn(number, (320, 320), "webp") for number in range(20)]
    (bench.folder / "job" / "thumbnails").mkdir(parents=True)
    for content in pictures:
        (bench.folder / f"job/thumbnails/{hashlib.sha256(content).hexdigest()}.webp").write_bytes(content)
    bench.set(
        "INSERT INTO attempt (pk, request, provider, n, sent_at, ended_at, outcome)"
        " SELECT pk, pk, 'lab', 1, 0, 1, 'answered' FROM request"
    )
    sums = json.dumps([hashlib.sha256(content).hexdigest() for content in pictures])
    bench.set(
        "INSERT INTO image (request, attempt, job, number, state, file, sha256, bytes, width, height, format)"
        " SELECT pk, pk, job, 1, 'stored', 'images/' || id || '.webp', json_extract(?, '$[' || (pk % 20) || ']'), 9,"
        " 320, 320, 'webp' FROM request",
        sums,
    )
    bench.set("UPDATE request SET status = 'succeeded', received = 1, attempts = 1, cost_usd = 0.01, finished_at = 1")
    bench.connection.execute("COMMIT")
    page = viewer.open(_written(bench, thumbnails=False))
    page.locator(".tile img").first.wait_for()
    ready, measured = page.evaluate(_SCROLLING)
    assert page.locator("#count").inner_text() == "10,000 images"
    assert ready < 3000, f"{ready:.0f} ms until the first pictures stand there"
    print(f"{ready:.0f} ms until loaded; {measured}")
    assert measured["looks"] > 60
    assert measured["still"] > 0.9, (
        f"{measured['still']:.2f} of the looks while scrolling found pictures, not emptiness"
    )
    assert measured["median"] < 40, f"a frame takes {measured['median']:.0f} ms"
    page.keyboard.press("End")
    page.locator(".tile .open").last.focus()
    page.fill("#search", "prompt 9999 ")
    wait_until(page, "document.querySelectorAll('.tile').length === 1")


@pytest.mark.parametrize(("others", "grouped"), [(3, True), (4, False)])
def test_a_variable_that_few_requests_have_groups_nothing_by_itself(
    bench: Bench, viewer: Viewer, others: int, grouped: bool
) -> None:
    some = [asked(number, variables={"animal": ["cat", "dog"][number % 2]}) for number in range(4)]
    bench.submit(*some, *(asked(10 + number) for number in range(others)))
    page = viewer.open(_written(bench))
    assert page.input_value("#group") == ("variables:animal" if grouped else "")


@pytest.mark.parametrize("never", ["requestIdleCallback", "IntersectionObserver"])
def test_what_is_not_there_yet_is_filled_when_it_comes_near_or_when_the_browser_is_idle(
    bench: Bench, viewer: Viewer, never: str
) -> None:
    bench.submit(*(asked(number) for number in range(400)))
    missing = {
        "requestIdleCallback": "() => 0",
        "IntersectionObserver": "class { observe() {} unobserve() {} disconnect() {} }",
    }
    page = viewer.open(_written(bench), script=f"window.{never} = {missing[never]}")
    if never == "requestIdleCallback":
        assert page.locator(".tile").count() < 400
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        wait_until(page, "document.querySelector('.chunk:last-child').children.length > 0")
    else:
        wait_until(page, "document.querySelectorAll('.tile').length === 400")


_SCROLLING = """async () => {
  const ready = performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd;
  const frame = () => new Promise(requestAnimationFrame);
  const times = [];
  let looks = 0, found = 0;
  for (let last = await frame(), step = 0; step < 90; step += 1) {
    scrollBy(0, 700);
    const now = await frame();
    times.push(now - last);
    last = now;
    const chunk = document.elementsFromPoint(innerWidth / 2, innerHeight / 2).find((one) => one.matches(".chunk"));
    looks += !!chunk;
    found += !!chunk && chunk.children.length > 0;
  }
  times.sort((a, b) => a - b);
  return [ready, { median: times[45], worst: times[89], looks, still: found / looks }];
}"""
