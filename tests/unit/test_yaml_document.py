"""One reading of YAML: plain values with their lines, and a sentence for whatever is wrong."""

from __future__ import annotations

import contextlib
import json
import string
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config.yaml_document import Document, dotted, nearest, parse, read, unknown_key_message
from pipeline.errors import BadInput, ConfigError, JobError

if TYPE_CHECKING:
    from pathlib import Path


def value(text: str) -> Any:
    doc = parse(text, "a.yaml", JobError)
    assert not doc.problems
    return doc.value


def complaint(text: str) -> str:
    """Everything that is said of a text, be it refused or read with problems."""
    try:
        return "\n".join(map(str, parse(text, "a.yaml", JobError).problems))
    except JobError as error:
        return str(error)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1", 1),
        ("-12", -12),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_plain_scalars_are_json_values(text: str, meant: object) -> None:
    found = value(text)
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "y", "12:30:45", "010", "0o17", "0x1F", "1_000", "2026-11-22", ".5", ".inf"]
)
def test_everything_else_is_text_as_it_stands(text: str) -> None:
    assert value(f"a: {text}") == {"a": text}


def test_quoted_scalars_are_text() -> None:
    assert value("a: '1'\nb: \"true\"\nc: 'null'") == {"a": "1", "b": "true", "c": "null"}


def test_keys_are_always_text() -> None:
    assert value("1: a\nno: b\nnull: c\nn: d") == {"1": "a", "no": "b", "null": "c", "n": "d"}


def test_numbers_are_remembered_as_they_are_written() -> None:
    doc = parse("a: [1.10, TRUE, +5]", "a.yaml", JobError)
    assert [doc.written["a", index] for index in range(3)] == ["1.10", "TRUE", "+5"]


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029"])
def test_line_ends_of_yaml_1_1_are_characters_like_any(mark: str) -> None:
    text = f'plain: a {mark} b\nquoted: "a {mark} b"\nblock: |-\n  a {mark} b\nnext: [{{x: 1}}, 2]'
    doc = parse(text, "a.yaml", JobError)
    assert {doc.value[key] for key in ("plain", "quoted", "block")} == {f"a {mark} b"}
    assert doc.lines["next",] == 5


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029"])
def test_a_mistake_quotes_such_a_character_as_it_stands(mark: str) -> None:
    assert f"put it in quotes: a: 'b: c{mark}d'" in complaint(f"a: b: c{mark}d")


def test_a_bom_and_windows_line_ends_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read(path, JobError).value == {"a": 1, "b": 2}


def test_each_place_knows_its_line() -> None:
    doc = parse("a: 1\nrequests:\n  - prompt: x\n    size: y\n", "jobs/a.yaml", JobError)
    assert doc.location("requests", 0, "size") == "jobs/a.yaml, line 4, requests[0].size"
    assert doc.location("requests", 0, "mask", "box") == "jobs/a.yaml, line 3, requests[0].mask.box"
    assert doc.location() == "jobs/a.yaml, line 1"


def test_a_key_that_stands_twice_is_named_with_its_line_and_the_rest_is_read_on() -> None:
    doc = parse("a: {b: 1}\nc:\n  d: 1\n  d: 2\nc: 3\n", "a.yaml", JobError)
    assert [str(problem) for problem in doc.problems] == [
        "a.yaml, line 4, c.d: `d` is given twice; keep one",
        "a.yaml, line 5, c: `c` is given twice; keep one",
    ]
    assert doc.value == {"a": {"b": 1}, "c": {"d": 1}}


