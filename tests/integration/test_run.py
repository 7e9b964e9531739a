"""The whole way: a job file goes in, a folder of pictures and a manifest come out."""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.support.workbench import picture

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Server, Stage

STORM = dict.fromkeys(
    (
        "http_429",
        "http_500",
        "http_503",
        "html_502",
        "drop_before",
        "drop_after",
        "broken_json",
        "empty",
        "slow",
        "cut_download",
        "wrong_download",
    ),
    0.05,
)
FIELDS = {
    *("id", "key", "job", "operation", "provider", "endpoint", "prompt", "params", "variables", "inputs", "status"),
    *("attempts", "maybe_paid", "error", "images", "usage", "cost_usd", "request_id", "created_at", "finished_at"),
}


def _inputs(folder: Path) -> None:
    """Write a square picture, and a mask that is open in the middle."""
    Image.new("RGBA", (256, 256), "#3a7ca5").save(folder / "lounge.png")
    mask = Image.new("RGBA", (256, 256), "#ffffff")
    mask.paste((0, 0, 0, 0), (80, 80, 180, 180))
    mask.save(folder / "mask.png")


def test_all_three_operations_come_back_by_url_and_by_base64(stage: Stage) -> None:
    _inputs(stage.folder)
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    requests: list[dict[str, Any]] = []
    for answer in ("url", "b64_json"):
        more = {"response_format": answer, "user": "someone", "n": 2}
        requests += [
            {"prompt": f"a cat by {answer}", **more},
            {"operation": "edit", "image": "lounge.png", "mask": "mask.png", "prompt": f"a pool by {answer}", **more},
            {"operation": "variation", "image": "lounge.png", **more},
        ]
    stage.run("run", stage.job("lounge", requests))
    manifest = stage.manifest("lounge")
    assert [entry["operation"] for entry in manifest] == ["generation", "edit", "variation"] * 2
    assert all(entry["status"] == "succeeded" and len(entry["images"]) == 2 for entry in manifest)
    assert stage.check_files("lounge") == 12
    assert server.charged() == 12
    assert [one["role"] for one in manifest[1]["inputs"]] == ["image", "mask"]
    assert (stage.output / "lounge" / manifest[1]["inputs"][0]["file"]).read_bytes() == (
        stage.folder / "lounge.png"
    ).read_bytes()


def test_the_manifest_has_exactly_the_fields_of_the_contract_and_what_was_added(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.job("lounge", [{"prompt": "a white siamese cat", "n": 4}]))
    (entry,) = stage.manifest("lounge")
    added = {"batch_id", "custom_id", "mode", "quarantined", "rehearsal", "replaced", "served_by", "settings"}
    assert set(entry) == FIELDS | added
    fields = {"file", "sha256", "bytes", "width", "height", "format", "revised_prompt", "remark", "url", "provider"}
    assert set(entry["images"][0]) == fields | {"flags", "duplicate_of"}
    assert entry["id"] == f"a-white-siamese-cat-{entry['key'][:8]}"
    assert [image["file"] for image in entry["images"]] == [f"images/{entry['id']}-{n}.png" for n in (1, 2, 3, 4)]
    assert entry["params"] == {"model": "dall-e-2", "n": 4, "size": "256x256"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["finished_at"])
    assert entry["cost_usd"] == pytest.approx(0.064)


