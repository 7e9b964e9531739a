"""Text with {{ variables }} becomes values, and nothing else in a text means anything."""

from __future__ import annotations

import contextlib
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.planning.expressions import FILTER_NAMES, MAX_SIZE, METHOD_NAMES
from pipeline.planning.templates import MAX_CHARACTERS, is_template, render


@pytest.mark.parametrize("value", [3, 0.5, True, None, "text", ["a"], {"a": 1}])
@pytest.mark.parametrize("text", ["{{ x }}", "{{x}}", "{{-  x -}}"])
def test_a_lone_variable_keeps_its_type(text: str, value: object) -> None:
    found = render(text, {"x": value})
    assert found == value
    assert type(found) is type(value)


def test_a_lone_variable_may_be_any_column_name() -> None:
    assert render("{{ Prompt (en) }}", {"Prompt (en)": "a cat"}) == "a cat"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a {{ animal }}, {{n}}", "a cat, 3"),
        ("{{ flag }} {{ half }}", "true 0.5"),
        ("a {{ nothing }}cat", "a cat"),
        ("{{ animal|upper }}!", "CAT!"),
        ("{{ animal.title() }} {{ flag and 'yes' }}", "Cat yes"),
        ("{{ 'few' if n < 5 else 'many' }} cats", "few cats"),
        ("{{ nothing }} {{ flag|lower }} {{ not flag }}", " true false"),
        ("{{ '{{' }} is a brace", "{{ is a brace"),
        ("{{ words|join(', ') }}.", "a, b."),
        ("{{ n * 2 }} {{ 2 ** 3 }} {{ 7 % 4 }}", "6 8 3"),
    ],
)
def test_variables_and_expressions_are_filled_in(template: str, text: str) -> None:
    variables = {"animal": "cat", "n": 3, "flag": True, "half": 0.5, "nothing": None, "words": ["a", "b"]}
    assert render(template, variables) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  a\ttab 'quotes' \"too\"  ",
        "{% if x %} 100 {%",
        "{# no comment #}",
        "a }} b",
        "{ x }",
        "\r\n\u2028 🎨\n",
        "$x",
    ],
)
def test_a_text_without_variables_stays_as_it_is(text: str) -> None:
    assert render(text, {"x": 1}) == text
    assert render(f"{text}{{{{ x }}}}{text}", {"x": "-"}) == f"{text}-{text}"


def test_what_a_variable_holds_is_never_rendered_again() -> None:
    assert render("{{ x }}", {"x": "{{ y }}", "y": 1}) == "{{ y }}"
    assert render("a {{ x }}", {"x": "{{ y }}", "y": 1}) == "a {{ y }}"
    assert render("a {{ x|trim }}", {"x": "{{ y }}", "y": 1}) == "a {{ y }}"


def test_lists_and_mappings_are_filled_at_every_depth() -> None:
    value = {"a": ["{{ x }}", {"b": "c-{{ x }}"}], "d": 1}
    assert is_template(value)
    assert render(value, {"x": 5}) == {"a": [5, {"b": "c-5"}], "d": 1}
    assert not is_template({"a": ["x", 1, None]})


@pytest.mark.parametrize(
    "template", ["{{ stlye }}", "a {{ stlye }}", "{{ stlye|upper }}", "{{ range }}", "{{ range(3)|join }}"]
)
def test_an_undefined_variable_is_named_with_those_that_are_known(template: str) -> None:
    with pytest.raises(ValueError, match=r"variable `\w+` is not defined; known here: animal, style"):
        render(template, {"style": "x", "animal": "y"})
    with pytest.raises(ValueError, match="known here: none: add `matrix:` or `rows:`"):
        render(template, {})


@pytest.mark.parametrize("text", ["{{masterpiece}}", "{{masterpiece}}, 8k", "{{best quality}}, a kite", "a {{{kite}}}"])
def test_for_braces_in_the_text_itself_it_is_said_what_to_write_and_that_works(text: str) -> None:
    with pytest.raises(ValueError, match="for two braces in the text itself write ") as caught:
        render(text, {})
    written = re.search(r"itself write (.*)\)", str(caught.value))
    assert written is not None
    assert render(text.replace("{{", written[1], 1), {}) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{ x",
        "{{ }} a",
        "a {{ x + }}",
        "a {{ x|nofilter }}",
        "a {{ 1 / 0 }}",
        "a {{ x.__class__.__mro__ }}",
        "a {{ words }}",
        "a {{ 'x' * 1000000000 }}",
        "a {{ 9 ** 9 ** 9 ** 9 }}",
        "a {{ 'x'|center(999999999) }}",
        "a {{ x.center(999999999) }}",
        "a {{ x.zfill(999999999) }}",
        "a {{ '%999999999d' % 1 }}",
        "a {{ '{:999999999}'.format(1) }}",
        "a {{ words|random }}",
        "a {{ " + "(" * 5000 + "x" + ")" * 5000 + " }}",
    ],
)
def test_a_template_that_cannot_be_filled_is_a_sentence_and_soon(template: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ValueError, match=r"\w"):
        render(template, {"x": "a", "words": ["a", "b"]})
    assert time.monotonic() - begin < 2