def test_a_merge_lies_under_the_own_keys_and_the_first_of_several_wins() -> None:
    text = "- &a {x: 1, y: 1}\n- &b {x: 2, z: 2}\n- y: 3\n  <<: [*a, *b]\n"
    doc = parse(text, "a.yaml", JobError)
    assert doc.value[2] == {"x": 1, "y": 3, "z": 2}
    assert (doc.lines[2,], doc.lines[2, "y"], doc.lines[2, "z"]) == (3, 3, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "a.yaml, line 1: is not YAML"),
        ("a: 1\n\tb: 2", "a.yaml, line 2: is not YAML"),
        ("a: 1\n---\nb: 2", "a.yaml, line 2: is not YAML: expected a single document"),
        ("a: *nowhere", "a.yaml, line 1: is not YAML: found undefined alias"),
        ("a: 1\nb: x\0y", "a.yaml, line 2: holds the raw character U+0000"),
        ("a: !!python/object/apply:os.system [ls]", "line 1, a: `tag:yaml.org,2002:python/object/apply:os.system`"),
        ("a: !!int x", "a.yaml, line 1, a: `x` cannot be read as int"),
        ("a: !!timestamp 2026-01-01", "cannot be read as timestamp"),
        ("? [a, b]\n: 1", "a.yaml, line 1: a key must be a word"),
        ("a: {{ b }}", "a.yaml, line 1, a: text that begins with {{ needs quotes: write a: '{{ b }}'"),
        ("a: [{{ b }}]", "a.yaml, line 1, a[0]: text that begins with {{ needs quotes: write '{{ b }}'"),
        ("a: {{ b }} cat", "line 1: is not YAML: text that begins with {{ needs quotes; if that is text, put it in"),
        (
            "a: a cat: sitting",
            "line 1: is not YAML: `: ` stands twice in the line; if that is text, put it in quotes",
        ),
        ('a:\n  - b: "c\n    d: 1\n', "line 2: is not YAML: a quote is opened in this line and never closed"),
        ("a:\n  - b:c\n    d: 1", "line 2: is not YAML: a `-` or a `:` needs a space behind it"),
        ("a:\n  -b: c\n   d: 1", "line 2: is not YAML: a `-` or a `:` needs a space behind it"),
        ("a:\n  - b: 1\n    c:2\n    d: 3", "line 3: is not YAML: a `-` or a `:` needs a space behind it"),
        ("a:\n  - b: c: d\n", "line 2: is not YAML: `: ` stands twice in the line"),
        ("a:\n  - b: 1\n  c: 2", "line 3: is not YAML: while parsing a block collection, did not find expected '-'"),
        ("a:\n  - b: 1\n  c: 2", "; compare its indentation with the lines above"),
        ("a:\n  \t- b", "line 2: is not YAML: its indentation holds a tab; indent with spaces, not with tabs"),
        ("a: !important b", "cannot be read as !important; if that is text, put all of it in quotes"),
        ("a: {b: one: two}", "; within { } or [ ], text with `: `, a comma or a bracket needs quotes"),
        ("a: 1\n\tb: 2", "; indent with spaces, not with tabs"),
        ('a: "pics\\photo.png"', "; in double quotes a backslash begins an escape: write `/`, or single quotes"),
        ("<<: 1", "a.yaml, line 1: `<<` merges mappings only"),
        ("a: &a [*a]", "a.yaml, line 1: an alias contains itself"),
        ("a: &a {b: *a}", "an alias contains itself"),
        ("a: " + "9" * 401, "cannot be read as int"),
        ("a: 1e999", "cannot be read as float"),
    ],
)
def test_what_cannot_be_read_is_named_in_a_sentence(text: str, words: str) -> None:
    assert words in complaint(text)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{p: *{old}, q: *{old}, <<: *{old}}}\n"
    for old, new in zip(string.ascii_lowercase, string.ascii_lowercase[1:], strict=False)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        MERGE_BOMB,
        "&a [*a, *a]",
        "[" * 100_000,
        "{a: " * 50_000,
        "- " * 50_000,
        "? " * 50_000,
        "".join(" " * depth + "-\n" for depth in range(2000)),
        "".join(f"{' ' * depth}a:\n" for depth in range(2000)),
        "a: &x0 [1]\n" + "".join(f"a{i}: &x{i} [*x{i - 1}]\n" for i in range(1, 3000)),
    ],
    ids=["aliases", "merges", "cycle", "flow", "braces", "dashes", "keys", "lists", "mappings", "chain"],
)
def test_what_would_blow_up_is_refused_at_once(text: str) -> None:
    begin = time.monotonic()
    assert complaint(text).startswith("a.yaml, line")
    assert time.monotonic() - begin < 3


def test_as_deep_as_people_write_is_fine() -> None:
    assert value("[" * 50 + "]" * 50)


def test_text_that_is_nested_too_deep_is_named_with_the_limit() -> None:
    assert complaint("a:\n  " + "[" * 70 + "]" * 70) == "a.yaml, line 2: is nested deeper than 60 levels"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: 1\nb: caf\xe9\n", "line 2: is not UTF-8 (byte 11 of the file)"),
        (b"\xff\xfea\x00", "line 1: is not UTF-8"),
    ],
)
def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read(path, ConfigError)
    assert words in str(caught.value)


def test_a_file_that_is_missing_a_folder_or_too_large_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(65 * 2**20)
    for path, words in [(tmp_path / "no.yaml", "No such file"), (tmp_path, "directory"), (large, "`rows:` file")]:
        with pytest.raises(JobError, match=words):
            read(path, JobError)


def test_the_nearest_word_is_found_without_regard_to_case() -> None:
    assert nearest("Promt", ["prompt", "model"]) == "prompt"
    assert nearest("lab", ["Lab", "openai"]) == "Lab"
    assert nearest("zebra", ["prompt", "model"]) is None
    assert unknown_key_message("zebra", ["b", "a"]) == "unknown key `zebra`; known are a, b"