def test_running_again_calls_nobody(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    job = stage.prompts("many", 30)
    stage.run("run", job)
    calls = len(server.books())
    stage.run("run", job)
    stage.run("run")
    assert len(server.books()) == calls == 30


def test_an_edited_prompt_makes_one_new_request_and_the_old_one_is_superseded(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server, concurrency=1)  # so that the order of the calls is fixed
    stage.run("run", stage.job("lounge", [{"prompt": "one"}, {"prompt": "two"}]))
    stage.run("run", stage.job("lounge", [{"prompt": "one"}, {"prompt": "three"}]))
    assert [entry["prompt"] for entry in server.books()] == ["one", "two", "three"]
    assert [(entry["prompt"], entry["status"]) for entry in stage.manifest("lounge")] == [
        ("one", "succeeded"),
        ("three", "succeeded"),
        ("two", "superseded"),
    ]
    assert stage.check_files("lounge") == 3
    stage.run("run", stage.job("lounge", [{"prompt": "two"}, {"prompt": "one"}]))
    assert len(server.books()) == 3, "put back into the file, it counts again and is not paid again"
    assert [entry["status"] for entry in stage.manifest("lounge")] == ["succeeded", "succeeded", "superseded"]


def test_a_new_request_under_an_old_id_does_not_take_the_old_ones_file(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.job("lounge", [{"id": "pool", "prompt": "one"}]))
    stage.run("run", stage.job("lounge", [{"id": "pool", "prompt": "two"}]))
    new, old = stage.manifest("lounge")
    assert old["images"][0]["file"] == "images/pool-1.png"
    assert new["images"][0]["file"] == f"images/pool-{new['key'][:8]}-1.png"


def test_raising_n_asks_for_the_additional_pictures_and_lowering_it_deletes_nothing(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server, concurrency=1)  # so that the order of the calls is fixed
    for n in (3, 5, 1, 12):
        stage.run("run", stage.job("lounge", [{"id": "pool", "prompt": "one", "n": n}]))
    assert [entry["n"] for entry in server.books()] == [3, 2, 5, 2]
    assert {entry["id"]: len(entry["images"]) for entry in stage.manifest("lounge")} == {"pool": 10, "pool.2": 2}
    assert stage.check_files("lounge") == 12


def test_a_lower_limit_in_force_only_means_more_calls(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server, images_per_call=4, rate_limit={"images": 3, "per_seconds": 0.3})
    stage.run("run", stage.job("lounge", [{"prompt": "one", "n": 8}]))
    (entry,) = stage.manifest("lounge")
    assert (entry["attempts"], len(entry["images"])) == (3, 8)
    assert [call["n"] for call in server.books()] == [3, 3, 2]


def test_moderation_fails_its_request_alone_and_is_not_tried_again_until_resumed(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    job = stage.job("lounge", [{"prompt": "something forbidden"}, {"prompt": "a cat"}])
    stage.run("run", job, exit_code=1)
    stage.run("run", job, exit_code=1)
    refused, made = stage.manifest("lounge")
    assert (refused["status"], refused["attempts"], made["status"]) == ("failed", 1, "succeeded")
    assert refused["error"]["http_status"] == 400
    assert refused["error"]["code"] == "content_policy_violation"
    stage.run("resume", "lounge", exit_code=1)
    assert stage.manifest("lounge")[0]["attempts"] == 2
    assert len(server.books()) == 3


@pytest.mark.parametrize("faults", [{}, STORM], ids=["calm", "storm"])
def test_many_prompts_each_get_exactly_one_whole_picture(stage: Stage, faults: dict[str, float]) -> None:
    server = stage.serve(rate_limit=None, seed=5, faults=faults, slow_seconds=0.2)
    stage.provider("lab", server)
    stage.settings["retry"] = {"attempts": 30, "unknown": 30, "max_wait_seconds": 0.5}
    stage.write_config()
    job = stage.prompts("many", 150)
    stage.run("run", job)
    manifest = stage.manifest("many")
    assert [len(entry["images"]) for entry in manifest] == [1] * 150
    assert stage.check_files("many") == 150
    _agree_with_the_books(manifest, server)
    calls = len(server.books())
    stage.run("run", job)
    assert len(server.books()) == calls


def _agree_with_the_books(manifest: list[dict[str, Any]], server: Server) -> None:
    """What the server charged beyond the pictures here is at most what the ledger calls maybe paid."""
    wanted = sum(entry["params"]["n"] for entry in manifest)
    maybe_paid = sum(entry["maybe_paid"] for entry in manifest)
    assert wanted <= server.charged() <= wanted + maybe_paid
    assert sum(entry["attempts"] for entry in manifest) == len(server.books())


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("faults", [{}, STORM], ids=["calm", "storm"])
def test_1632_varied_prompts_each_get_exactly_one_whole_picture(stage: Stage, faults: dict[str, float]) -> None:
    server = stage.serve(rate_limit=None, seed=5, faults=faults)
    stage.provider("lab", server)
    stage.settings["retry"] = {"attempts": 30, "unknown": 30, "max_wait_seconds": 2}
    stage.write_config()
    prompts = [_varied(number) for number in range(1632)]
    lines = ["Prompt\tCategory", *(f"{prompt}\tnumber {number}" for number, prompt in enumerate(prompts))]
    (stage.folder / "prompts.tsv").write_text("\n".join(lines) + "\n")
    job = stage.job("varied", [{"prompt": "{{ Prompt }}", "rows": "prompts.tsv"}])
    stage.run("run", job)
    manifest = stage.manifest("varied")
    assert [entry["prompt"] for entry in manifest] == prompts
    assert [len(entry["images"]) for entry in manifest] == [1] * 1632
    assert stage.check_files("varied") == 1632
    _agree_with_the_books(manifest, server)
    calls = len(server.books())
    stage.run("run", job)
    assert len(server.books()) == calls


def _varied(number: int) -> str:
    """Write a prompt as people do: of one word or of fifty, with quotes, dashes and letters of other scripts."""
    draw = random.Random(number)
    words = (
        *("a", "cat,", "the", '"Mona', 'Lisa"', "sign's", "café", "—", "日本語", "1/2", "50%", "naïve", "(blue)", "#3"),
        *("painted;", "on", "&", "under…", "Öl", "{x}", "C:\\", "¿qué?"),
    )
    return f"{' '.join(draw.choices(words, k=draw.choice([1, 6, 12, 50])))} no. {number}"


def _used(server: Server, limit: int, seconds: float) -> float:
    """What part of the limit the calls used, from the first to the last."""
    calls = sorted(server.books(), key=lambda call: call["mono"])
    images = sum(call["n"] for call in calls) - calls[-1]["n"]
    return float(images / (calls[-1]["mono"] - calls[0]["mono"]) * seconds / limit)


@pytest.mark.parametrize(
    ("seconds", "margin", "requests", "numbers", "least"),
    [
        pytest.param(3, 1.03, 60, [1], 0.94, id="n=1"),
        pytest.param(3, 1.03, 25, list(range(1, 11)), 0.87, id="mixed"),
        pytest.param(6, 1.005, 500, [1], 0.99, id="n=1 long", marks=pytest.mark.long),
        pytest.param(6, 1.005, 150, list(range(1, 11)), 0.95, id="mixed long", marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(600)
def test_a_strict_server_never_says_429_and_the_limit_is_used(
    stage: Stage, seconds: float, margin: float, requests: int, numbers: list[int], least: float
) -> None:
    draw = random.Random(11)
    limit = {"images": 50, "per_seconds": seconds}
    server = stage.serve(rate_limit=limit)
    stage.provider("lab", server, rate_limit={**limit, "margin": margin})
    rows = [{"prompt": f"prompt {number}", "n": draw.choice(numbers)} for number in range(requests)]
    (stage.folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    job = stage.job("limited", [{"prompt": "{{ prompt }}", "n": "{{ n }}", "rows": "rows.jsonl"}])
    stage.run("run", job)
    assert [call["status"] for call in server.books()] == [200] * requests
    assert _used(server, 50, seconds) >= least


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("latency", [1.0, 8.0, 19.5])
def test_the_limit_is_used_whatever_the_latency(stage: Stage, latency: float) -> None:
    """A tenth of the seconds that the service's models take: 19.5 s at 50 per 6 s are 162 calls in flight."""
    limit = {"images": 50, "per_seconds": 6}
    server = stage.serve(rate_limit=limit, latency_seconds=[latency, 1.2 * latency])
    stage.provider("lab", server, rate_limit=limit)
    stage.run("run", stage.prompts("slow", 500))
    assert [call["status"] for call in server.books()] == [200] * 500
    assert _used(server, 50, 6) >= 0.99


def test_a_lower_limit_that_the_server_states_is_adopted_and_reported(stage: Stage) -> None:
    server = stage.serve(rate_limit={"images": 3, "per_seconds": 0.5})
    stage.provider("lab", server, rate_limit={"images": 50, "per_seconds": 0.5, "margin": 1.2})
    rows = [{"prompt": "one", "n": 5}, *({"prompt": f"prompt {number}", "n": 2} for number in range(4))]
    lines = [json.loads(line) for line in stage.run("run", stage.job("low", rows), "--json").stdout.splitlines()]
    (lowered,) = [line for line in lines if line["event"] == "limit_lowered"]
    assert (lowered["provider"], lowered["images"], lowered["per_seconds"]) == ("lab", 3, 0.5)
    assert lines[-1]["limits"] == {"lab": {"images": 3, "per_seconds": 0.5}}
    assert "lab allows only 3 images per 0.5 s" in (stage.output / "run.log").read_text()
    assert stage.check_files("low") == 13
    statuses = [call["status"] for call in server.books()]
    assert statuses.count(429) <= 2, "the call that was told, and one that may have been on its way"


def test_after_an_earlier_run_within_the_window_a_strict_server_still_says_no_429(stage: Stage) -> None:
    limit = {"images": 10, "per_seconds": 8}  # the server counts arrivals: 40 ms may lie between two
    server = stage.serve(rate_limit=limit)
    stage.provider("lab", server, rate_limit=limit)
    stage.run("run", stage.job("first", [{"prompt": "first", "n": 5}, {"prompt": "second", "n": 5}]))
    stage.run("run", stage.prompts("many", 3))  # which spacing alone would let through at once
    assert [call["status"] for call in server.books()] == [200] * 5


def test_quota_spent_in_mid_run_stops_and_the_rest_goes_on_when_it_is_back(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, quota_images=7, latency_seconds=[0.05, 0.1])
    stage.provider("lab", server, concurrency=4)
    job = stage.prompts("many", 20)
    ended = stage.run("run", job, exit_code=3)
    assert "quota" in ended.stderr
    refused = [call for call in server.books() if call["status"] == 429]
    assert 1 <= len(refused) <= 4, "only calls that were already sent may follow the first refusal"
    standing = stage.standing("many")
    made = sum(call["charged"] for call in server.books())
    assert standing["counts"]["succeeded"] == standing["images"] == made
    assert standing["counts"]["pending"] == 20 - made
    assert standing["counts"]["running"] == standing["counts"]["failed"] == 0
    server.stop()
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run")
    assert stage.check_files("many") == 20


def test_a_refused_key_stops_at_once_and_leaks_nowhere(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    key = "bad-0123456789abcdef"
    ended = stage.run("--verbose", "run", stage.prompts("many", 3), exit_code=3, key=key)
    written = [path.read_bytes() for path in stage.output.rglob("*") if path.is_file()]
    assert not any(key.encode() in content for content in [*written, ended.stdout.encode(), ended.stderr.encode()])
    assert stage.standing("many")["counts"]["pending"] == 3


def test_a_provider_that_stops_does_not_hold_up_another(stage: Stage) -> None:
    stage.provider("good", stage.serve(rate_limit=None))
    stage.provider("broke", stage.serve(rate_limit=None, quota_images=0))
    good = stage.prompts("good", 10)
    broke = stage.job("broke", [{"prompt": "one"}], provider="broke")
    stage.run("run", broke, good, exit_code=3)
    assert stage.standing("good")["counts"]["succeeded"] == 10
    assert stage.standing("broke")["counts"]["pending"] == 1


def test_an_unknown_model_stops_its_requests_and_no_others(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None), concurrency=1)
    job = stage.job("mixed", [{"prompt": "one", "model": "no-such-model"}, {"prompt": "two"}])
    ended = stage.run("run", job, exit_code=3)
    assert "no-such-model" in ended.stderr
    assert [entry["status"] for entry in stage.manifest("mixed")] == ["pending", "succeeded"]


def test_a_path_that_is_not_there_stops_its_operation_and_no_other(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, dialect={"paths": {"variation": "images/elsewhere"}})
    stage.provider("lab", server, concurrency=1)
    (stage.folder / "a.png").write_bytes(picture(256))
    variations: list[dict[str, object]] = [{"operation": "variation", "image": "a.png", "n": n} for n in (1, 2)]
    ended = stage.run("run", stage.job("mixed", [*variations, {"prompt": "a cat"}, {"prompt": "a dog"}]), exit_code=3)
    assert "(no further calls for provider `lab`, variations)" in ended.stderr
    assert [entry["status"] for entry in stage.manifest("mixed")] == ["pending", "pending", "succeeded", "succeeded"]
    assert server.charged() == 2


def test_a_url_that_dies_before_its_download_is_generated_again_and_counted(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, url_ttl_seconds=0.5, faults={"cut_download": 1.0})
    stage.provider("lab", server)
    stage.settings["retry"] = {"attempts": 3, "max_wait_seconds": 0.1}
    stage.write_config()
    stage.run("run", stage.job("late", [{"prompt": "one"}]), exit_code=1)
    (entry,) = stage.manifest("late")
    assert (entry["status"], entry["attempts"], server.charged()) == ("failed", 3, 3)


def test_a_paid_url_that_the_host_refuses_stays_in_the_ledger_and_resume_pays_nothing(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, faults={"wrong_download": 1.0})
    stage.provider("lab", server)
    stage.settings["download"] = {"attempts": 2}
    stage.write_config()
    stage.run("run", stage.job("one", [{"prompt": "one"}]), exit_code=1)
    assert stage.manifest("one")[0]["status"] == "failed"
    server.stop()
    again = stage.serve(rate_limit=None, port=server.port)
    stage.run("resume", "one")
    assert (len(again.books()), stage.check_files("one")) == (0, 1)


def test_a_variation_on_a_model_without_the_endpoint_is_served_by_edits_and_the_manifest_says_so(stage: Stage) -> None:
    _inputs(stage.folder)
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    settings = {"model": "gpt-image-2", "size": "1024x1024", "quality": "low"}
    stage.run("run", stage.job("lounge", [{"operation": "variation", "image": "lounge.png", **settings}]))
    (entry,) = stage.manifest("lounge")
    assert (entry["operation"], entry["served_by"]) == ("variation", "images/edits")
    assert entry["settings"]["quality"] == "low"
    assert [call["operation"] for call in server.books()] == ["edit"]
    assert stage.check_files("lounge") == 1