def test_a_template_renders_to_a_bounded_text() -> None:
    with pytest.raises(ValueError, match="more than 1,000,000 characters"):
        render("{{ x }}{{ x }}", {"x": "a" * (MAX_CHARACTERS - 1)})


TOKENS = st.sampled_from(["{{", "}}", *"x.|()'%#-+*[]", "if", "else", "not", "in"])


@settings(deadline=None, derandomize=True, max_examples=75)
@given(
    st.lists(st.text(max_size=6) | TOKENS, max_size=12),
    st.dictionaries(st.sampled_from("xyz"), st.none() | st.booleans() | st.integers() | st.text(max_size=5)),
)
@example(["{{ ", "x", "|map('upper')", " }}", " a"], {"x": 1})
def test_any_text_is_filled_or_refused(parts: list[str], variables: dict[str, Any]) -> None:
    text = " ".join(parts)
    try:
        render(text, variables)
    except ValueError as reason:
        assert str(reason)  # noqa: PT017 - either way is fine, as long as it is one of the two


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_the_quick_way_and_jinja_agree(before: str, cell: str, after: str) -> None:
    if "{{" in before + after or before.endswith("{") or "\r" in before + after:
        return
    quick = render(f"{before}{{{{ x }}}}{after}", {"x": cell})
    slow = render(f"{before}{{{{ x|default('') }}}}{after}", {"x": cell})
    assert quick in (cell, before + cell + after)
    if before + after:
        assert quick == slow


N = "900*900*900"
LONG = "a" * 90_000
SWELLING = [
    f"a {{{{ [1]|batch({N}, 0)|first|length }}}}",
    f"a {{{{ [1]|tojson(indent={N}) }}}}",
    f"a {{{{ [1]|slice({N})|first }}}}",
    "a {{ x.translate({97: 'aaaaaaaaaa'}) }}",
    "a {{ x|replace('a', long) }}",
    "a {{ long.replace('a', x * 1) }}",
    "a {{ long|replace('a', long) }}",
    "a {{ long.replace('', long) }}",
    "a {{ long|list|join(long) }}",
    "a {{ long.split('a')|join(long) }}",
    "a {{ long ~ long }}",
    "a {{ long + long }}",
    "a {{ " + "~".join(["long[1:]"] * 120) + " }}",
    "a {{ [" + ",".join(["long"] * 99) + "]|join|length }}",
    "a {{ [" + ",".join(["long[1:]"] * 99) + "]|length }}",
    "a {{ [" + ",".join(["long"] * 99) + "]|string|length }}",
    "a {{ {1: long, 2: long}|string|length }}",
    "a {{ long|trim(long) }}",
    "a {{ 1.5|round(999999999) }}",
    "a {{ 1.5|round(999999999, 'ceil') }}",
    "a {{ [1.5]|map('round', 999999999, 'ceil')|list }}",
    "a {{ [long, long]|map('upper')|join }}",
    "a {{ long|map('replace', 'a', long)|list|length }}",
    "a {{ ['a']|map('batch', 9)|list|length }}",
    "a {{ long|sort(attribute=long) }}",
    "a {{ ['a']|map('sort', attribute=long)|first }}",
    "a {{ [{'a': 1}]|map(attribute='a.b')|first }}",
    "a {{ [1]|join(' ', 'a.b') }}",
    "a {{ 9 ** 9 ** 9 }}",
    "a {{ 999999999 * 999999999 * 999999999 }}",
    "a {{ 1e300 * 1e300 }}",
    "a {{ big }}{{ big|upper }}",
    "a {{ 1" + "|string" * 500 + " }}",
    "a {{ " + "- " * 900 + "1 }}",
    "a {{ " + "not " * 50_000 + "x }}",
    "a {{ range(999999999) }}",
    "a {{ x['__class__']['__mro__'] }}",
    "a {{ self }} {{ self['_TemplateReference__context'] }}",
    "a {{ x.upper }}",
    "a {{ x|attr('upper') }}",
    "a \0{% for i in [1,2,3] %\0}\0{% for j in [1,2,3] %\0}{{ 1 + 1 }}\0{% endfor %\0}\0{% endfor %\0}",
    "{{" + " " * 60_000,
    "{{" + " " * 60_000 + "x",
    "{{" * 30_000,
    "{{ x }} " * 20_000 + "{{ x|upper }}",
]