def test_places_are_written_as_people_do() -> None:
    assert dotted(("requests", 3, "mask", "box", 0)) == "requests[3].mask.box[0]"


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _read_or_refused(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert isinstance(parse(text, "a.yaml", JobError), Document)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.text(max_size=200) | st.text(alphabet="&*a:-[]{}<>!?|'\"# \n\t,%@0.e~\\", max_size=80))
@example("\ud800")
@example('"\\ud800"')
@example("!<tag:yaml.org,2002:merge> a")
@example("<<: &a\n  <<: *a")
def test_any_text_is_read_or_refused(text: str) -> None:
    _read_or_refused(text)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(NESTED)
def test_any_values_that_yaml_can_write_are_read_or_refused(values: object) -> None:
    _read_or_refused(yaml.safe_dump(values, allow_unicode=True))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_quoted_text_comes_back_as_it_is(text: str) -> None:
    escaped = "".join(character if character.isalnum() else f"\\U{ord(character):08x}" for character in text)
    assert value(f'a: "{escaped}"') == {"a": text}


@pytest.mark.parametrize(
    "text",
    [
        *("A sign: open late", "*bold*", "*bold", "@home", "`kite`", "%d", "[red] kite", "{red} kite", '"red" kite'),
        *("- kite", "| kite", "> kite", "? kite", "it's: late", "kite:", 'say "no": now', 'it\'s "so": now'),
    ],
)
def test_text_that_needs_quotes_is_shown_in_quotes_and_that_is_right(text: str) -> None:
    with pytest.raises(JobError) as caught:
        parse(f"- prompt: {text}\n  n: 1\n", "a.yaml", JobError)
    location, _, written = str(caught.value).partition("; if that is text, put it in quotes: ")
    assert location.startswith("a.yaml, line 1: is not YAML: ")
    assert parse(f"- {written}\n  n: 1\n", "a.yaml", JobError).value == [{"prompt": text, "n": 1}]


@pytest.mark.parametrize("text", ["- prompt: a\n   n: 1\n", "- prompt: 'a'\n   n: 1\n", "a: b\n- c\n"])
def test_a_mistake_that_quotes_do_not_mend_says_nothing_of_them(text: str) -> None:
    with pytest.raises(JobError) as caught:
        parse(text, "a.yaml", JobError)
    assert "quotes" not in str(caught.value)


@pytest.mark.parametrize("indent", [None, 2])
def test_json_with_escaped_emoji_is_read_as_json(indent: int | None) -> None:
    value = {
        "requests": [
            {
                "prompt": "a \U0001f3a8 \\ud83c\\udfa8 \\\U0001f3a8 / \u00e9 \x7f \u2028 \x1b",
                "\U0001f469\u200d\U0001f680": 1,
            },
            {"prompt": "b"},
        ]
    }
    document = parse(json.dumps(value, indent=indent), "a.json", JobError)
    assert (document.value, document.problems) == (value, ())
    assert document.lines["requests", 1, "prompt"] == (8 if indent else 1)
    slashes = '{"a": "b\\/c", "d": "\\ud83c\\udfa8"}'
    assert parse(slashes, "a.json", JobError).value == {"a": "b/c", "d": "\U0001f3a8"}


@pytest.mark.parametrize(
    "text", ['{"a": "\\ud83c"}', '{"a": "\\udfa8\\ud83c"}', 'a: "\\ud83c\\udfa8"', '{a: "\\ud83c\\udfa8"}']
)
def test_half_an_emoji_or_a_pair_in_other_yaml_is_a_sentence(text: str) -> None:
    try:
        said = "".join(map(str, parse(text, "a.json", JobError).problems))
    except JobError as error:
        said = str(error)
    assert "a.json, line 1" in said
    assert ("or the character itself" in said) is ("d83c\\udfa8" in text)


def test_what_looks_like_a_pair_in_other_yaml_stays_text() -> None:
    text = "a: \\ud83c\\udfa8\nb: '\\ud83c\\udfa8'\nc: |-\n  \\ud83c\\udfa8"
    assert parse(text, "a.yaml", JobError).value == dict.fromkeys("abc", "\\ud83c\\udfa8")
    assert parse("[\\ud83c\\udfa8]", "a.yaml", JobError).value == ["\\ud83c\\udfa8"]


def test_a_line_of_blanks_and_a_key_of_megabytes_are_sentences_at_once() -> None:
    begin = time.process_time()
    with pytest.raises(JobError, match=r"a\.yaml, line 1: is not YAML"):
        parse("prompt: a: x" + " " * 200_000 + "y: 1", "a.yaml", JobError)
    assert len(unknown_key_message("k" * 20_000_000, ["key", "kind"])) < 200
    assert time.process_time() - begin < 1


def test_a_template_without_quotes_is_one_mistake_and_is_read_as_the_text_that_was_meant() -> None:
    doc = parse("a: {{ b }}\nc: Ünïcode\nd: {{x}}\n", "a.yaml", JobError)
    assert doc.value == {"a": "{{ b }}", "c": "Ünïcode", "d": "{{x}}"}
    assert len(doc.problems) == 2
