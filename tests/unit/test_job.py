"""A job file becomes a Job; every mistake of form is named with file, line and field, and the rest is read on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config.load import Provider
from pipeline.config.yaml_document import parse
from pipeline.errors import BadInput, JobError
from pipeline.models.table import Models, known_parameters
from pipeline.planning.job import Job, parse_job, read_job
from pipeline.planning.planner import make_plan
from tests.unit.test_yaml_document import NESTED

FILE = Path("jobs/night.yaml")
FOR_EACH = "for a request of each, write `prompt: '{{ prompt }}'` and put the list under `matrix:`"
NOT_FOR_BATCHES = "is not for batches: a batch waits for the finished image; leave it out"
OF_THE_JOB = "is a key of the whole job, not of a request; a parameter of that name goes into `extra:`"


def job(text: str) -> Job:
    return parse_job(parse(text, "night.yaml", JobError), file=FILE)


def problems(text: str) -> list[str]:
    return [str(problem) for problem in job(text).problems]


def test_a_job_is_read() -> None:
    read = job("name: lounge\nprovider: lab\nbudget_usd: 3\nrequests:\n  - {prompt: a cat, n: 4, size: 1x1}\n")
    assert (read.name, read.provider, read.budget_usd) == ("lounge", "lab", 3)
    assert read.folder == FILE.parent.absolute()
    assert read.entries[0].fields == {"prompt": "a cat", "n": 4, "size": "1x1"}
    assert not read.problems


def test_the_name_is_the_files_stem_where_none_is_given() -> None:
    assert job("requests: [{prompt: a}]").name == "night"


@pytest.mark.parametrize("name", ["007", "2026", "1.10", "true", "a.b-C_9"])
def test_a_name_counts_as_it_is_written(name: str) -> None:
    read = job(f"name: {name}\nrequests: [{{prompt: a}}]")
    assert (read.name, read.problems) == (name, ())


RESERVED_NAMES = (
    *("ledger", "Ledger.old", "ledger.sqlite3-wal", "ledger.backup.sqlite3", "run.lock", "RUN.LOG", "run.log.1"),
    *("submit.lock", "Submit.Lock", "-rf", "--help", "con", "NUL.txt", "com1", "lpt9.x"),
)


@pytest.mark.parametrize("name", ["submit", "run", "console", "a-", "com", "com10"])
def test_a_name_that_only_looks_like_one_of_ours_is_free(name: str) -> None:
    assert problems(f"name: {name}\nrequests: [{{prompt: a}}]") == []


@pytest.mark.parametrize("name", [".hidden", "a/b", "a b", "ä", "''", "x" * 101, *RESERVED_NAMES])
def test_a_name_that_cannot_be_a_folder_of_its_own_is_refused(name: str) -> None:
    (said,) = problems(f"name: {name}\nrequests: [{{prompt: a}}]")
    assert said.startswith("night.yaml, line 1, name: `")
    assert "cannot be a job's name" in said


def test_defaults_lie_under_every_request_and_null_takes_one_away() -> None:
    read = job(
        """
defaults: {model: m, size: s, extra: {a: 1, b: 1}}
requests:
  - {prompt: one}
  - {prompt: two, size: t, model: null, extra: {b: 2}}
