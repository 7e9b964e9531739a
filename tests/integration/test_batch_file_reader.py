"""An input file of OpenAI's Batch API is a job: each line is a request, known by its custom_id."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openai import OpenAI

from pipeline.client.request import Call, build_body
from pipeline.config.dialect import Dialect, Uploads
from pipeline.config.provider import Provider
from pipeline.errors import JobError
from pipeline.models.table import Models
from pipeline.planning.batch_file_reader import read_batch_file
from pipeline.planning.planner import make_plan
from tests.support.stage import staged
from tests.support.workbench import picture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.stage import Stage

MODELS = Models.load()
SANDBOX = Provider("sandbox", None, sandbox={})
BODY = {"model": "gpt-image-2", "size": "1024x1024", "quality": "low"}
PNG = picture(64)
DATA_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path, within=True) as stage:
        yield stage


def line(custom_id: str, url: str = "/v1/images/generations", **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {**BODY, "prompt": "a cat", **body}}


def edit(custom_id: str, *images: dict[str, str], **body: Any) -> dict[str, Any]:
    return line(custom_id, "/v1/images/edits", images=list(images), **body)


def write(folder: Path, *lines: Any, name: str = "batch.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in lines))
    return path


def refusal(path: Path, provider: Provider = SANDBOX) -> list[str]:
    with pytest.raises(JobError) as caught:
        make_plan(read_batch_file(path), provider, MODELS)
    return str(caught.value).splitlines()


def test_both_endpoints_are_made_and_the_manifest_has_each_custom_id(stage: Stage) -> None:
    server = stage.serve()
    stage.provider("lab", server)
    write(stage.folder, line("run7/item 12", n=2), edit("run7/item-13", {"image_url": DATA_URL}, prompt="blue"), "\n")
    shown = json.loads(stage.run("plan", "batch.jsonl", "--json").stdout)
    assert (shown["job"], shown["requests"], shown["images"], shown["warnings"]) == ("batch", 2, 3, [])
    stage.run("run", "batch.jsonl")
    one, two = stage.manifest("batch")
    assert [one["id"], one["custom_id"], one["operation"]] == ["run7-item-12", "run7/item 12", "generation"]
    assert [two["id"], two["custom_id"], two["operation"]] == ["run7-item-13", "run7/item-13", "edit"]
    assert [len(one["images"]), len(two["images"]), len(two["inputs"])] == [2, 1, 1]
    assert one["params"] == {**BODY, "n": 2}
    for command in ("status", "report", "manifest", "cancel"):
        assert stage.run(command, "batch.jsonl").exit_code == 0
    charged = server.charged()
    write(stage.folder, edit("other", {"image_url": DATA_URL}, prompt="blue"), line("run7/item 12", n=2))
    stage.run("run", "batch.jsonl")
    assert server.charged() == charged, "the same content under another custom_id is known"
    assert [entry["custom_id"] for entry in stage.manifest("batch")] == ["other", "run7/item 12"]


def test_a_batch_file_goes_by_batch_too(stage: Stage) -> None:
    server = stage.serve(batch={"seconds": [0, 0.1]})
    stage.provider("lab", server, batch={"poll_seconds": [0.2, 0.4]})
    write(stage.folder, line("a"), line("b", prompt="a dog"))
    stage.run("run", "batch.jsonl", "--mode", "batch")
    assert [(one["custom_id"], one["mode"], one["status"]) for one in stage.manifest("batch")] == [
        ("a", "batch", "succeeded"),
        ("b", "batch", "succeeded"),
    ]


def test_an_uploaded_file_is_sent_by_its_id_in_both_modes(stage: Stage) -> None:
    server = stage.serve(batch={"seconds": [0, 0.1]})
    stage.provider("lab", server, batch={"poll_seconds": [0.2, 0.4]})
    client = OpenAI(base_url=server.base_url, api_key="sk-a", max_retries=0)
    uploaded = client.files.create(file=("a.png", PNG, "image/png"), purpose="vision").id
    client.close()
    write(stage.folder, edit("now", {"file_id": uploaded}), name="now.jsonl")
    write(stage.folder, edit("later", {"file_id": uploaded}, {"image_url": DATA_URL}), name="later.jsonl")
    stage.run("run", "now.jsonl")
    stage.run("run", "later.jsonl", "--mode", "batch")
    (now,), (later,) = stage.manifest("now"), stage.manifest("later")
    assert (now["status"], later["status"], later["mode"]) == ("succeeded", "succeeded", "batch")
    assert now["params"]["images"] == [{"file_id": uploaded}]
    assert now["inputs"] == later["inputs"] == []
    assert stage.run("verify").exit_code == 0


def test_the_text_of_a_line_is_never_a_template(tmp_path: Path) -> None:
    path = write(tmp_path, line("a", prompt="a {{ cat }} {red|blue}", user="{{ me }}"))
    (request,) = make_plan(read_batch_file(path), SANDBOX, MODELS).requests
    assert (request.prompt, request.params["user"]) == ("a {{ cat }} {red|blue}", "{{ me }}")


def test_the_id_is_the_custom_id_with_other_characters_as_hyphens_and_unique(tmp_path: Path) -> None:
    given = ["a/b", "a b", "A.B", ".hidden", "é雨", "x" * 99, "x" * 98 + "y"]
    requests = make_plan(read_batch_file(write(tmp_path, *map(line, given))), SANDBOX, MODELS).requests
    assert [one.custom_id for one in requests] == given
    ids = [one.id for one in requests]
    assert ids[0] == "a-b"
    assert ids[1].startswith("a-b-")
    assert ids[2:6] == ["A.B", "-hidden", "--", "x" * 90]
    assert ids[6].startswith("x" * 90 + "-")
    assert len({one.lower() for one in ids}) == 7


def test_images_and_masks_in_the_line_are_the_same_as_files(tmp_path: Path) -> None:
    path = write(tmp_path, edit("a", {"image_url": DATA_URL}))
    (request,) = make_plan(read_batch_file(path), SANDBOX, MODELS).requests
    assert [(one.role, one.source) for one in request.inputs] == [("image", "images[0]")]
    assert "images" not in request.params
    (message,) = refusal(write(tmp_path, edit("a", {"image_url": DATA_URL}, mask={"image_url": "data:,x"})))
    assert message.endswith(
        "batch.jsonl, line 1, body.mask.image_url: is a data URL without base64: write `data:image/png;base64,…`"
    )


URL = {"image_url": "https://example.org/a.png"}
PLAIN = Provider("lab", "http://127.0.0.1:9/v1")
JSON_URLS = Provider(
    "xai", "http://127.0.0.1:9/v1", dialect=Dialect(uploads=Uploads("json", "image", "images", reference="url"))
)
JSON_DATA = Provider("own", "http://127.0.0.1:9/v1", dialect=Dialect(uploads=Uploads("json", reference="data_url")))


@pytest.mark.parametrize(
    ("provider", "reference", "is_taken"),
    [
        (SANDBOX, URL, True),
        (PLAIN, URL, False),
        (PLAIN, {"file_id": "file-a"}, False),
        (JSON_URLS, URL, True),
        (JSON_URLS, {"file_id": "file-a"}, False),
        (JSON_DATA, URL, False),
    ],
)
def test_references_are_for_providers_that_take_them(
    tmp_path: Path, provider: Provider, reference: dict[str, str], is_taken: bool
) -> None:
    path = write(tmp_path, edit("a", reference))
    if is_taken:
        (request,) = make_plan(read_batch_file(path), provider, MODELS).requests
        assert request.params["images"] == [reference]
        priced = make_plan(read_batch_file(write(tmp_path, line("a"))), provider, MODELS).requests[0]
        assert (request.estimate_usd or 0) > (priced.estimate_usd or 0), "the input image costs too"
        return
    (message,) = refusal(path, provider)
    kind = next(iter(reference))
    assert message.endswith(
        f"line 1, body.images: provider `{provider.name}` takes no `{kind}`: put the image into the line, as a data URL"
    )


async def test_references_are_sent_as_json_in_the_words_of_the_server() -> None:
    params = {"model": "m", "images": [URL], "mask": URL}
    assert await build_body(Call("edit", params), Dialect()) == {"json": params}
    address = {"url": URL["image_url"]}
    assert await build_body(Call("edit", params), JSON_URLS.dialect) == {
        "json": {"model": "m", "image": address, "mask": address}
    }
    several = {"model": "m", "images": [URL, URL]}
    assert await build_body(Call("edit", several), JSON_URLS.dialect) == {
        "json": {"model": "m", "images": [address, address]}
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ('{"custom_id": "a"\n', "line 1: is not JSON: "),
        ('{"prompt": "a cat"}\n', "line 1: is no request; a line of a Batch input file is "),
        ("[]\n", "line 1: must be one object"),
        ({**line("a"), "custom_id": None}, "line 1, custom_id: is missing; write a text that no other line has"),
        ({**line("a"), "custom_id": 7}, "line 1, custom_id: is missing"),
        ({**line("a"), "method": "GET"}, 'line 1, method: must be "POST"'),
        (
            {**line("a"), "url": "/v1/chat/completions"},
            "line 1, url: is '/v1/chat/completions'; lines that make",
        ),
        ({**line("a"), "body": []}, "line 1, body: must be an object"),
        ({**line("a"), "metod": "POST"}, "line 1, metod: unknown key `metod`; did you mean `method`?"),
        (line("a", size="1x1"), "line 1, body.size: "),
        (line("a", prompt=None), "line 1, body.prompt: is missing"),
        (line("a", prompt=["a"]), "line 1, body.prompt: must be text, not ['a']"),
        (line("a", n="2"), "line 1, body.n: must be a whole number of at least 1, not '2'"),
        (line("a", stream=True), "line 1, body.stream: `stream` is not for batches"),
        (line("a", matrix={"a": [1]}), "line 1, body.matrix: is no parameter of the Images API"),
        (line("a", image="x.png"), "line 1, body.image: is `images` in JSON, a list"),
        (line("a", images=[{"file_id": "f"}]), "line 1, body.images: "),
        (edit("a"), "line 1, body.images: must be a list"),
        (line("a", "/v1/images/edits"), "line 1, body.images: is missing"),
        (
            edit("a", {"image_url": "a.png"}),
            "line 1, body.images[0].image_url: is `a.png`; it must be a data URL or",
        ),
        (edit("a", {"image_url": "data:image/png;base64,?"}), "line 1, body.images[0].image_url: is not valid base64"),
        (
            edit("a", {"image_url": "x", "file_id": "y"}),
            'body.images[0]: must be {"image_url": "…"} or {',
        ),
        (edit("a", {"image_url": "data:image/png;base64,QUJD"}), "line 1, body.images: images[0]: is not an image"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_field(tmp_path: Path, given: Any, words: str) -> None:
    found = refusal(write(tmp_path, given))
    assert words in found[0], found


def test_all_mistakes_are_named_at_once_and_nothing_is_queued(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    write(stage.folder, line("a"), line("b", size="1x1"), line("a"), {**line("c"), "url": "/v1/x"})
    ended = stage.run("submit", "batch.jsonl", exit_code=2)
    for words in ("line 2, body.size", "line 3, custom_id: `a` is also that of line 1", "line 4, url: is '/v1/x'"):
        assert words in ended.stderr
    assert stage.ask("SELECT * FROM request") == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", "", "a.jsonl: has no lines; a line of a Batch input file is "),
        ("a b.jsonl", json.dumps(line("a")), "`a b` cannot be a job's name: letters, digits"),
        ("a.jsonl", b"\xff\xfe", "a.jsonl, line 1: is not UTF-8"),
        ("a.jsonl", None, "a.jsonl: cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_batch_file_is_refused(
    stage: Stage, name: str, content: str | bytes | None, words: str
) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    if content is not None:
        (stage.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert words in stage.run("plan", name, exit_code=2).stderr


def test_without_a_default_provider_the_config_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(), line("a"))
    with staged(tmp_path, within=True) as stage:
        said = stage.run("plan", "batch.jsonl", exit_code=2).stderr
    assert "batch.jsonl: names no provider, and there is no default: add a line `provider: NAME` to the config" in said
