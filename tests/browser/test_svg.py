"""SVG in a real browser: what the list allows runs nothing and requests nothing, whatever its values say."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import pytest

from pipeline.config.load import Config
from pipeline.images import svg_allowed as allowed
from pipeline.images.inspect import inspect_svg
from pipeline.reports.html_report import write_report
from pipeline.reports.next_command import NextCommand
from tests.support.browser import wait_until
from tests.support.exhibits import asked, hang
from tests.unit.test_svg import AWAY, HOSTILE, ORDINARY, SVG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.support.browser import Viewer
    from tests.support.workbench import Bench

SCRIPT = "javascript:document.documentElement.dataset.ran=1"
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
RAN = "() => document.documentElement?.hasAttribute('data-ran')"


class Site:
    """A server that keeps the paths of all requests; pages are below /page/, and everything else is empty."""

    def __init__(self) -> None:
        self.pages: list[bytes] = []
        self.asked: list[str] = []
        self.fetched = threading.Event()  # something that is no page
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                if self.path == "/away":
                    site.fetched.set()
                number = self.path.removeprefix("/page/")
                body = site.pages[int(number)] if number.isdecimal() else b""
                self.send_response(200)
                self.send_header("Content-Type", "image/svg+xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Write no log."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.away = f"http://127.0.0.1:{self.server.server_port}/away"

    def outcome(self, browser: Browser, svg: str, *, awaited: bool = False) -> tuple[set[str], bool]:
        """Open an SVG as a page of its own; return what it requested and whether a script ran.

        With `awaited`, it is known to request something.
        """
        self.pages.append(svg.encode())
        place, context = f"/page/{len(self.pages) - 1}", browser.new_context()
        self.asked.clear()
        self.fetched.clear()
        try:
            page = context.new_page()
            page.goto(f"{self.away.removesuffix('/away')}{place}")
            page.evaluate(TWO_FRAMES)
            page.mouse.click(5, 5)
            page.evaluate(TWO_FRAMES)
            if awaited:
                self.fetched.wait(20)
            return {one for one in self.asked if one not in {place, "/favicon.ico"}}, bool(page.evaluate(RAN))
        finally:
            context.close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def _whole(inside: str) -> str:
    return SVG.format('width="100" height="100"', inside)


def _element(name: str, attributes: dict[str, str], inside: str = "") -> str:
    written = " ".join(f"{key}={quoteattr(value)}" for key, value in attributes.items())
    return f"<{name} {written}>{inside}</{name}>"


def _elements(value: str) -> Iterator[str]:
    """Yield each element that is allowed with each attribute that is allowed, all of this value."""
    names = sorted(allowed.PLAIN - {"attributeName", "viewBox", "id"})
    words = {f"xlink:{name}": value for name in sorted(allowed.XLINK_WORDS - {"type"})}
    more = {"data-src": value, "aria-href": value, **words}
    for element in sorted(allowed.ELEMENTS - {"style", "svg"} - allowed.ANIMATIONS):
        yield _element(element, dict.fromkeys(names, value) | more)
        drawn = {"width": "9", "height": "9", "href": "#a"}
        yield _element(element, dict.fromkeys(sorted(allowed.STYLED), value) | drawn, "a")
        yield _element(element, dict.fromkeys(sorted(allowed.STYLED), f"'{value}'") | drawn, "a")
    yield from (
        f'<e:{name} xmlns:e="{editor}" src={quoteattr(value)} href={quoteattr(value)}/>'
        for editor in allowed.EDITORS
        for name in ("image", "script", "img")
    )


def _animations(value: str) -> Iterator[str]:
    for target in sorted(allowed.ANIMATED):
        for animation in ("set", "animate"):
            words = {"attributeName": target, "to": value, "from": value, "values": value, "dur": "1s", "begin": "0s"}
            yield f"<image>{_element(animation, words)}</image><rect>{_element(animation, words)}</rect>"


def _styles(value: str) -> Iterator[str]:
    for function in sorted(allowed.CSS_FUNCTIONS - {"url"}):
        for name in ("fill", "mask", "filter", "cursor", "background-image", "clip-path", "content", "--a"):
            yield f"<style>*{{{name}:{function}('{value}')}} rect{{{name}:{function}({value})}}</style>"
    for rule in sorted(allowed.CSS_RULES):
        yield f"<style>@{rule} '{value}' {{*{{fill:red}}}} @{rule} {value};</style>"
    yield f"<style>*{{--a:'{value}';mask:var(--a);fill:var(--a, '{value}')}}</style>"


@pytest.mark.parametrize("script", [False, True], ids=["an address", "a script"])
def test_what_the_list_allows_runs_nothing_and_requests_nothing(browser: Browser, site: Site, script: bool) -> None:
    value = SCRIPT if script else site.away
    drawn = '<rect width="99" height="99"/>'
    pages = [_whole(drawn + "".join(make(value))) for make in (_elements, _animations, _styles)]
    for page in [*pages, ORDINARY]:
        inspect_svg(page.encode())
        assert site.outcome(browser, page) == (set(), False)


def test_a_browser_obeys_what_is_refused(browser: Browser, site: Site) -> None:
    names = (
        "CDATA in @import",
        "an escape in url",
        "an escape that ends in a blank before the parenthesis",
        "image-set",
        "animated values",
        "set of href",
    )
    for name in names:
        asked_for, _ = site.outcome(
            browser, _whole(f"<rect width='9' height='9'/>{HOSTILE[name]}").replace(AWAY, site.away), awaited=True
        )
        assert asked_for == {"/away"}, name
    script = "<script>document.documentElement.dataset.ran=1</script>"
    assert site.outcome(browser, _whole(script)) == (set(), True)
    link = f'<a href="{SCRIPT}"><rect width="99" height="99"/></a>'
    assert site.outcome(browser, _whole(link)) == (set(), True)


def test_in_a_report_even_what_is_refused_runs_nothing_and_requests_nothing(
    bench: Bench, viewer: Viewer, site: Site
) -> None:
    script = f"<script>fetch('{site.away}')</script>"
    pictures = [_whole(inside.replace(AWAY, site.away)) for inside in (*HOSTILE.values(), script)]
    bench.submit(*map(asked, range(len(pictures))))
    for number, picture in enumerate(pictures):
        hang(bench, number, picture.encode(), format="svg")
    path: Path = write_report(
        bench.connection, "job", bench.folder, NextCommand.here(Config(None, bench.folder, None, {}))
    )
    page = viewer.open(path.as_uri())
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    wait_until(page, "[...document.images].length && [...document.images].every((image) => image.complete)")
    page.evaluate(TWO_FRAMES)
    assert site.asked == []
