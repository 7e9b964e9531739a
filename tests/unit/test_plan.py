"""A job becomes requests, each with its content key; every mistake is found before anything is called."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from pipeline.config.load import Provider, RateLimit
from pipeline.config.yaml_document import parse
from pipeline.errors import BrokenImage, JobError
from pipeline.images.inspect import open_image
from pipeline.models.table import Models
from pipeline.planning import identity, planner
from pipeline.planning.job import parse_job, read_job
from pipeline.planning.planner import make_plan
from pipeline.planning.python_job import make_job

if TYPE_CHECKING:
    from pipeline.planning.plan import ImageRequest, Plan

ROOT = Path(__file__).parents[2]
MODELS = Models.load()
SANDBOX = Provider("sandbox", None, sandbox={})
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))


def planned(text: str, folder: Path | None = None, provider: Provider = SANDBOX, **options: Any) -> Plan:
    return make_plan(parse_job(parse(text, "a.yaml", JobError), folder=folder), provider, MODELS, **options)


def named(text: str) -> str:
    """A job's file with a name, and DALL-E 2 where nothing else is said."""
    return f"name: night\ndefaults: {{model: dall-e-2}}\nrequests:\n{text}"


def requests(text: str, folder: Path | None = None, **options: Any) -> list[ImageRequest]:
    return list(planned(named(text), folder, **options).requests)


def refusal(text: str, folder: Path | None = None, **options: Any) -> list[str]:
    with pytest.raises(JobError) as caught:
        requests(text, folder, **options)
    return str(caught.value).splitlines()


def draw(path: Path, colour: tuple[int, int, int, int] = (200, 40, 40, 255), size: int = 64) -> Path:
    Image.new("RGBA", (size, size), colour).save(path)
    return path


def draw_mask_overlay(path: Path) -> Path:
    """Draw a picture that is white and opaque on the left, and black and transparent on the right."""
    picture = Image.new("RGBA", (64, 64), (255, 255, 255, 255))
    picture.paste((0, 0, 0, 0), (32, 0, 64, 64))
    picture.save(path)
    return path


# --- The example jobs


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_the_jobs_that_come_along_plan_without_warnings(path: Path) -> None:
    made = make_plan(read_job(path), SANDBOX, MODELS)
    assert made.warnings == ()
    assert made.unpriced == ()
    assert 6 <= made.images <= 12


def test_the_quickstart_shows_all_that_there_is() -> None:
    made = make_plan(read_job(ROOT / "jobs" / "quickstart.yaml"), SANDBOX, MODELS)
    assert {request.operation for request in made.requests} == {"generation", "edit", "variation"}
    assert {request.params["model"] for request in made.requests} == {"dall-e-2", "gpt-image-2"}
    assert any(one.role == "mask" for request in made.requests for one in request.inputs)
    assert len(JOBS) >= 3


# --- What is wrong is named, all of it

TEN = """name: bad name
provider: sandbox
colour: red
defaults: {model: gpt-image-2, stream: true}
requests:
  - promt: a cat
  - prompt: a dog
    n: 0
  - prompt: a {{ cat }}
  - prompt: x
    size: 17x17
  - operation: paint
    prompt: x
  - operation: edit
    prompt: x
    image: nowhere.png
  - prompt: "{{ a }}"
    rows: nowhere.csv
  - prompt: one
    id: POOL
  - prompt: two
    id: pool
  - prompt: x
    user: a
    user: b
  - prompt: x
    matrix: {a: b}
"""


