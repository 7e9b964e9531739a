"""Writes `report.html` from the ledger: one page that shows a job from the disk, without a network.

No text of a prompt, a name or a server becomes markup: it is embedded as JSON in which no character can end the script
element, and the page writes it as text. The page's Content-Security-Policy allows its own scripts only, by their hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.files import disk_error, make_folder, write_whole
from pipeline.ledger.database import file_mode
from pipeline.reports.report_data import read_report_data
from pipeline.stores import Addresses

if TYPE_CHECKING:
    import sqlite3

    from pipeline.reports.next_command import NextCommand

FILE_NAME = "report.html"

_PAGES = Path(__file__).with_name("pages")
_STYLES = ("photoswipe/photoswipe.css", "colours.css", "report.css")
_SCRIPTS = (
    "photoswipe/photoswipe.umd.min.js",
    "elements.js",
    "items.js",
    "picks.js",
    "compare.js",
    "tiles.js",
    "large.js",
    "report.js",
)
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def write_report(
    connection: sqlite3.Connection,
    name: str,
    folder: Path,
    command: NextCommand,
    addresses: Addresses = Addresses(),
) -> Path:
    """Write the report of a job into its folder below `folder`; return its path. Raises DiskFull."""
    path = folder / name / FILE_NAME
    try:
        make_folder(path.parent)
        text = page(read_report_data(connection, name, command=command, addresses=addresses), addresses.images_url)
        write_whole(path, text.encode("utf-8", "replace"), file_mode(folder))
    except OSError as reason:
        raise disk_error(reason, folder) from None
    return path


def report_page(connection: sqlite3.Connection, name: str, command: NextCommand) -> str:
    """Return the report of a job as an HTML page that is served: the server finds its images."""
    return page(read_report_data(connection, name, command=command))


def page(data: dict[str, Any], images_url: str | None = None) -> str:
    """Return the HTML page that shows this report data, and images below `images_url` if there is one."""
    styles = [(_PAGES / name).read_text(encoding="utf-8") for name in _STYLES]
    scripts = [(_PAGES / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)};"
        f" img-src 'self' file: data:{_origin(images_url)}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "title": html.escape(data["job"]),
        "styles": "\n".join(f"<style>{style}</style>" for style in styles),
        "data": embed(data),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    template = (_PAGES / "report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: parts[found[1]], template)


def _origin(images_url: str | None) -> str:
    """Return the origin of a URL, with a space before it, as a Content-Security-Policy names it."""
    if images_url is None:
        return ""
    url = urlsplit(images_url)
    return " " + html.escape(re.sub(r"[\s;,]", "", f"{url.scheme}://{url.netloc}"))


def embed(value: Any) -> str:
    """Return a value as JSON for a page: none of its characters can end a script element or a line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPES)


def _hashes(texts: list[str]) -> str:
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
