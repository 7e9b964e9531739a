"""A real Chromium without a head, and what the tests of both pages ask of a page."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Page

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")  # the first needs half the time
TEXT_CONTRAST = 4.5  # what WCAG 2 asks of small text


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Start the Chromium that is installed. Without one the tests are skipped, save where CI runs them."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have a Chromium: Debian's package `chromium-headless-shell`")
        pytest.skip("no Chromium is installed (Debian's package `chromium-headless-shell`)")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Viewer:
    """Opens pages and keeps what they did wrong: console errors, refused scripts, requests to anywhere else."""

    browser: Browser
    stack: contextlib.ExitStack
    trouble: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def open(
        self,
        url: str,
        *,
        offline: bool = False,
        scheme: Any = "light",
        width: int = 1280,
        script: str | None = None,
        **more: Any,
    ) -> Page:
        """Open a page in a window of its own, as somebody who has never been there; `script` runs before the page's."""
        context = self.browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, locale="en-US", **more
        )
        self.stack.callback(context.close)
        context.set_offline(offline)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("request", lambda request: self.requested.append(request.url))
        if script is not None:
            page.add_init_script(script)
        page.goto(url)
        return page

    def forgive(self, what: str) -> int:
        """Take what was meant to go wrong out of the trouble; how much of it there was."""
        before = len(self.trouble)
        self.trouble = [one for one in self.trouble if what not in one]
        return before - len(self.trouble)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.trouble.append(message.text)


@contextlib.contextmanager
def viewing(browser: Browser) -> Iterator[Viewer]:
    """Open pages; whatever they are made to show, nothing of them may go wrong."""
    with contextlib.ExitStack() as stack:
        viewer = Viewer(browser, stack)
        yield viewer
        assert not viewer.trouble, viewer.trouble


def wait_until(page: Page, condition: str) -> None:
    """Wait until this holds in the page. Playwright's own way needs an `eval`, which the page's policy refuses."""
    page.evaluate(
        f"""() => new Promise((done, failed) => {{
          setTimeout(() => failed(new Error("never came true")), 20000);
          const look = () => (({condition}) ? done() : requestAnimationFrame(look));
          look();
        }})"""
    )


def pale_texts(page: Page) -> list[str]:
    """Name the texts in sight whose colour is too near that of what lies behind them."""
    found: list[str] = page.evaluate(_CONTRASTS, TEXT_CONTRAST)
    return found


_CONTRASTS = """least => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parts(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const pale = [];
  let texts = 0;
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility() || element.closest(".unseen, .skip, script, noscript, option")) continue;
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own && !element.matches("input, select")) continue;
    texts += 1;
    const [a, b] = [parts(getComputedStyle(element).color), behind(element)].map(light).sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least) pale.push(`${ratio.toFixed(2)} ${element.outerHTML.slice(0, 80)}`);
  }
  return texts < 5 ? ["there is no text"] : pale;
}"""