def test_ten_mistakes_are_named_at_once_each_with_file_line_and_field(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(TEN)
    command = [sys.executable, "-m", "pipeline", "--output", "out", "plan", "bad.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    found = re.findall(r"^error: bad\.yaml, line (\d+), ([^ :]+): ", done.stderr, re.MULTILINE)
    assert sorted((int(line), field) for line, field in found) == [
        (1, "name"),
        (3, "colour"),
        (4, "defaults.stream"),
        (6, "requests[0].promt"),
        (8, "requests[1].n"),
        (9, "requests[2].prompt"),
        (11, "requests[3].size"),
        (12, "requests[4].operation"),
        (16, "requests[5].image"),
        (18, "requests[6].rows"),
        (22, "requests[8].id"),
        (25, "requests[9].user"),
        (27, "requests[10].matrix.a"),
    ]
    assert done.stderr.splitlines()[len(found) :] == ["error: 13 mistakes in bad.yaml"]
    assert not (tmp_path / "out").exists()


def test_several_mistakes_of_one_request_are_named_at_once(tmp_path: Path) -> None:
    said = refusal("  - {operation: edit, image: no.png, prompt: '', size: 1x1, style: vivid, n: x}\n", tmp_path)
    fields = {line.split("requests[0].")[1].split(":")[0] for line in said}
    assert fields == {"image", "prompt", "size", "style", "n"}


def test_a_wrong_row_is_named_with_its_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,size\na,1x1\nb\nc,512x512\nd,2x2\n")
    said = refusal("  - {prompt: '{{ prompt }}', size: '{{ size }}', rows: p.csv}\n", tmp_path)
    assert [line.split(": ")[0] for line in said] == [
        "a.yaml, line 4, requests[0].size (p.csv, line 2)",
        "p.csv, line 3",
        "a.yaml, line 4, requests[0].size (p.csv, line 5)",
    ]


def test_what_is_said_of_rows_is_a_warning_with_the_file_and_its_first_lines(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("# note\n" * 3 + "a cat\n" + "// note\n" * 20)
    text = '  - {prompt: "{{ prompt }}", rows: p.txt}\n  - {prompt: "big {{ prompt }}", rows: p.txt}'
    (warning,) = planned(named(text), tmp_path).warnings
    assert warning.startswith("p.txt, lines 1-3, 5-24: begins like a comment")


def test_rows_are_found_by_a_path_with_backslashes(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "p.csv").write_text("prompt\na cat\n")
    text = '  - {prompt: "{{ prompt }}", rows: lists\\p.csv}'
    assert [request.prompt for request in requests(text, tmp_path)] == ["a cat"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (" ", "requests[0].rows: is empty: write the name of a file"),
        ("https://h/p.csv", "https://h/p.csv is a URL: download it first, and write the file's name"),
        (
            "lists\\no.csv",
            "cannot be read: No such file or directory; its backslashes are no folders here: write `lists/no.csv`",
        ),
        ("prompt.csv", "cannot be read: No such file or directory; did you mean `prompts.csv`?"),
        ("prompts.tsv", "cannot be read: No such file or directory; did you mean `prompts.csv`?"),
        ("no/prompt.csv", "cannot be read: No such file or directory"),
        ("~/no.csv", "cannot be read: No such file or directory; `~` is not replaced here: write the whole path"),
    ],
)
def test_a_path_of_rows_that_leads_nowhere_says_what_to_write(tmp_path: Path, path: str, words: str) -> None:
    (tmp_path / "prompts.csv").write_text("prompt\na cat\n")
    (said,) = refusal(f"  - {{prompt: \"{{{{ prompt }}}}\", rows: '{path}'}}", tmp_path)
    assert said.startswith("a.yaml, line 4, requests[0].rows: ")
    assert said.endswith(words)


def test_a_row_file_that_fails_hides_no_other_mistake(tmp_path: Path) -> None:
    said = refusal(
        "  - {prompt: '{{ p }}', rows: no.csv, size: 1x1}\n  - {prompt: '{{ q }}', matrix: 5, size: 2x2}", tmp_path
    )
    assert len(said) == 4
    assert "no.csv cannot be read" in "".join(said)
    assert "`1x1`" in "".join(said)
    assert "`2x2`" in "".join(said)


def test_a_mistake_of_many_rows_is_one_line_with_its_rows_and_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a\n\n" + "a\n" * 5_000)
    job = "  - {prompt: '{{ promt }}', size: '{{ prompt }}', rows: p.txt}\n  - {prompt: x, rows: no.txt}\n"
    said = refusal(job, tmp_path)
    rows = "(in 5,001 rows of p.txt: 1, 3-5002)"
    assert [line.partition(": is ")[0].partition(": variable")[0] for line in said] == [
        f"a.yaml, line 4, requests[0].prompt {rows}",
        f"a.yaml, line 4, requests[0].size {rows}",
        "a.yaml, line 5, requests[1].rows: no.txt cannot be read: No such file or directory",
    ]


def test_values_that_are_all_wrong_are_shown_up_to_a_bound_and_the_rest_is_counted(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("".join(f"a{number}\n" for number in range(60)))
    said = refusal("  - {prompt: x, size: '{{ prompt }}', user: 5, style: y, rows: p.txt}\n", tmp_path)
    sizes = [line for line in said if "requests[0].size" in line]
    assert len(sizes) == 11
    assert sizes[9].startswith("a.yaml, line 4, requests[0].size (p.txt, line 10): is `a9`; ")
    assert "(in 50 rows of p.txt: 11-60): has more mistakes of this kind, with other values" in sizes[10]
    assert any("style" in line for line in said), "what is wrong in every row is named beside it"


def test_ragged_rows_and_equal_ids_are_folded_too(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,size\n" + "a\n" * 40)
    (ragged, *_) = refusal("  - {prompt: '{{ prompt }}', rows: p.csv}\n", tmp_path)
    assert ragged == "p.csv, lines 2-41: has 1 cell, but the header has 2"
    (tmp_path / "p.txt").write_text("".join(f"a{number}\n" for number in range(60)))
    (twice,) = refusal("  - {id: same, prompt: '{{ prompt }}', rows: p.txt}\n", tmp_path)
    assert twice.startswith("a.yaml, line 4, requests[0].id (in 59 rows of p.txt: 2-60): `same` is also the id at ")
    assert twice.endswith(": write, for example, `same-{{ prompt }}`")


def test_a_mistake_in_defaults_is_named_where_it_stands() -> None:
    with pytest.raises(JobError, match=r"a\.yaml, line 2, defaults\.size: is `1x1`"):
        planned("name: n\ndefaults: {model: dall-e-2, size: 1x1}\nrequests: [{prompt: a}]")


# --- The key


def keys(text: str, folder: Path | None = None, **options: Any) -> list[str]:
    return [request.key for request in requests(text, folder, **options)]


def test_the_key_is_the_hash_of_canonical_json() -> None:
    (request,) = requests("  - {prompt: café, size: 256x256}\n")
    content = (
        '{"inputs":[],"operation":"generation","params":{"model":"dall-e-2","size":"256x256"},'
        '"prompt":"café","provider":"sandbox"}'
    )
    assert request.key == hashlib.sha256(f"[{content},1,1]".encode()).hexdigest()


@pytest.mark.parametrize(
    "same",
    [
        "  - {size: 256x256, user: me, prompt: a cat}\n",
        "  - {prompt: a cat, size: 256x256, user: me, id: named}\n",
        "  - {prompt: a cat, size: 256x256, user: me, n: 7}\n",
        "  - {prompt: 'a {{ x }}', size: '{{ s }}', user: me, matrix: {x: [cat], s: [256x256]}}\n",
        "  - {prompt: a cat, size: 256x256, extra: {user: me}}\n",
        "  - {prompt: a cat, size: 256x256, user: me, quality: null}\n",
    ],
)
def test_the_key_stays_whatever_is_not_content(same: str) -> None:
    assert keys(same) == keys("  - {prompt: a cat, size: 256x256, user: me}\n")


def test_the_key_stays_when_a_parameter_moves_between_defaults_and_request() -> None:
    one = planned("name: n\ndefaults: {model: dall-e-2, size: 256x256}\nrequests: [{prompt: a}]")
    two = planned("name: m\nrequests: [{size: 256x256, prompt: a, model: dall-e-2}]")
    assert one.requests[0].key == two.requests[0].key


def test_the_key_stays_when_the_providers_address_and_limits_change() -> None:
    first = Provider("lab", "http://a.example/v1")
    other = Provider("lab", "http://b.example/v1", rate_limit=RateLimit(1, 1), concurrency=1, images_per_call=1)
    text = "  - {prompt: a, n: 3}\n"
    assert keys(text, provider=first) == keys(text, provider=other)
    assert keys(text, provider=first) != keys(text)


@pytest.mark.parametrize(
    "other",
    [
        "  - {prompt: 'a cat ', size: 256x256}\n",
        "  - {prompt: a dog, size: 256x256}\n",
        "  - {prompt: a cat, size: 512x512}\n",
        "  - {prompt: a cat}\n",
        "  - {prompt: a cat, size: 256x256, user: me}\n",
        "  - {prompt: a cat, size: 256x256, extra: {seed: 1}}\n",
        "  - {prompt: a cat, size: 256x256, model: null}\n",
        "  - {prompt: ' a cat', size: 256x256}\n",
    ],
)
def test_the_key_changes_with_prompt_and_any_parameter(other: str) -> None:
    assert keys(other) != keys("  - {prompt: a cat, size: 256x256}\n")


def test_the_key_changes_with_a_pictures_content_and_not_with_its_path(tmp_path: Path) -> None:
    text = "  - {operation: variation, image: PATH}\n"
    draw(tmp_path / "a.png")
    (tmp_path / "elsewhere").mkdir()
    draw(tmp_path / "elsewhere" / "b.png")
    first = keys(text.replace("PATH", "a.png"), tmp_path)
    assert keys(text.replace("PATH", "elsewhere/b.png"), tmp_path) == first
    draw(tmp_path / "a.png", (1, 2, 3, 255))
    assert keys(text.replace("PATH", "a.png"), tmp_path) != first


def test_the_key_changes_with_operation_fit_resize_and_mask(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw_mask_overlay(tmp_path / "m.png")
    Image.open(tmp_path / "m.png").convert("RGB").save(tmp_path / "w.png")
    edit = "  - {operation: edit, prompt: x, image: a.png, model: gpt-image-2REST}\n"
    rests = [
        "",
        ", fit: crop",
        ", fit: pad",
        ", resize: 32x32",
        ", mask: m.png",
        ", mask: {image: w.png, edit: white}",
        ", mask: {image: w.png, edit: black}",
        ", mask: {box: [0, 0, 8, 8]}",
        ", mask: {box: [0, 0, 8, 9]}",
    ]
    found = [key for rest in rests for key in keys(edit.replace("REST", rest), tmp_path)]
    found += keys(edit.replace("REST", "").replace("gpt-image-2", "dall-e-2, mask: m.png"), tmp_path)
    assert len(set(found)) == len(rests) + 1


def test_two_equal_requests_are_two_and_their_order_does_not_matter() -> None:
    two = keys("  - {prompt: a}\n  - {prompt: a}\n")
    assert len(set(two)) == 2
    three = keys("  - {prompt: b}\n  - {prompt: a}\n  - {prompt: c}\n  - {prompt: a, n: 2}\n")
    assert [three[1], three[3]] == two


# --- n and ids


def test_more_than_a_call_can_bring_becomes_parts_with_numbered_ids() -> None:
    found = requests("  - {id: pool, prompt: a, n: 25}\n")
    assert [(request.id, request.n) for request in found] == [("pool", 10), ("pool.2", 10), ("pool.3", 5)]
    assert len({request.key for request in found}) == 3


def test_raising_n_keeps_the_parts_that_are_there() -> None:
    few, many = requests("  - {prompt: a, n: 4}\n"), requests("  - {prompt: a, n: 11}\n")
    assert [request.key for request in many][: len(few)] == [request.key for request in few]


def test_an_unknown_model_takes_ten_a_call_and_svg_one() -> None:
    assert [request.n for request in requests("  - {prompt: a, n: 12, model: mine}\n")] == [10, 2]
    svg = "  - {prompt: a, n: 3, model: gpt-image-2.6-flare, output_format: svg}\n"
    assert [request.n for request in requests(svg)] == [1, 1, 1]


def test_an_id_that_we_make_is_the_slug_and_the_first_eight_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    draw(tmp_path / "in" / "Corgi & Cat.v2.png")
    found = requests(
        "  - {prompt: 'A White, Siamése CAT!'}\n"
        f"  - {{prompt: {'very ' * 20}}}\n"
        "  - {prompt: 红色的风筝}\n"
        "  - {prompt: Красный kite}\n"
        "  - {prompt: '…'}\n"
        "  - {operation: variation, image: in/Corgi & Cat.v2.png}\n",
        tmp_path,
    )
    slugs = ["a-white-siamese-cat", "-".join(["very"] * 8), "hongsedefengzheng", "kite", "image", "corgi-cat-v2"]
    for request, slug in zip(found, slugs, strict=True):
        assert request.id == f"{slug}-{request.key[:8]}"


def test_ids_that_we_make_and_that_collide_get_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()
    monkeypatch.setattr(identity, "content_key", lambda *_: f"{'0' * 12}{next(numbers):04x}" + "f" * 48)
    found = requests("  - {prompt: a}\n  - {prompt: a}\n  - {prompt: b}\n  - {prompt: a}\n")
    assert [request.id for request in found] == [
        "a-0000000000000000",
        "a-0000000000000001",
        "b-00000000",
        "a-0000000000000003",
    ]


def test_a_given_id_that_we_would_have_made_for_another_is_no_mistake() -> None:
    (first,) = requests("  - {prompt: a cat}\n")
    for text in (
        "  - {prompt: dog, id: ID}\n  - {prompt: a cat}\n",
        "  - {prompt: a cat}\n  - {prompt: dog, id: ID}\n",
    ):
        ids = {request.id for request in requests(text.replace("ID", first.id.upper()))}
        assert ids == {first.id.upper(), f"a-cat-{first.key[:16]}"}


def test_an_id_stands_once_in_the_job_without_regard_to_case() -> None:
    said = refusal(
        "  - {prompt: a, id: Pool}\n  - {prompt: b, id: pOOL}\n  - {prompt: c, n: 11, id: x}\n  - {prompt: d, id: x.2}"
    )
    rule = "ids are unique, without regard to case"
    assert said == [
        f"a.yaml, line 5, requests[1].id: `pOOL` is also the id at a.yaml, line 4, requests[0].id; {rule}",
        f"a.yaml, line 7, requests[3].id: `x.2` is also the id at a.yaml, line 6, requests[2].id; {rule}",
    ]


@pytest.mark.parametrize("given", ["'.a'", "a/b", "a b", "ä", "'" + "x" * 101 + "'"])
def test_an_id_that_cannot_name_files_is_refused(given: str) -> None:
    (said,) = refusal(f"  - {{prompt: a, id: {given}}}\n")
    assert said.startswith("a.yaml, line 4, requests[0].id: `")
    assert "cannot name files" in said


# --- Rows, matrix and variables


def test_rows_with_a_matrix_are_the_product(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("cat\ndog\n")
    found = requests("  - {prompt: '{{ prompt }} {{ x }}', matrix: {x: [1, 2]}, rows: p.txt}\n", tmp_path)
    assert [request.prompt for request in found] == ["cat 1", "cat 2", "dog 1", "dog 2"]
    assert found[1].variables == {"prompt": "cat", "x": 2}


def test_a_column_and_an_axis_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("cat\n")
    (said,) = refusal("  - {prompt: '{{ prompt }}', matrix: {prompt: [1, 2]}, rows: p.txt}\n", tmp_path)
    assert "requests[0].matrix: `prompt` is also a column of p.txt" in said


def test_a_lone_variable_keeps_its_type_up_to_the_call(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(
        '{"p": "a", "i": 3, "f": 0.5, "b": true, "l": [1], "o": {"x": 1}, "z": null, "n": 2}\n'
    )
    text = "  - {prompt: '{{ p }}', model: mine, n: '{{ n }}', rows: p.jsonl, "
    (found,) = requests(text + ", ".join(f"k{key}: '{{{{ {key} }}}}'" for key in "ifbloz") + "}\n", tmp_path)
    assert found.params == {"model": "mine", "ki": 3, "kf": 0.5, "kb": True, "kl": [1], "ko": {"x": 1}}
    assert type(found.params["kb"]) is bool
    assert found.n == 2


def test_a_text_cell_becomes_what_the_parameter_needs_and_an_empty_one_leaves_it_out(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("p,n,c,f,u,m\na, 3 ,80,webp, 80 , gpt-image-2 \nb,,,,,\n")
    text = (
        "  - {prompt: '{{ p }}', n: '{{ n }}', output_compression: '{{ c }}', output_format: '{{ f }}', "
        "user: '{{ u }}', model: '{{ m }}', rows: p.csv}\n"
    )
    first, second = requests(text, tmp_path)
    assert first.params == {"output_compression": 80, "output_format": "webp", "user": " 80 ", "model": "gpt-image-2"}
    assert (first.n, second.n) == (3, 1)
    assert second.params == {}


def test_an_empty_cell_leaves_out_id_picture_and_prompt_too(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "p.csv").write_text("o,p,i,one,two\nvariation,,,a.png,\ngeneration,a cat,named,,\n")
    text = (
        "  - {operation: '{{ o }}', prompt: '{{ p }}', id: '{{ i }}', image: ['{{ one }}', '{{ two }}'], rows: p.csv}\n"
    )
    first, second = requests(text, tmp_path)
    assert (first.operation, first.prompt, first.id) == ("variation", None, f"a-{first.key[:8]}")
    assert [one.source for one in first.inputs] == ["a.png"]
    assert (second.operation, second.prompt, second.id, second.inputs) == ("generation", "a cat", "named", ())


def test_pictures_and_masks_may_be_named_by_variables(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw_mask_overlay(tmp_path / "m.png")
    (tmp_path / "p.csv").write_text("i,m\na.png,m.png\n")
    text = "  - {operation: edit, prompt: x, id: 'e-{{ i }}', image: '{{ i }}', mask: '{{ m }}', rows: p.csv}\n"
    (found,) = requests(text, tmp_path)
    assert found.id == "e-a.png"
    assert [(one.role, one.source) for one in found.inputs] == [("image", "a.png"), ("mask", "m.png")]


ODD = (
    "  two  spaces\t'single' \"double\" {{ no }} {% if %} {# c #} \U0001f3a8 caf\u00e9 cafe\u0301 \u2028\x85\u00a0end  "
)


@pytest.mark.parametrize("kind", ["yaml", "jsonl", "csv", "txt", "matrix"])
def test_a_prompt_reaches_the_request_byte_for_byte(tmp_path: Path, kind: str) -> None:
    odd = ODD.replace("{{ no }}", "") if kind == "yaml" else ODD
    content = {
        "jsonl": json.dumps({"prompt": odd}, ensure_ascii=False),
        "csv": 'prompt\n"' + odd.replace('"', '""') + '"\n',
        "txt": odd + "\n",
    }
    if kind in content:
        (tmp_path / f"p.{kind}").write_text(content[kind], encoding="utf-8", newline="")
        text = f"  - {{prompt: '{{{{ prompt }}}}', rows: p.{kind}}}\n"
    elif kind == "matrix":
        text = f"  - {{prompt: '{{{{ x }}}}', matrix: {{x: ['{odd.replace(chr(39), chr(39) * 2)}']}}}}\n"
    else:
        text = f"  - prompt: '{odd.replace(chr(39), chr(39) * 2)}'\n"
    (found,) = requests(text, tmp_path)
    assert found.prompt == odd


def test_a_tsv_cell_reaches_the_request_byte_for_byte(tmp_path: Path) -> None:
    cell = ODD.replace("\t", "")
    (tmp_path / "p.tsv").write_text(f"Prompt\tid\n{cell}\tone\n", encoding="utf-8", newline="")
    (found,) = requests("  - {prompt: '{{ Prompt }}', rows: p.tsv}\n", tmp_path)
    assert found.prompt == cell


@pytest.mark.parametrize(("cell", "what"), [("[1]", "a list"), ('{"a": 1}', "a mapping")])
def test_a_list_is_no_prompt(tmp_path: Path, cell: str, what: str) -> None:
    (tmp_path / "p.jsonl").write_text(f'{{"p": {cell}}}\n')
    (said,) = refusal("  - {prompt: '{{ p }}', rows: p.jsonl}\n", tmp_path)
    assert said.startswith(f"a.yaml, line 4, requests[0].prompt (p.jsonl, line 1): a variable is {what}")


def test_a_number_from_json_is_a_prompt_and_an_id(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"p": 7, "i": true}\n')
    (found,) = requests("  - {prompt: '{{ p }}', id: '{{ i }}', rows: p.jsonl}\n", tmp_path)
    assert (found.prompt, found.id) == ("7", "true")


# --- Parameters and models


def test_extra_is_sent_unchecked() -> None:
    (found,) = requests("  - {prompt: a, extra: {seed: 7, sise: x, steps: {a: [1]}}}\n")
    assert found.params == {"model": "dall-e-2", "seed": 7, "sise": "x", "steps": {"a": [1]}}


def test_an_unknown_key_is_an_error_for_a_known_model_and_a_warning_for_an_unknown_one() -> None:
    (said,) = refusal("  - {prompt: a, seed: 7}\n")
    assert "requests[0].seed: is `7`, but dall-e-2 does not take this parameter" in said
    made = planned(
        "name: n\ndefaults: {model: mine}\nrequests: [{prompt: a, seed: 7, quality: odd}, {prompt: b, seed: 8}]"
    )
    assert made.requests[0].params == {"model": "mine", "seed": 7, "quality": "odd"}
    about_model, about_seed = made.warnings
    assert "model `mine` is not in the table" in about_model
    assert about_seed == "`seed` is a parameter of no known model: it is sent unchecked"
    assert made.unpriced == ("mine",)


def test_a_key_that_nearly_is_reserved_is_an_error_for_every_model() -> None:
    assert "did you mean `quality`?" in refusal("  - {prompt: a, model: mine, qualty: low}\n")[0]


def test_without_a_model_none_is_sent_and_it_is_said() -> None:
    made = planned("name: n\nrequests: [{prompt: a}, {prompt: b}]")
    assert made.requests[0].params == {}
    assert made.warnings == (
        "no `model` is given: the server chooses one, and nothing can be checked or priced before",
    )
    assert made.unpriced == ("(none)",)


def test_a_shut_down_model_is_a_warning_where_it_is_really_called() -> None:
    text = "name: n\nrequests: [{prompt: a, model: dall-e-2}]"
    assert planned(text).warnings == ()
    (warning,) = planned(text, provider=Provider("openai", "https://api.openai.com/v1")).warnings
    assert "dall-e-2 was shut down on 2026-05-12" in warning


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("operation: paint, prompt: a", "operation: is `paint`; it must be one of generation, edit, variation"),
        ("operation: generation", "prompt: is missing or empty"),
        ("prompt: ' '", "prompt: is missing or empty"),
        ("operation: edit, prompt: a", "image: is missing; `edit` needs an input image"),
        ("prompt: a, image: a.png", "image: is not for a generation"),
        ("operation: variation, image: a.png, mask: a.png", "mask: is for an edit"),
    ],
)
def test_what_holds_for_every_model_is_checked_for_unknown_ones(tmp_path: Path, fields: str, said: str) -> None:
    draw_mask_overlay(tmp_path / "a.png")
    (found,) = refusal(f"  - {{model: mine, {fields}}}\n", tmp_path)
    assert said in found


def test_a_broken_mask_is_named_as_the_mask(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    said = refusal("  - {operation: edit, prompt: x, image: a.png, mask: no.png}\n", tmp_path)
    assert "requests[0].mask: no.png" in said[0]


@pytest.mark.parametrize("written", [r"pics\photo.png", r".\pics\photo.png", r"pics\..\pics/photo.png"])
@pytest.mark.parametrize("field", ["image: '{}'", "image: [pics/photo.png]\n    mask: '{}'", "mask: {{image: '{}'}}"])
def test_backslashes_in_paths_are_read_as_slashes_if_that_exists(tmp_path: Path, field: str, written: str) -> None:
    (tmp_path / "pics").mkdir()
    draw_mask_overlay(tmp_path / "pics" / "photo.png")
    first = "" if field.startswith("image") else "image: pics/photo.png\n    "
    (request,) = requests(f"  - operation: edit\n    prompt: a\n    {first}{field.format(written)}", tmp_path)
    assert {Path(one.source) for one in request.inputs} <= {Path("pics/photo.png"), Path("pics/../pics/photo.png")}


def test_a_file_whose_name_holds_a_backslash_is_taken_first(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    draw(tmp_path / "pics" / "photo.png")
    draw_mask_overlay(tmp_path / "pics\\photo.png")
    (request,) = requests("  - {operation: edit, prompt: a, image: 'pics\\photo.png'}", tmp_path)
    assert request.inputs[0].source == "pics\\photo.png"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("'pics\\no.png'", "pics\\no.png: does not exist; its backslashes are no folders here: write `pics/no.png`"),
        ("'C:\\pics\\no.png'", "it is a path of Windows: write it as it is on this machine, with slashes"),
        ('"pics\\new.png"', "it holds a tab or a line break: in double quotes YAML reads"),
        ("~/no.png", "`~` is not replaced here: write the whole path"),
        ("'pics/*.png'", "`*` is not expanded here: name each file"),
        ("https://h/no.png", "https://h/no.png is a URL: download it first, and write the file's name"),
        ("file:///home/no.png", "is a URL: write the path alone, without `file://`"),
        ("'data:image/png;base64,iVBORw0K'", "is an image in text: save it as a file, and write its name"),
    ],
)
@pytest.mark.parametrize("field", ["image", "mask"])
def test_a_path_that_leads_nowhere_says_what_to_write(tmp_path: Path, field: str, path: str, words: str) -> None:
    draw(tmp_path / "a.png")
    first = "image: a.png\n    " if field == "mask" else ""
    said = refusal(f"  - operation: edit\n    prompt: a\n    {first}{field}: {path}", tmp_path)
    assert f"requests[0].{field}: " in said[0]
    assert words in "\n".join(said)


def test_what_is_wrong_with_an_input_image_is_passed_on(tmp_path: Path) -> None:
    content = bytes.fromhex("00000018667479706865696300000000") + b"heic" * 30
    (tmp_path / "iphone.heic").write_bytes(content)
    with pytest.raises(BrokenImage) as reason:
        open_image(content)
    (said,) = refusal("  - {operation: edit, prompt: a, image: iphone.heic}", tmp_path)
    assert said == f"a.yaml, line 4, requests[0].image: iphone.heic: {reason.value}"


def test_a_number_of_images_in_quotes_is_shown_without_them() -> None:
    (said,) = refusal('  - {prompt: a, n: "4"}')
    assert said.endswith(
        "requests[0].n: must be a whole number of at least 1, not '4': write it without quotes, `n: 4`"
    )


def test_keys_that_begin_with_x_are_homes_of_anchors_and_nothing_else(tmp_path: Path) -> None:
    text = """
x-base: &base {model: dall-e-2, size: 256x256}
x-list: [&fox a fox, 5]
name: night
defaults: {<<: *base, x-style: &style watercolour}
requests:
  - {prompt: *fox, user: *style, x-note: {any: thing}}
"""
    (request,) = planned(text, tmp_path).requests
    assert (request.prompt, request.params) == (
        "a fox",
        {"model": "dall-e-2", "size": "256x256", "user": "watercolour"},
    )
    assert planned(text, tmp_path).warnings == ()


def test_a_comma_that_cuts_a_prompt_in_braces_is_told() -> None:
    (said,) = refusal("  - {prompt: a red kite, high over the pier}")
    assert said.endswith("`high over the pier` is not a key: text with a colon, or with a comma in { }, needs quotes")


def test_prepared_pictures_are_written_to_the_staging_folder(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (found,) = requests("  - {operation: variation, image: a.png}\n", tmp_path, staging=tmp_path / "staging")
    (one,) = found.inputs
    assert hashlib.sha256((tmp_path / "staging" / one.file).read_bytes()).hexdigest() == one.sha256
    assert (one.role, one.content_type, one.width, one.height) == ("image", "image/png", 64, 64)


# --- Large jobs and limits


def test_a_limit_takes_the_first_requests_only(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    text = "  - {prompt: '{{ prompt }}', rows: p.txt}\n  - {prompt: d, size: 1x1}\n"
    whole = requests(text.replace("1x1", "256x256"), tmp_path)
    assert requests(text, tmp_path, limit=2) == whole[:2]
    assert len(requests("  - {prompt: a, n: 35}\n", limit=2)) == 2


def test_more_than_the_most_requests_need_to_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "MAX_REQUESTS", 5)
    (tmp_path / "p.txt").write_text("a\n" * 6)
    for text in (
        "  - {prompt: '{{ prompt }}', rows: p.txt}\n",
        "  - {prompt: '{{ x }} {{ y }}', matrix: {x: [1, 2, 3], y: [1, 2]}}\n",
        "  - {prompt: a, n: 51}\n",
    ):
        (said,) = refusal(text, tmp_path)
        assert "more than 5" in said
        assert "add --allow-large" in said
        assert len(requests(text, tmp_path, allow_large=True)) == 6
        assert len(requests(text, tmp_path, limit=5)) == 5
    assert len(requests("  - {prompt: a, n: 50}\n")) == 5


AXES = ", ".join(f"{name}: {list(range(200))}" for name in "abcdefgh")


@pytest.mark.parametrize(
    "text",
    ["  - {prompt: a, n: 1000000000000}\n", f"  - {{prompt: '{{{{ a }}}}', matrix: {{{AXES}}}}}\n"],
    ids=["n", "matrix"],
)
def test_a_slip_that_asks_for_billions_is_refused_at_once_and_may_be_looked_at(text: str) -> None:
    begin = time.monotonic()
    (said,) = refusal(text)
    assert "--allow-large" in said
    assert len(requests(text, limit=3)) == 3
    assert time.monotonic() - begin < 3


def test_equal_parameters_are_kept_once_however_many_requests_share_them(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("".join(f"picture {number}\n" for number in range(1000)))
    found = requests("  - {prompt: '{{ prompt }}', rows: p.txt}\n", tmp_path)
    assert len({id(request.params) for request in found}) == 1


def test_requests_that_share_parameters_cost_what_each_costs_alone(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    found = planned(
        "name: night\ndefaults: {model: gpt-image-2, quality: low, size: 1024x1024}\nrequests:\n"
        "  - {prompt: a, n: 13}\n"
        f"  - {{prompt: {'word ' * 50}}}\n"
        "  - {prompt: a, operation: edit, image: a.png}\n"
        "  - {prompt: a, operation: edit, image: [a.png, b.png]}\n"
        "  - {prompt: a, quality: high}\n",
        tmp_path,
    ).requests
    model = MODELS.find("gpt-image-2")
    assert model is not None
    alone = [
        model.estimate(one.served_by, one.prompt, dict(one.params), one.n, [(64, 64)] * len(one.inputs)).usd
        for one in found
    ]
    assert [one.estimate_usd for one in found] == alone
    assert len(set(alone)) == 6


@pytest.mark.parametrize(("model", "served_by"), [("gpt-image-2", "edit"), ("dall-e-2", "variation")])
def test_a_variation_without_an_endpoint_becomes_an_edit_with_a_documented_prompt(
    tmp_path: Path, model: str, served_by: str
) -> None:
    draw(tmp_path / "cat.png")
    (request,) = requests(f"- {{operation: variation, image: cat.png, model: {model}}}", tmp_path)
    assert (request.operation, request.served_by) == ("variation", served_by)
    assert request.prompt == (planner.VARIATION_PROMPT if served_by == "edit" else None)


def test_a_job_may_say_itself_what_a_variation_without_an_endpoint_is_told(tmp_path: Path) -> None:
    draw(tmp_path / "cat.png")
    text = "- {operation: variation, image: cat.png, model: gpt-image-2, prompt: bluer}"
    assert requests(text, tmp_path)[0].prompt == "bluer"
    assert "takes none" in refusal(text.replace("gpt-image-2", "dall-e-2"), tmp_path)[0]


@pytest.mark.parametrize("options", [{}, {"allow_large": True}, {"limit": 1}])
def test_no_permission_allows_a_request_for_endless_images(options: dict[str, Any], tmp_path: Path) -> None:
    stated = f"  - {{prompt: a, n: {10**30}}}"
    for text in (stated, f"  - {{prompt: '{{{{ x }}}}', n: '{{{{ x }}}}', matrix: {{x: [{10**30}]}}}}"):
        (said,) = refusal(f"{text}\n", tmp_path, **options)
        assert said.endswith(".n: must be at most 1,000,000,000,000")


def test_of_thousands_of_warnings_the_first_are_told() -> None:
    text = "".join(f"  - {{prompt: a, model: mine, odd-{number}: 1}}\n" for number in range(300))
    warnings = planned(named(text)).warnings
    assert len(warnings) == 101
    assert warnings[-1] == "and 201 more warnings"


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), 10**400, -1, True])
def test_a_job_made_in_python_has_a_budget_that_is_a_wall(amount: float) -> None:
    (problem,) = make_job("night", [{"prompt": "a"}], budget_usd=amount).problems
    assert "budget_usd" in problem.location
    assert "must be" in problem.message or "should be" in problem.message


def test_a_default_that_does_not_suit_some_requests_names_them_and_the_null_that_helps() -> None:
    text = "name: night\ndefaults: {quality: low, model: gpt-image-2}\nrequests:\n"

    def refused(entries: str) -> list[str]:
        with pytest.raises(JobError) as caught:
            planned(text + entries)
        return [line for line in str(caught.value).splitlines() if "defaults.quality" in line]

    suits, other = "  - prompt: a\n", "  - {prompt: a, model: dall-e-3}\n"
    variation = "  - {operation: variation, model: dall-e-2, image: x.png}\n"
    only = "a.yaml, line 2, defaults.quality: is `low`; dall-e-2 takes it with generation or edit only: "
    assert refused(suits + variation) == [f"{only}write `quality: null` in requests[1], line 5"]
    assert refused(suits + variation * 5) == [
        f"{only}write `quality: null` in requests[1], line 5; requests[2], line 6; requests[3], line 7 and 2 more"
    ]
    assert refused(variation * 2) == [f"{only}leave it out"], "it suits no request"
    own = "  - {prompt: b, quality: high}\n"
    assert refused(own + variation) == [f"{only}leave it out"], "no other request has it from there"
    of_other = "a.yaml, line 2, defaults.quality: is `low`; dall-e-3 takes standard or hd"
    assert refused(suits + other) == [f"{of_other} (in requests[1], line 5)"]


@pytest.mark.parametrize(("character", "code"), [("\0", "0000"), ("\x1b", "001B"), ("\x7f", "007F"), ("\x9b", "009B")])
def test_a_control_character_in_a_prompt_is_named_with_its_row(tmp_path: Path, character: str, code: str) -> None:
    (tmp_path / "p.csv").write_text(f'prompt\na\tcat\n"two\nlines"\na {character} cat\n', encoding="utf-8")
    (said,) = refusal('  - {prompt: "{{ prompt }}", rows: p.csv}\n', tmp_path)
    where = "a.yaml, line 4, requests[0].prompt (p.csv, line 5):" if character != "\0" else "p.csv, line 5: `prompt`"
    assert said == f"{where} holds a control character, U+{code}: delete it"


def test_a_table_without_a_header_is_told_that_its_first_line_is_one(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a cat\na dog\n")
    (said,) = refusal('  - {prompt: "{{ prompt }}", rows: p.csv}\n', tmp_path)
    assert "known here: a cat" in said
    assert said.endswith("; the first line of p.csv is its header")