@pytest.mark.parametrize("template", SWELLING, ids=lambda text: text[:40])
def test_no_expression_makes_a_large_text_of_a_small_one_or_takes_long(template: str) -> None:
    variables = {"x": "a", "long": LONG, "big": "b" * 200_000}
    tracemalloc.start()
    try:
        begin = time.process_time()
        with contextlib.suppress(ValueError):
            assert len(render(template, variables)) < 3 * MAX_SIZE
        assert time.process_time() - begin < 1.5  # of a process that tracemalloc slows down
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a {{ x|uper }}", "template: there is no filter `uper`; did you mean `upper`?"),
        ("a {{ x|random }}", "template: there is no filter `random`; known are abs, capitalize, "),
        ("a {{ x.titel() }}", "template: a text has no method `titel`; did you mean `title`?"),
        ("a {{ x.upper }}", "template: a method is not text: write `()` behind its name"),
        ("a {{ n() }}", "template: only methods of texts are called: capitalize, "),
        ("a {{ x|replace('a', long) }}{{ long|replace('a', long) }}", "template: `replace` has too much to do"),
        ("a {{ nine ~ nine }}", "template: `join` reads or makes more than 100,000 characters or items"),
        ("a {{ nine + nine }}", "template: `+` reads or makes more than 100,000 characters or items"),
        ("a \0{% for i in n %\0}{{ 1 + 1 }}", "template: the text holds a zero character before `{`"),
        ("a {{ big|upper }}", "template: variable `big` is too large: in a text with filters it has at most 100,000"),
    ],
)
def test_a_refused_expression_is_told_with_the_nearest_word(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        render(template, {"x": "a", "n": 1, "long": "a" * 9_000, "nine": LONG, "big": "b" * 200_000})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a {{ x|replace('b', 'c')|title }}", "a A Cat"),
        ("a {{ words|map('upper')|join(', ') }}", "a A, B"),
        ("a {{ words|sort(reverse=true)|first }} {{ words|length }}", "a b 2"),
        ("a {{ pair.title }} {{ pair['k'] }} {{ pair.k|round(1) }}", "a t 1.25 1.2"),
        ("a {{ x.split(' ')[1] }} {{ x[2:] }} {{ x ~ 1 ~ words[0] }}", "a bat bat a bat1a"),
        ("a {{ missing|default('none') }} {{ missing is defined }}", "a none false"),
        ("a {{ 'a' + 'b' }} {{ 7 // 2 }} {{ 1 - 0.5 }} {{ -n }}", "a ab 3 0.5 -3"),
        ("a {{ x|truncate(3, true, '', 0) }} {{ x|wordcount }} {{ 'B' in x }}", "a a b 2 false"),
    ],
)
def test_the_filters_and_methods_of_the_lists_work(template: str, text: str) -> None:
    variables = {"x": "a bat", "n": 3, "words": ["a", "b"], "pair": {"title": "t", "k": 1.25}}
    assert render(template, variables) == text


def test_the_readme_of_jobs_lists_every_filter_and_method() -> None:
    text = (Path(__file__).parents[2] / "jobs" / "README.md").read_text()
    filters = re.search(r"The filters are ([^.]+)\.", text)
    methods = re.search(r"The methods of a text are ([^.]+)\.", text)
    assert filters is not None and methods is not None  # noqa: PT018 - one sentence each
    assert set(re.findall(r"`(\w+)`", filters[1])) == FILTER_NAMES
    assert set(re.findall(r"`(\w+)`", methods[1])) == METHOD_NAMES


def test_of_thousands_of_variables_the_first_are_named() -> None:
    with pytest.raises(ValueError, match=r"known here: v1000, .*v1049 and 950 more") as caught:
        render("{{ x }}", {f"v{number}": 1 for number in range(1000, 2000)})
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "column", "word"),
    [
        ("a {{ My Prompt }}", "My Prompt", "My_Prompt"),
        ("a {{ My Prompt|upper }}", "My Prompt", "My_Prompt"),
        ("{{ My_Prompt }}", "My Prompt", "My_Prompt"),
        ("a {{ 2nd colour }}", "2nd colour", "column_2nd_colour"),
    ],
)
def test_a_column_that_is_not_one_word_is_to_be_renamed(text: str, column: str, word: str) -> None:
    with pytest.raises(ValueError, match=f"a variable is one word: rename the column `{column}` to `{word}`$"):
        render(text, {"other": "x", column: "y"})


def test_a_column_of_several_words_is_a_variable_if_it_is_the_whole_text() -> None:
    assert render("{{ My Prompt }}", {"My Prompt": "a cat"}) == "a cat"
