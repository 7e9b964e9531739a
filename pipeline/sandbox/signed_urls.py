"""Sign image URLs that expire, and verify them.

The form is that of the service's blob store (an Azure user-delegation SAS: `st` an hour before creation, `se` the
expiry, `sig` the signature). Nothing is stored: the path holds the image spec, the query its validity. The signature
covers the raw bytes of path and query, as byte-exact signers do, so a client that re-quotes `%3A` to `:` gets a 403.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import re
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, quote
from xml.sax.saxutils import escape

from pipeline.sandbox.drawing.image_spec import ImageSpec

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX: Final = "/v1/pictures/"
START_OFFSET: Final = 3600
"""Seconds from `st` to creation, as in every sample of the service's URLs."""
DELEGATION_SECONDS: Final = 86400
"""Validity of the delegation key (`skt` to `ske`); never shorter than that of the URL."""
OBJECT_ID: Final = "475fd488-6c59-44a5-9aa9-31c4db451bea"
TENANT_ID: Final = "a48cca56-e6da-484e-a814-9c849652bcb3"
PAYLOAD: Final = re.compile(r"[A-Za-z0-9_-]+")


class BlobError(Exception):
    """An error of the blob store: an XML document, never JSON."""

    def __init__(self, status: int, code: str, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self._detail = detail

    def body(self, request_id: str, now: float) -> bytes:
        """Return the XML as the blob store writes it, with a byte order mark."""
        message = f"{self}\nRequestId:{request_id}\nTime:{_iso(now)}"
        detail = (
            f"<AuthenticationErrorDetail>{escape(self._detail)}</AuthenticationErrorDetail>" if self._detail else ""
        )
        document = (
            f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{self.code}</Code>'
            f"<Message>{escape(message)}</Message>{detail}</Error>"
        )
        return document.encode("utf-8-sig")


def authentication_failed(detail: str) -> BlobError:
    """403: the signature, the time or the headers are invalid."""
    message = "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
    return BlobError(403, "AuthenticationFailed", f"{message}correctly including the signature.", detail)


def public_access_not_permitted() -> BlobError:
    """409: the URL has no query."""
    message = "Public access is not permitted on this storage account."
    return BlobError(409, "PublicAccessNotPermitted", message)


def blob_not_found() -> BlobError:
    """404: the URL is valid, and what it names is gone."""
    return BlobError(404, "BlobNotFound", "The specified blob does not exist.")


@dataclass(frozen=True, slots=True)
class SignedUrls:
    """Signs and verifies image URLs; the seed is the whole secret, so URLs survive a restart."""

    seed: int
    ttl: float
    clock: Callable[[], float]

    def sign(self, origin: str, spec: ImageSpec) -> str:
        """Return the URL of an image below `origin` (scheme, host, port); it expires in `ttl` seconds."""
        now = self.clock()
        start, expiry = now - START_OFFSET, now + self.ttl
        path = f"{PREFIX}{_pack(spec)}.png"
        key_expiry = max(start + DELEGATION_SECONDS, expiry)
        parameters = {
            "st": _iso(start),
            "se": _iso(expiry),
            "sp": "r",
            "sv": "2024-08-04",
            "sr": "b",
            "rscd": "inline",
            "rsct": f"image/{spec.format}",
            "skoid": OBJECT_ID,
            "sktid": TENANT_ID,
            "skt": _iso(start),
            "ske": _iso(key_expiry),
            "sks": "b",
            "skv": "2024-08-04",
        }
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"{origin}{path}?{query}&sig={self._signature(path, query)}"

    def verify(self, raw_path: str) -> ImageSpec:
        """Return the image spec of a raw path with its query. Raises BlobError."""
        path, _, query = raw_path.partition("?")
        if not query:
            raise public_access_not_permitted()
        signed, found, signature = query.partition("&sig=")
        expected = self._signature(path, signed)
        if not found or not hmac.compare_digest(signature.encode(), expected.encode()):
            raise authentication_failed("Signature did not match. String to sign used was " + repr(raw_path[:200]))
        self._check_validity(signed)
        return _unpack(path.removeprefix(PREFIX).removesuffix(".png"))

    def _signature(self, path: str, query: str) -> str:
        secret = hashlib.sha256(f"image-batch-pipeline sandbox {self.seed}".encode()).digest()
        text = f"{path}?{query}".encode("utf-8", "surrogateescape")
        return quote(base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()), safe="")

    def _check_validity(self, query: str) -> None:
        parameters = parse_qs(query)
        start, expiry = parameters["st"][0], parameters["se"][0]
        now = self.clock()
        if not _seconds(start) <= now < _seconds(expiry):
            times = f"Start [{_http_date(start)}] - Expiry [{_http_date(expiry)}] - Current [{_http_date(_iso(now))}]"
            raise authentication_failed(f"Signed expiry time or start time is not valid: {times}")


def _pack(spec: ImageSpec) -> str:
    values = json.dumps(astuple(spec), ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(values.encode()).decode().rstrip("=")


def _unpack(payload: str) -> ImageSpec:
    if not PAYLOAD.fullmatch(payload):
        raise blob_not_found()
    try:
        return ImageSpec(*json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
    except (ValueError, TypeError, binascii.Error) as error:
        raise blob_not_found() from error


def _iso(seconds: float) -> str:
    # Whole seconds, as the service writes them, rounded up so that a short validity is not made shorter.
    return datetime.fromtimestamp(math.ceil(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def _http_date(iso: str) -> str:
    return datetime.fromisoformat(iso).strftime("%a, %d %b %Y %H:%M:%S GMT")
