"""Secrets are removed from every text of a response, in each form in which servers repeat them."""

from __future__ import annotations

import ast
import base64
import json
from urllib.parse import quote

import pytest
from multidict import CIMultiDict

from pipeline.client.response import HttpResponse, InlineImage, read_response
from pipeline.client.secrets import Secrets
from pipeline.errors import RequestError
from tests.support.readme import PACKAGE, syntax_tree

KEY, TOKEN = "sk-test/0123456789+abc=", "team token 0123"
QUOTED = quote(KEY, safe="")
LOWER = QUOTED.lower()
SECRETS = Secrets({"key": KEY, "X-Team": TOKEN, "X-Short": "night", "X-None": None})
URL = "https://api.example/v1/images/generations"


def response(body: str | bytes, status: int = 200, **headers: str) -> HttpResponse:
    named = SECRETS.scrub_headers(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}))
    return HttpResponse(status, named, body.encode() if isinstance(body, str) else body, URL, secrets=SECRETS)


def test_each_secret_has_a_mark_of_its_own_and_short_values_are_none() -> None:
    said = f"{KEY} of {TOKEN} at night, {QUOTED}, {LOWER}"
    scrubbed = SECRETS.scrub_text(said)
    assert scrubbed.startswith("***key*** of ***X-Team*** at night, ***key.quoted***, ")
    assert "0123" not in scrubbed


def test_a_secret_that_contains_another_is_removed_whole() -> None:
    both = Secrets({"key": "abcdefgh", "Authorization": "Bearer abcdefgh"})
    assert both.scrub_text("Bearer abcdefgh, abcdefgh") == "***Authorization***, ***key***"


@pytest.mark.parametrize("form", [KEY, QUOTED, LOWER])
def test_a_url_is_restored_byte_for_byte(form: str) -> None:
    url = f"https://api.example/a%2Fb?key={form}&se=1#***"
    stored = SECRETS.scrub_text(url)
    assert form not in stored
    assert SECRETS.restore(stored) == url


def test_a_success_repeats_no_secret_anywhere() -> None:
    body = {
        "data": [{"b64_json": "QUJD", "revised_prompt": f"a cat {KEY}"}, {"url": f"https://h.example/a?k={KEY}"}],
        "usage": {KEY: 1, "details": {f"of {TOKEN}": [KEY, {"x": TOKEN}]}},
        **{name: f"{name} {KEY}" for name in ("size", "quality", "background", "output_format")},
    }
    escaped = json.dumps(body).replace("/", "\\/").replace("sk-", "\\u0073k-")
    for text in (json.dumps(body), escaped, f"data: {json.dumps(body)}\n\n"):
        found = read_response(response(text, x_request_id=f"r {KEY}"))
        assert KEY not in repr(found), text
        assert TOKEN not in repr(found), text
        assert found.request_id == "r ***key***"
        assert found.images[0].revised_prompt == "a cat ***key***"
        assert found.settings["size"] == "size ***key***"
        assert found.usage is not None
        assert "***key***" in found.usage


@pytest.mark.parametrize("padding", range(0, 1200, 7))
def test_a_secret_at_the_place_where_a_text_is_cut_leaves_no_part(padding: int) -> None:
    said = "x " * (padding // 2) + KEY
    with pytest.raises(RequestError) as caught:
        read_response(response(json.dumps({"error": {"message": said, "code": said, "type": said}}), 400))
    found = read_response(response(json.dumps({"data": ["https://h.example/a"], "usage": {said: said}})))
    assert "sk-t" not in f"{vars(caught.value)} {found}"


@pytest.mark.parametrize(
    "body",
    [
        f'{{"error": {{"message": "no {KEY}", "code": "{KEY}"',
        f"<html><title>{KEY}</title>{KEY}</html>",
        f"refused: {KEY}",
        json.dumps({"error": {"message": "no", "metadata": {"raw": json.dumps({"error": {"message": KEY}})}}}),
        json.dumps({KEY: {TOKEN: 1}}),
        json.dumps({"error": [KEY, {"message": TOKEN}]}),
    ],
)
@pytest.mark.parametrize("status", [200, 302, 400, 503])
def test_an_error_in_any_form_repeats_no_secret(body: str, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        read_response(response(body, status, location=f"https://h.example/{KEY}", content_type=f"x/{KEY}"))
    assert KEY not in f"{vars(caught.value)} {caught.value.args}"
    assert TOKEN not in str(vars(caught.value))


def test_a_long_text_is_searched_whole_unless_it_is_base64() -> None:
    image = base64.b64encode(bytes(range(256)) * 4000).decode()
    assert SECRETS.scrub_text(image) is image
    assert KEY not in SECRETS.scrub_text("a cat " * 20_000 + KEY)
    assert SECRETS.scrub_text(image[:300] + KEY + image) == image[:300] + "***key***" + image
    found = read_response(response(json.dumps({"data": [{"b64_json": image}]})))
    assert found.images == (InlineImage(image, None),)


def test_a_body_that_is_nested_deep_is_cut_and_not_an_error() -> None:
    deep = '{"data": ' + "[" * 500 + f'"{KEY}"' + "]" * 500 + "}"
    with pytest.raises(RequestError) as caught:
        read_response(response(deep))
    assert KEY not in str(vars(caught.value))


def test_no_dataclass_shows_the_environment_in_its_repr() -> None:
    """A bound method shows its object, in the messages of asyncio too."""
    fields = [
        (path.name, ast.unparse(field))
        for path in PACKAGE.rglob("*.py")
        for made in ast.walk(syntax_tree(path))
        if isinstance(made, ast.ClassDef) and any("dataclass" in ast.unparse(one) for one in made.decorator_list)
        for field in made.body
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) in {"environment", "secrets"}
        if "Mapping" in ast.unparse(field.annotation)
    ]
    assert len(fields) > 4
    assert [(file, field) for file, field in fields if "repr=False" not in field] == []
