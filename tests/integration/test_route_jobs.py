"""Jobs that name a route, by the command: what is known already, what is refused, how a run exits and what is shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Server, Stage

BATCH = {"model": "gpt-image-1.5", "size": "1024x1024", "quality": "low"}


def served(stage: Stage, *names: str, **more: Any) -> list[Server]:
    """Serve a sandbox for each of these providers."""
    servers = [stage.serve(rate_limit=None) for _ in names]
    for name, server in zip(names, servers, strict=True):
        stage.provider(name, server, **more)
    return servers


def route(stage: Stage, name: str, value: Any) -> None:
    stage.settings.setdefault("routes", {})[name] = value
    stage.write_config()


def charged(servers: list[Server]) -> int:
    return sum(server.charged() for server in servers)


def at(stage: Stage, provider: str, count: int = 12) -> Path:
    """Write the job, at this provider or route."""
    prompts = [{"prompt": f"prompt {number}"} for number in range(count)]
    return stage.job("night", prompts, provider=provider)


def test_a_job_moves_between_providers_and_routes_and_nothing_is_bought_again(stage: Stage) -> None:
    servers = served(stage, "a", "b", "c")
    stage.run("run", at(stage, "a"))
    first = [(one["key"], one["id"], one["images"]) for one in stage.manifest("night")]
    route(stage, "all", ["a", "b"])
    planned = json.loads(stage.run("plan", at(stage, "all", 14), "--json").stdout)
    assert planned["missing"]["requests"] == 2
    stage.run("run", at(stage, "all", 14))
    assert charged(servers) == 14
    manifest = stage.manifest("night")
    assert [(one["key"], one["id"], one["images"]) for one in manifest[:12]] == first, "what is found keeps its key"
    for members in (["b", "c"], ["c"], ["c", "b", "a"]):
        route(stage, "all", members)
        stage.run("run", at(stage, "all", 14))
    assert charged(servers) == 14, "the route gains and loses members"
    route(stage, "other", ["b", "a"])
    stage.run("run", at(stage, "other", 12))
    route(stage, "other", ["b"])
    stage.run("run", at(stage, "other", 12))
    stage.run("run", at(stage, "all", 14))
    stage.run("run", at(stage, "a", 14))
    assert charged(servers) == 14
    assert stage.check_files("night") == 14
    stage.run("forget", "night", "--yes")
    assert stage.ask("SELECT count(*) FROM other_key") == [(0,)]


def test_a_job_at_a_route_moves_to_its_member_and_back(stage: Stage) -> None:
    servers = served(stage, "a", "b")
    route(stage, "all", {"providers": ["a", "b"], "policy": "spread"})
    stage.run("run", at(stage, "all"))
    stage.run("run", at(stage, "b"))
    del stage.settings["routes"]
    stage.write_config()
    stage.run("run", at(stage, "b"))
    route(stage, "all", ["b", "a"])
    stage.run("run", at(stage, "all"))
    assert charged(servers) == 12


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ({"a": ["b"]}, "routes.a: is also the name of a provider"),
        ({"x": ["a", "y"], "y": ["b"]}, "routes.x: names the route `y`; a route has providers only"),
        ({"x": ["a", "play"]}, "routes.x: mixes a sandbox with servers that bill"),
        ({"x": ["a", "bb"]}, "routes.x: there is no provider `bb`"),
        ({"x": ["a", "a"]}, "routes.x: names `a` twice"),
        ({"x": []}, "routes.x: names no provider"),
        ({"x": {"providers": ["a"], "polcy": "spread"}}, "unknown key `polcy`; did you mean `policy`?"),
        ({"x": {"providers": ["a"], "policy": "random"}}, "routes.x.policy: `random` is not known"),
        ({"x": {"providers": ["a"], "moderation": "on"}}, "routes.x.moderation: `on` is not known"),
        ({"x": {"providers": ["a"], "same": ['"']}}, "cannot be the name of a variable"),
        ({"x": 3}, "must be a mapping"),
        ({".x": ["a"]}, "is not a valid name"),
    ],
)
def test_a_route_that_cannot_be_is_refused(stage: Stage, routes: Any, said: str) -> None:
    stage.providers = {
        "a": {"base_url": "http://127.0.0.1:9/v1"},
        "b": {"base_url": "http://127.0.0.1:9/v1"},
        "play": {"sandbox": True},
    }
    stage.settings["routes"] = routes
    stage.write_config()
    assert said in stage.run("run", at(stage, "x"), exit_code=2).stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"models": []}, "must be a list of names"),
        ({"operations": ["paint"]}, "`paint` is not known"),
        ({"operations": []}, "must be a list of generation, edit, variation"),
    ],
)
def test_what_a_provider_serves_is_checked(stage: Stage, more: Any, said: str) -> None:
    stage.provider("a", "http://127.0.0.1:9/v1", **more)
    assert said in stage.run("run", at(stage, "a"), exit_code=2).stderr


def test_every_member_needs_its_key(stage: Stage) -> None:
    (server,) = served(stage, "a")
    stage.provider("b", server, api_key_env="NOBODY_SET_THIS")
    route(stage, "all", ["a", "b"])
    assert "NOBODY_SET_THIS" in stage.run("run", at(stage, "all"), exit_code=2).stderr
    stage.run("submit", at(stage, "all"))
    assert "NOBODY_SET_THIS" in stage.run("resume", exit_code=2).stderr
    assert server.books() == []


def test_a_request_that_no_member_can_serve_is_refused(stage: Stage) -> None:
    served(stage, "a", operations=["edit"])
    served(stage, "b", models=["gpt-image-2"])
    route(stage, "all", ["a", "b"])
    said = stage.run("plan", at(stage, "all"), exit_code=2).stderr
    assert "no provider of the job (`a`, `b`) makes generations with `dall-e-2`" in said
    assert (
        "no provider of the job (`b`) serves the model `dall-e-2`"
        in stage.run("plan", at(stage, "b"), exit_code=2).stderr
    )


def test_exit_0_although_a_member_has_stopped_and_3_if_none_is_left(stage: Stage) -> None:
    servers = served(stage, "a", "b")
    stage.provider("a", servers[0], api_key_env=None)  # which this server refuses
    route(stage, "all", ["a", "b"])
    ended = stage.run("run", at(stage, "all"))
    assert "`a`" in ended.stderr
    assert (servers[0].charged(), servers[1].charged()) == (0, 12)
    assert {image["provider"] for one in stage.manifest("night") for image in one["images"]} == {"b"}
    assert {one["provider"] for one in stage.manifest("night")} == {"all"}
    standing = stage.standing("night")
    assert [(one["name"], one["images"]) for one in standing["providers"]] == [("a", 0), ("b", 12)]
    assert standing["providers"][1]["cost_usd"] == pytest.approx(12 * 0.016)
    stage.provider("b", servers[1], api_key_env=None)
    stage.run("run", at(stage, "all", 15), exit_code=3)
    status = stage.run("status").stdout
    assert "provider `a`" in status
    assert "provider `b`" in status


def test_plan_shows_a_range_of_prices_and_warns_of_a_shared_limit(stage: Stage) -> None:
    (server,) = served(stage, "a")
    cheap = {"dall-e-2": {"prices": {"per_image": {"standard": {"256x256": 0.001}}}}}
    stage.provider("b", server, models=cheap, rate_limit={"images": 6, "per_seconds": 6})
    route(stage, "all", ["a", "b"])
    text = stage.run("plan", at(stage, "all")).stdout
    assert "cost: $0.012 to $0.192, by who serves it" in text
    assert "`a` and `b` are at " in text
    assert "keys of one organization or project share one limit" in text
    planned = json.loads(stage.run("plan", at(stage, "b"), "--json").stdout)
    assert (planned["least_usd"], planned["cost_usd"]) == (0.012, 0.012)


def test_a_route_may_be_the_default_and_an_option(stage: Stage) -> None:
    servers = served(stage, "a", "b")
    route(stage, "all", ["b"])
    stage.settings["provider"] = "all"
    stage.write_config()
    stage.run("run", stage.job("night", [{"prompt": "one"}]))
    assert [server.charged() for server in servers] == [0, 1]
    stage.run("run", at(stage, "a", 1), "--provider", "all")
    assert stage.standing("night.all")["provider"] == "all"
    stage.settings["provider"] = "al"
    stage.write_config()
    assert "there is no provider `al`; did you mean `all`?" in stage.run("status", exit_code=2).stderr


def test_a_batch_goes_to_the_first_member_that_has_a_batch_api(stage: Stage) -> None:
    servers = served(stage, "a", "c")
    stage.provider("b", servers[1], batch={"poll_seconds": [0.1, 0.2]})
    route(stage, "all", ["a", "b", "c"])
    job = stage.job(
        "night", [{"prompt": f"prompt {n}"} for n in range(4)], defaults=BATCH, provider="all", mode="batch"
    )
    stage.run("run", job)
    (row,) = stage.ask("SELECT provider, requests FROM batch")
    assert row == ("b", 4)
    assert servers[0].books() == []
    assert {image["provider"] for one in stage.manifest("night") for image in one["images"]} == {"b"}
    stage.run("forget", "night", "--yes")
    stage.provider("b", servers[1], batch={}, models=["gpt-image-2"])
    assert "`b`, the first provider with a Batch API, does not serve it" in stage.run("run", job, exit_code=2).stderr
    route(stage, "none", ["a", "c"])
    job = stage.job("night", [{"prompt": "one"}], defaults=BATCH, provider="none", mode="batch")
    assert "has no Batch API" in stage.run("run", job, exit_code=2).stderr


def test_images_that_a_manifest_proves_are_those_of_their_provider(stage: Stage) -> None:
    servers = served(stage, "a", "b")
    route(stage, "all", ["b", "a"])
    stage.run("run", at(stage, "all", 3))
    manifest = stage.manifest("night")
    for name in ("ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm", "ledger.backup.sqlite3"):
        (stage.output / name).unlink(missing_ok=True)
    stage.run("run", at(stage, "all", 3))
    assert charged(servers) == 3
    again = stage.manifest("night")
    assert [one["images"] for one in again] == [one["images"] for one in manifest]
