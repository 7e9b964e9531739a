"""TLS for servers of tests on 127.0.0.1: a certificate of their own, which only those tests trust."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import connector

if TYPE_CHECKING:
    import pytest

KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgFuK5NXLS58124cNo
tHbAezFeJwEerGLELRNpVYuuiu+hRANCAAR385ksWvFzHC0iH3nbL0cgB8oQioBh
D5uDINb/48HScEuu8sTqG2O6/hVntn5MJNPLZLLifenqGViWiuZD8Y/+
-----END PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUbzKIWFFkeqbrhk/F2HP0DqfMVXAwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODA0Mjg0N1oYDzIxMjYxMTA0
MDQyODQ3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAR385ksWvFzHC0iH3nbL0cgB8oQioBhD5uDINb/48HScEuu8sTqG2O6
/hVntn5MJNPLZLLifenqGViWiuZD8Y/+o28wbTAdBgNVHQ4EFgQU5W2JN9Ln/Lhr
g7uMlOME7+cMMQIwHwYDVR0jBBgwFoAU5W2JN9Ln/Lhrg7uMlOME7+cMMQIwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARhwR/AAABgglsb2NhbGhvc3QwCgYIKoZI
zj0EAwIDSQAwRgIhAP/wL+b5B+M6zy7bW0hYaahnJJGuD0DQoF0jq9GIN6hSAiEA
9RwTVZcDH0W2waEPIehZYZdZmI7XKOAa3Sn2vYSP6ac=
-----END CERTIFICATE-----
"""  # of localhost and 127.0.0.1, for a hundred years; it protects nothing


def server_context() -> ssl.SSLContext:
    """Return the context of a server with the certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "both.pem")
        file.write_text(KEY + CERTIFICATE)
        context.load_cert_chain(file)
    return context


def trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let aiohttp's clients accept the certificate until the test ends, as `SSL_CERT_FILE` does at their import."""
    context = ssl.create_default_context(cadata=CERTIFICATE)
    context.set_alpn_protocols(["http/1.1"])
    monkeypatch.setattr(connector, "_SSL_CONTEXT_VERIFIED", context)
