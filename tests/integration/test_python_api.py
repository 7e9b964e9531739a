"""The same from Python: the guide's in-memory and Pillow examples, results as objects, errors as the guide's."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import pipeline
from pipeline import BadInput, Batch, GiveUp, RequestError, errors, make_job

if TYPE_CHECKING:
    from pipeline import Outcome
    from tests.support.stage import Server, Stage

SMALL = {"model": "dall-e-2", "size": "256x256"}


@pytest.fixture
def server(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("STAGE_KEY", "sk-stage-0123456789")
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    return server


@pytest.fixture
def batch(stage: Stage, server: Server) -> Batch:
    assert server.port
    return Batch.open(config=stage.folder / "config.yaml")


def _png(size: int = 256) -> bytes:
    stream = BytesIO()
    Image.new("RGBA", (size, size), "#3a7ca5").save(stream, "PNG")
    return stream.getvalue()


def _paths(outcome: Outcome) -> list[Path]:
    return [image.path for image in outcome.images if image.path is not None]


def test_a_picture_in_memory_is_varied(batch: Batch, server: Server) -> None:
    job = make_job("memory", [{"operation": "variation", "image": BytesIO(_png()), "n": 2, **SMALL}])
    (outcome,) = batch.run_sync([job]).requests
    assert (outcome.status, len(outcome.images), outcome.error) == ("succeeded", 2, None)
    assert [path.read_bytes()[:4] for path in _paths(outcome)] == [b"\x89PNG"] * 2
    assert server.charged() == 2


def test_a_pillow_picture_is_resized_and_varied_and_the_same_bytes_are_not_paid_again(
    batch: Batch, server: Server
) -> None:
    image = Image.open(BytesIO(_png(300))).resize((256, 256))
    job = make_job("pillow", [{"operation": "variation", "image": image, **SMALL}])
    for _ in range(2):
        assert batch.run_sync([job]).exit_code == 0
    assert server.charged() == 1


def test_one_stream_may_serve_several_requests(batch: Batch) -> None:
    stream = BytesIO(_png())
    fields: dict[str, Any] = {"operation": "edit", "image": stream, "mask": {"box": [10, 10, 90, 90]}}
    job = make_job("twice", [{**fields, "prompt": "one"}, {**fields, "prompt": "two", "image": _png()}], defaults=SMALL)
    assert [one.status for one in batch.run_sync([job]).requests] == ["succeeded"] * 2


def test_a_run_in_a_thread_of_its_own_does_without_signals(batch: Batch) -> None:
    job = make_job("aside", [{"prompt": "a heron"}], defaults=SMALL)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(batch.run_sync, [job]).result().exit_code == 0


async def test_it_is_async_and_job_files_go_beside_jobs_of_python(stage: Stage, batch: Batch) -> None:
    made = make_job("made", [{"prompt": "a {{ animal }}", "matrix": {"animal": ["cat", "dog"]}}], defaults=SMALL)
    result = await batch.run([stage.prompts("filed", 2), made])
    assert [(one.job, one.status) for one in result.requests] == [
        ("filed", "succeeded"),
        ("filed", "succeeded"),
        ("made", "succeeded"),
        ("made", "succeeded"),
    ]
    assert result.exit_code == 0
    result.raise_for_error()


def test_images_may_be_in_a_folder_of_their_own(batch: Batch, server: Server, tmp_path: Path) -> None:
    apart = Batch(replace(batch.config, images=tmp_path / "images of all jobs"), batch.environment)
    half = tmp_path / "images of all jobs" / "apart" / "images" / ".x.png.00000000.part"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    result = apart.run_sync([make_job("apart", [{"prompt": "a cat", "n": 2}], defaults=SMALL)])
    (outcome,) = result.requests
    assert {path.parent for path in _paths(outcome)} == {half.parent}
    assert sorted(half.parent.iterdir()) == sorted(_paths(outcome))
    assert not list(batch.folder.glob("*/images"))
    apart.report("apart")  # a run makes as many thumbnails as a share of its time allows
    assert len(list((batch.folder / "apart" / "thumbnails").iterdir())) == 2
    _paths(outcome)[0].write_bytes(b"damaged")
    images, (damage,) = apart.verify(repair=True)
    assert (images, damage.file) == (2, f"apart/images/{_paths(outcome)[0].name}")
    assert (half.parents[1] / "quarantine" / _paths(outcome)[0].name).read_bytes() == b"damaged"
    assert apart.run_sync().exit_code == 0
    assert (apart.verify()[0], server.charged()) == (2, 3)


def test_errors_carry_http_status_and_error_as_the_guides_do(batch: Batch) -> None:
    result = batch.run_sync([make_job("bad", [{"prompt": "something forbidden"}], defaults=SMALL)])
    assert result.exit_code == 1
    with pytest.raises(RequestError) as caught:
        result.raise_for_error()
    assert caught.value.http_status == 400
    assert caught.value.error["code"] == "content_policy_violation"
    assert set(caught.value.error) == {"message", "type", "param", "code"}
    assert isinstance(caught.value, GiveUp), "the class that the run raised"
    assert type(result.requests[0].error) is errors.Moderated


def test_what_is_wrong_with_a_job_of_python_is_named_by_its_field(batch: Batch, server: Server) -> None:
    with pytest.raises(BadInput) as caught:
        batch.run_sync([make_job("bad", [{"prompt": "x", "size": "1x1"}, {"operation": "fly"}], defaults=SMALL)])
    said = str(caught.value)
    assert "job `bad`, requests[0].size" in said
    assert "requests[1].operation" in said
    assert server.books() == []


def test_files_are_named_by_text_as_well_and_values_of_python_are_those_of_a_job_file(
    stage: Stage, server: Server, tmp_path: Path
) -> None:
    assert server.port
    batch = Batch.open(config=str(stage.folder / "config.yaml"), output=str(tmp_path / "out"))
    (tmp_path / "rows.csv").write_text("animal\ncat\n")
    rows: list[dict[str, Any]] = [
        {
            "prompt": "a {{ animal }} in {{ place }}",
            "rows": tmp_path / "rows.csv",
            "matrix": {"place": ("Rome", "Oslo")},
        }
    ]
    made = make_job("made", (row for row in rows), defaults=SMALL, budget_usd=Decimal("2.5"))  # type: ignore[arg-type]
    first, second = batch.submit([str(stage.prompts("filed", 2)), made])
    assert (len(first.requests), second.budget_usd) == (2, 2.5)
    assert [one.prompt for one in second.requests] == ["a cat in Rome", "a cat in Oslo"]


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        (["a cat"], "requests[0]: must be a mapping"),
        ({"prompt": "a cat"}, "requests: must be a list"),
        ("a cat", "requests: must be a list"),
        ([{"prompt": "a cat", "extra": {"a": b"x"}}], "requests[0]: cannot be written as JSON"),
        ([{"prompt": "a cat", 1: "x", "promt": "y"}], "requests[0].promt: unknown key"),
    ],
)
def test_what_a_job_of_python_cannot_hold_is_a_mistake_of_the_job(batch: Batch, requests: Any, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        batch.submit([make_job("bad", requests, defaults=SMALL)])


@pytest.mark.parametrize("jobs", [Path("job.yaml"), "job.yaml", make_job("one", [{"prompt": "a cat"}]), 7])
def test_a_job_that_is_in_no_list_is_named_as_such(batch: Batch, jobs: Any) -> None:
    with pytest.raises(BadInput, match="jobs are a list"):
        batch.submit(jobs)


def test_what_is_no_job_is_named_as_such(batch: Batch) -> None:
    jobs: Any = [{"prompt": "a cat"}]
    with pytest.raises(BadInput, match="is no job: give the path of a job file, or what `make_job` returns"):
        batch.submit(jobs)


async def test_one_name_is_a_job_and_not_its_letters(batch: Batch, server: Server) -> None:
    job = make_job("night", [{"id": "bad", "prompt": "something forbidden"}], defaults=SMALL)
    assert (await batch.run([job])).exit_code == 1
    asked = len(server.books())
    result = await batch.resume("night", kinds="Moderated", statuses="failed", ids="bad")
    assert (result.exit_code, len(server.books()) > asked) == (1, True)
    assert batch.report("night", str(batch.folder / "sheet.png"))[1:] == [batch.folder / "sheet.png"]


async def test_inside_an_event_loop_run_sync_names_what_to_await(batch: Batch, server: Server) -> None:
    with pytest.raises(RuntimeError, match=re.escape("write `await batch.run(...)`")):
        batch.run_sync([make_job("loop", [{"prompt": "a cat"}], defaults=SMALL)])
    assert server.books() == []


def test_an_unknown_provider_of_a_job_is_named_with_its_line_beside_the_jobs_other_mistakes(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    job = stage.job("two", [{"prompt": "x", "size": "1x1"}], provider="labb")
    said = stage.run("plan", job, exit_code=2).stderr
    assert re.search(r"two\.yaml, line \d+, provider: .*did you mean `lab`\?", said)
    assert "requests[0].size" in said


def test_plan_preview_draws_the_masks(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    Image.new("RGBA", (256, 256), "#3a7ca5").save(stage.folder / "lounge.png")
    edit = {"operation": "edit", "image": "lounge.png", "mask": {"box": [0, 0, 128, 256]}, "id": "pool"}
    job = stage.job("two", [{**edit, "prompt": "x"}, {"prompt": "y"}])
    stage.run("plan", job, "--preview", stage.folder / "look")
    (preview,) = (stage.folder / "look").iterdir()
    drawn = Image.open(preview)
    assert (preview.name, drawn.size) == ("pool.png", (256, 256))
    assert drawn.getpixel((200, 100)) == (0x3A, 0x7C, 0xA5)
    assert drawn.getpixel((64, 128)) != (0x3A, 0x7C, 0xA5)


def test_plan_preview_of_a_variation_tints_nothing_for_nothing_is_edited(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    Image.new("RGB", (200, 100), "#3a7ca5").save(stage.folder / "lounge.png")
    fitted = {**SMALL, "image": "lounge.png", "fit": "pad"}
    asked = [{"id": "alike", "operation": "variation"}, {"id": "pool", "operation": "edit", "prompt": "x"}]
    stage.run("plan", stage.job("two", [{**fitted, **one} for one in asked]), "--preview", stage.folder / "look")
    alike, pool = (Image.open(stage.folder / "look" / f"{name}.png").convert("RGB") for name in ("alike", "pool"))
    plain, tinted = (one.crop((100, 20, 101, 21)).tobytes() for one in (alike, pool))
    assert len(set(plain)) == 1, "grey, as the squares that stand for transparency"
    assert len(set(tinted)) > 1


def test_what_a_notebook_shows_of_a_batch_holds_no_secret(batch: Batch) -> None:
    assert batch.environment["STAGE_KEY"] == "sk-stage-0123456789"
    assert "sk-stage" not in f"{batch!r} {batch.run!r}"


def test_everything_handed_out_is_there_and_nothing_heavy_is_imported_for_it() -> None:
    assert all(getattr(pipeline, name) for name in pipeline.__all__)
    assert {"TryAgain", "GiveUp", "Stop"} <= set(pipeline.__all__)
    assert set(pipeline.__all__) <= set(dir(pipeline)), "a notebook completes them"
    with pytest.raises(AttributeError):
        _ = pipeline.nothing


def test_a_job_made_in_python_is_told_where_python_takes_a_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = make_job("many", [{"prompt": "x"}])
    with pytest.raises(BadInput, match=r"no default: pass `provider=` to `make_job` or to `Batch\.open` \(openai, "):
        Batch.open(output="there").submit([job])
    assert Batch.open(output="there", provider="sandbox").submit([job])