"""
    )
    one, two = (entry.fields for entry in read.entries)
    assert one == {"prompt": "one", "model": "m", "size": "s", "extra": {"a": 1, "b": 1}}
    assert two == {"prompt": "two", "size": "t", "extra": {"a": 1, "b": 2}}


@pytest.mark.parametrize("written", ["1.10", "true", "+5", "1e3", "007", "12:30", "yes", "0x1F"])
def test_a_prompt_or_id_that_yaml_takes_for_a_number_counts_as_it_is_written(written: str) -> None:
    read = job(f"defaults: {{prompt: {written}}}\nrequests:\n  - prompt: {written}\n    id: {written}\n  - size: x\n")
    assert [entry.fields["prompt"] for entry in read.entries] == [written, written]
    assert read.entries[0].fields["id"] == written
    assert not read.problems


def test_a_place_is_where_the_field_stands_be_it_a_default() -> None:
    read = job("defaults:\n  size: x\nrequests:\n  - prompt: a\n    mask:\n      edit: white\n")
    (entry,) = read.entries
    assert read.location(entry, "size") == "night.yaml, line 2, defaults.size"
    assert read.location(entry, "prompt") == "night.yaml, line 4, requests[0].prompt"
    assert read.location(entry, "mask.edit") == "night.yaml, line 6, requests[0].mask.edit"
    assert read.location(entry, "image") == "night.yaml, line 4, requests[0].image"
    assert read.location(entry) == "night.yaml, line 4, requests[0]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("requests: []", "line 1, requests: must not be empty"),
        ("name: a", "line 1, requests: is missing; a job needs `requests:` with at least one request"),
        (
            "requests: {a: 1}",
            "line 1, requests: must be a list, not {'a': 1}: begin each request with `- `, as in `- prompt: a cat`",
        ),
        ("requests:\n  - a cat", "line 2, requests[0]: must be a mapping, not 'a cat': write `prompt: a cat`"),
        (
            "requests:\n  - prompt:a cat",
            "line 2, requests[0]: must be a mapping, not 'prompt:a cat': write a space behind the colon",
        ),
        ("requests: [{resize: 5, id: a}]", "line 1, requests[0].resize: must be text, not 5; write it like 512x512"),
        ("reqests: []\nrequests: [{prompt: a}]", "line 1, reqests: unknown key `reqests`; did you mean `requests`?"),
        (
            "size: 1x1\nrequests: [{prompt: a}]",
            "line 1, size: `size` is a key of requests; put it under `defaults:` or into a request",
        ),
        ("budget_usd: -1\nrequests: [{prompt: a}]", "line 1, budget_usd: must be at least 0.0, not -1"),
        ("provider: 5\nrequests: [{prompt: a}]", "line 1, provider: must be text, not 5; put it in quotes"),
        ("defaults: 5\nrequests: [{prompt: a}]", "line 1, defaults: must be a mapping, not 5"),
        (
            "defaults: {id: a}\nrequests: [{prompt: a}]",
            "line 1, defaults.id: `id` is a key of a single request, not of `defaults`",
        ),
        ("requests: [{prompt: a, n: 0}]", "line 1, requests[0].n: must be at least 1, not 0"),
        ("requests: [{prompt: a, n: 1.5}]", "line 1, requests[0].n: must be a whole number, not 1.5"),
        ("requests: [{prompt: a, n: true}]", "line 1, requests[0].n: must be a whole number, not true"),
        (
            "requests: [{prompt: [a]}]",
            f"line 1, requests[0].prompt: must be text, not ['a']: {FOR_EACH}",
        ),
        ("requests: [{prompt: a, model: 5}]", "line 1, requests[0].model: must be text, not 5; put it in quotes"),
        ("requests: [{prompt: a, matrix: {}}]", "line 1, requests[0].matrix: must not be empty"),
        ("requests: [{prompt: a, matrix: {x: []}}]", "line 1, requests[0].matrix.x: must not be empty"),
        ("requests: [{prompt: a, matrix: {x: cat}}]", "line 1, requests[0].matrix.x: must be a list, not 'cat'"),
        ("requests: [{prompt: a, rows: ''}]", "line 1, requests[0].rows: must not be empty"),
        ("requests: [{prompt: a, extra: 5}]", "line 1, requests[0].extra: must be a mapping, not 5"),
        (
            "requests: [{promt: a}]",
            "line 1, requests[0].promt: unknown key `promt`; did you mean `prompt`? (if not, put it in `extra:`)",
        ),
        (
            "requests: [{prompt: a, stream: false}]",
            f"line 1, requests[0].stream: `stream` {NOT_FOR_BATCHES}",
        ),
        (
            "defaults: {partial_images: 2}\nrequests: [{prompt: a}]",
            f"line 1, defaults.partial_images: `partial_images` {NOT_FOR_BATCHES}",
        ),
        (
            "requests: [{prompt: a, extra: {n: 5}}]",
            "line 1, requests[0].extra.n: `n` is a key of the request itself; take it out of `extra`",
        ),
        (
            "requests: [{prompt: a, provider: x}]",
            f"line 1, requests[0].provider: `provider` {OF_THE_JOB}",
        ),
        ("requests: [{prompt: a, prompt: b}]", "line 1, requests[0].prompt: `prompt` is given twice; keep one"),
    ],
)
def test_a_mistake_of_form_is_named_with_file_line_and_field(text: str, said: str) -> None:
    assert problems(text) == [f"night.yaml, {said}"]


@pytest.mark.parametrize("text", ["", "[]", "5", "a cat"])
def test_what_is_no_mapping_is_no_job(text: str) -> None:
    with pytest.raises(JobError, match=r"night\.yaml, line 1: a job is a mapping with `requests:`"):
        job(text)


def test_a_field_of_wrong_form_is_left_out_and_remembered() -> None:
    read = job(
        "defaults: {size: 1x1, user: [1], fit: 5}\nrequests:\n  - {prompt: [a], n: 2}\n  - {prompt: b, fit: pad}\n"
    )
    assert read.entries[0].fields == {"n": 2, "size": "1x1", "user": [1]}
    assert read.entries[0].invalid == {"prompt", "fit"}
    assert read.entries[1].fields["fit"] == "pad"
    assert not read.entries[1].invalid
    assert len(read.problems) == 2


def test_many_mistakes_of_one_kind_hide_none_of_another() -> None:
    text = "requests:\n" + "".join("  - {promt: a, n: 0}\n" for _ in range(2000)) + "x: 1\ny: 2\n"
    said = problems(text)
    assert sum("did you mean `prompt`" in one for one in said) == 1000
    assert "night.yaml, line 1: has more than 1,000 keys that are unknown or in the wrong place" in said
    assert sum("must be at least 1" in one for one in said) == 2000
    assert sum("unknown key `x`" in one or "unknown key `y`" in one for one in said) == 2


def test_a_file_that_cannot_be_read_is_a_job_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no.yaml"):
        with pytest.raises(JobError, match="cannot be read"):
            read_job(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.csv", b"prompt\na cat\n", "is a table: write a job with `rows: p.csv`"),
        ("p.tsv", b"prompt\tn\na: cat\t1\n", "is a table: write a job with `rows: p.tsv`"),
        ("p.txt", b"a cat\na dog\n", "is a table: write a job with `rows: p.txt`"),
        ("p.png", b"\x89PNG\r\n\x1a\n\0\0", "is an image, not a job file"),
        ("p", b"\xff\xd8\xff\xe0", "is an image, not a job file"),
        ("p.yaml", b"\xff\xfe", ", line 1: is not UTF-8"),
        ("job.txt", b"requests: [\n", ", line 1: is not YAML"),
    ],
)
def test_a_file_that_is_no_job_is_called_what_it_is(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JobError) as caught:
        read_job(tmp_path / name)
    assert said in str(caught.value)


_WORDS = ("name", "provider", "defaults", "budget_usd", "requests", "id", "matrix", "rows", "operation", "prompt")
_MORE = ("image", "mask", "n", "fit", "resize", "extra", "model", "size", "quality", "user", "box", "edit", "svg", "x")
KEYS = st.sampled_from([*_WORDS, *_MORE])
WORDS = st.sampled_from(["{{ x }}", "a {{ x }}", "dall-e-2", "gpt-image-2", "edit", "variation", "p.csv", "crop", ""])
MODELS = Models.load()
VALUE = st.recursive(
    NESTED | WORDS, lambda inner: st.dictionaries(KEYS, inner, max_size=6) | st.lists(inner, max_size=3), max_leaves=15
)
JOB = st.fixed_dictionaries(
    {"requests": st.lists(st.dictionaries(KEYS, VALUE, max_size=7), min_size=1, max_size=3)},
    optional={"name": VALUE, "defaults": st.dictionaries(KEYS, VALUE, max_size=4), "budget_usd": VALUE},
)


def _planned_or_refused(folder: Path, text: str) -> None:
    path = folder / "fuzz.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(BadInput):
        read = read_job(path)
        plan = make_plan(read, Provider("sandbox", None, sandbox={}), MODELS, limit=50)
        assert not read.problems
        assert plan.requests


REQUEST: dict[str, Any] = {"prompt": "a", "matrix": {"x": [[1], {"a": 1}, 1.5, "", None, True]}}


@settings(deadline=None, derandomize=True, max_examples=75)
@given(JOB | VALUE)
@example({"requests": [{**REQUEST, "operation": "{{ x }}"}]})
@example({"requests": [{**REQUEST, "operation": "{{ x }}", "model": "dall-e-2"}]})
@example({"requests": [{**REQUEST, "model": "{{ x }}", "id": "{{ x }}", "n": "{{ x }}", "image": "{{ x }}"}]})
@example({"requests": [{"prompt": "a", "n": 10**300}], "budget_usd": 10**400})
@example({"requests": [{"prompt": "a", "image": ["\0", "/", ""], "operation": "edit"}]})
@example({"requests": [{"prompt": "a", "rows": "\0.csv"}]})
def test_any_values_as_a_job_are_planned_or_refused(tmp_path_factory: pytest.TempPathFactory, values: object) -> None:
    _planned_or_refused(tmp_path_factory.getbasetemp(), yaml.safe_dump(values, allow_unicode=True, sort_keys=False))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.text(max_size=200))
def test_any_text_as_a_job_is_planned_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    _planned_or_refused(tmp_path_factory.getbasetemp(), text)


def test_no_parameter_of_a_known_model_is_taken_for_a_slip_of_the_pen() -> None:
    fields = ", ".join(f"{name}: x" for name in sorted(known_parameters() - {"stream", "partial_images", "n"}))
    job = parse_job(parse(f"name: a\nrequests: [{{prompt: x, {fields}}}]", "a.yaml", JobError))
    assert job.problems == ()


# --- How the job is served


@pytest.mark.parametrize("written", ['"07:00"', "07:00", "7:00", "2026-11-29T07:00:00+01:00", "'2026-11-29 07:00Z'"])
def test_a_deadline_counts_as_it_is_written_with_quotes_or_without(written: str) -> None:
    read = job(f"mode: auto\ndeadline: {written}\nrequests: [{{prompt: a}}]")
    assert (read.mode, read.deadline, read.problems) == ("auto", written.strip("'\""), ())


def test_without_a_mode_none_is_chosen_for_the_options_to_replace() -> None:
    read = job("requests: [{prompt: a}]")
    assert (read.mode, read.deadline) == (None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mode: fast", ["night.yaml, line 1, mode: must be one of realtime, batch, auto, not `fast`"]),
        ("mode: [batch]", ["night.yaml, line 1, mode: must be one of realtime, batch, auto, not `['batch']`"]),
        ("mode: true", ["night.yaml, line 1, mode: must be one of realtime, batch, auto, not `true`"]),
        (
            'mode: batch\ndeadline: "07:00"',
            ["night.yaml, line 2, deadline: is for mode auto only: write `mode: auto`, or leave it out"],
        ),
        (
            'deadline: "07:00"',
            ["night.yaml, line 1, deadline: is for mode auto only: write `mode: auto`, or leave it out"],
        ),
        ("mode: fast\ndeadline: 07:00", ["night.yaml, line 1, mode: must be one of realtime, batch, auto, not `fast`"]),
    ],
)
def test_a_mode_or_deadline_that_is_wrong_is_named_with_its_line(text: str, expected: list[str]) -> None:
    assert problems(f"{text}\nrequests: [{{prompt: a}}]") == expected


@pytest.mark.parametrize("written", ["soon", "420", "7", "0700", "7.5", "true", "[7]", "{a: b}", "2026-11-29", "12:61"])
def test_a_deadline_in_another_form_is_refused_with_what_to_write(written: str) -> None:
    (said,) = problems(f"mode: auto\ndeadline: {written}\nrequests: [{{prompt: a}}]")
    assert said.startswith("night.yaml, line 2, deadline: `")
    assert 'write a time of day as "07:00"' in said


def test_a_deadline_without_an_offset_is_refused_for_that() -> None:
    (said,) = problems("mode: auto\ndeadline: 2026-11-29T07:00\nrequests: [{prompt: a}]")
    assert "has no offset from UTC" in said


def test_mode_is_a_key_of_the_job_and_not_of_a_request() -> None:
    assert problems("requests:\n  - {prompt: a, mode: batch}") == [
        f"night.yaml, line 2, requests[0].mode: `mode` {OF_THE_JOB}"
    ]
