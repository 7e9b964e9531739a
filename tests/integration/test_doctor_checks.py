"""The checks of a provider and of this machine, each with servers that answer oddly or states that are rare."""

from __future__ import annotations

import email.utils
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.environment import EnvironmentVariable
from pipeline.config.load import Config
from pipeline.config.notifications import NotificationSettings
from pipeline.config.provider import Provider, RateLimit
from pipeline.doctor import daemon_thread, machine_checks
from pipeline.doctor.check import Check, check_line, exit_code, not_checked, problem, warning, well
from pipeline.doctor.job_checks import check_budgets, check_prices
from pipeline.doctor.machine_checks import check_open_files
from pipeline.doctor.next_run import Demand, JobToMake, NextRun
from pipeline.doctor.notify_check import check_notifications
from pipeline.doctor.organization_checks import check_organization
from pipeline.doctor.provider_checks import ProviderExamination, shared_organizations
from pipeline.doctor.sample_faults import find_fault
from pipeline.ledger.samples import Sample, SampleImage
from tests.support.scripted_server import KEY, response, scripted

if TYPE_CHECKING:
    from tests.support.scripted_server import Request

MODEL = "gpt-image-2"
OPENAI = "https://api.openai.com/v1"
ENVIRONMENT = {"LAB_KEY": KEY}
FORBIDDEN = {"error": {"message": "Missing scopes: api.model.read", "type": "invalid_request_error"}}


def entry(name: str = MODEL, **more: Any) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1, "owned_by": "system", **more}


def next_run(provider: Provider, *, images: int = 10, minutes: float | None = 1.0, **job: Any) -> NextRun:
    """Return an next_run with one job of one kind."""
    facts = {"requests": images, "images": images, "minutes": minutes, "usd": 0.1, "spent_usd": 0.0, "budget_usd": None}
    one = JobToMake("night", provider.name, **{"rehearsal": False, **facts, **job})
    params = {"model": MODEL, "size": "1024x1024", "quality": "low"}
    demand = Demand(
        job="night",
        service=provider.name,
        served_by="generation",
        model=MODEL,
        params=params,
        requests=images,
        images=images,
        usd=0.1,
    )
    config = Config(None, Path("outputs"), provider.name, {provider.name: provider})
    return NextRun(config, ENVIRONMENT, time.time(), [one], [demand])


async def examine(
    listed: bytes, single: bytes | None = None, *, base_url: str | None = None, minutes: float | None = 1.0
) -> list[Check]:
    """Examine a server that answers with this list, and so about a model; `base_url` is what the config calls it."""

    def answer(request: Request) -> bytes:
        return listed if single is None or request.line.endswith("/models") else single

    async with scripted(answer) as server:
        provider = Provider("lab", base_url or server.url, api_key_env="LAB_KEY")
        examination = ProviderExamination(provider, server.url, next_run(provider, minutes=minutes))
        checks = await examination.run()
        assert {request.header("Authorization") for request in server.requests} <= {f"Bearer {KEY}"}
        assert all(request.line.startswith("GET /v1/models") for request in server.requests)
    return checks


def said(checks: list[Check], name: str) -> list[str]:
    return [f"{one.status}: {one.message}" for one in checks if one.name == name]


def in_days(days: float) -> str:
    return str((datetime.now(UTC) + timedelta(days=days)).date())


def listing(*models: dict[str, Any], **headers: str) -> bytes:
    return response(200, {"object": "list", "data": list(models)}, *(f"{name}: {at}" for name, at in headers.items()))


GONE = response(404, {"error": {"message": "does not exist", "code": "model_not_found"}})
LATER = response(404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    ("listed", "name", "words"),
    [
        (response(403, FORBIDDEN), "key", "ok: not checked (`lab`: it may not read the list of models)"),
        (response(401, {"error": {"message": "no"}}), "key", "problem: `lab`: no (check the key"),
        (response(500, {"error": {"message": "oops"}}), "server", "warning: `lab`: oops (status 500)"),
        (response(200, b"<html><title>Shop</title></html>", "Content-Type: text/html"), "server", "problem: `lab`: "),
        (response(302, b"", "Location: /elsewhere"), "server", "problem: `lab`: "),
        (LATER, "key", "ok: not checked (`lab` has no list of models)"),
        (response(200, [entry()]), "key", "ok: `lab` accepts it"),
    ],
)
async def test_what_a_server_answers_to_the_list_of_models_is_understood(listed: bytes, name: str, words: str) -> None:
    (found,) = said(await examine(listed), name)
    assert found.startswith(words)


@pytest.mark.parametrize(
    ("listed", "single", "base_url", "words"),
    [
        (listing(entry()), LATER, None, "ok: `lab` lists `gpt-image-2`, without a shutdown"),
        (listing(), LATER, None, "problem: `lab` does not list"),
        (listing(), LATER, "https://api.x.ai/v1", "warning: `lab` does not list"),
        (listing(entry()), GONE, "https://api.x.ai/v1", "problem: `lab`: `gpt-image-2` cannot be used: does not exist"),
        (
            listing(entry()),
            response(403, {"error": {"message": "verify"}}),
            None,
            "problem: `lab`: `gpt-image-2` cannot",
        ),
        (LATER, response(200, entry()), None, "ok: `lab` lists `gpt-image-2`"),
        (LATER, LATER, None, "ok: not checked (`lab` does not say whether it has `gpt-image-2`)"),
    ],
)
async def test_a_model_that_is_not_listed_or_may_not_be_used_is_found(
    listed: bytes, single: bytes, base_url: str | None, words: str
) -> None:
    (found,) = said(await examine(listed, single, base_url=base_url), "models")
    assert found.startswith(words)


@pytest.mark.parametrize(
    ("days", "minutes", "words"),
    [
        (0, 1.0, "problem: `lab` shuts `gpt-image-2` down on "),
        (1, 60 * 24 * 2.0, "problem: `lab` shuts `gpt-image-2` down on "),
        (1, None, "warning: `lab` shuts `gpt-image-2` down on "),
        (1, 0.001, "warning: `lab` shuts `gpt-image-2` down on "),
        (9, 1.0, "ok: `lab` shuts `gpt-image-2` down on "),
        (-200, 1.0, "warning: `lab` was to shut `gpt-image-2` down on "),
    ],
)
async def test_a_shutdown_before_the_planned_end_is_a_problem(days: float, minutes: float | None, words: str) -> None:
    model = response(200, entry(shutdown_date=in_days(days)))
    (found,) = said(await examine(listing(entry(shutdown_date=in_days(days))), model, minutes=minutes), "models")
    if minutes is None and time.gmtime().tm_hour >= 12:
        words = words.replace("warning", "problem")  # twelve hours are until tomorrow
    assert found.startswith(words)


@pytest.mark.parametrize(("seconds", "status"), [(-3600, "problem"), (3600, "problem"), (50, "ok"), (None, "ok")])
async def test_the_clock_is_compared_with_the_date_of_the_server(seconds: float | None, status: str) -> None:
    date = {} if seconds is None else {"Date": email.utils.formatdate(time.time() + seconds, usegmt=True)}
    (found,) = said(await examine(listing(entry(), **date), response(200, entry())), "clock")
    assert found.startswith(status)
    assert ("not checked" in found) == (seconds is None)
    assert ("slow" in found) == (seconds == 3600)


async def test_a_server_that_cannot_be_reached_leaves_the_rest_unchecked() -> None:
    async with scripted(b"") as server:
        pass
    provider = Provider("lab", server.url, api_key_env="LAB_KEY")
    checks = await ProviderExamination(provider, server.url, next_run(provider)).run()
    assert [(one.name, one.status) for one in checks] == [
        ("network", "ok"),
        ("server", "problem"),
        *((name, "ok") for name in ("key", "clock", "models")),
    ]
    assert checks[0].message == "no proxy stands before `lab`", "that it is reached is another check"
    assert "check the network, the proxy, and `base_url`" in str(checks[1].do)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HTTPS_PROXY", "socks5://127.0.0.1:1", "names a socks5 proxy"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "$SSL_CERT_FILE names /nowhere/ca.pem, which does not exist"),
    ],
)
async def test_a_proxy_or_a_certificate_that_cannot_be_used_is_found_before_a_call(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    provider = Provider("lab", OPENAI, api_key_env="LAB_KEY")
    found = said(await ProviderExamination(provider, OPENAI, next_run(provider)).run(), "network")
    assert words in found[0]
    assert found[0].startswith("problem: ")


async def test_providers_of_other_organizations_share_no_limit() -> None:
    one, two, three = (Provider(name, OPENAI) for name in ("one", "two", "three"))
    tonight = next_run(one)
    examined = [
        ProviderExamination(one, OPENAI, tonight, organization="org-a"),
        ProviderExamination(two, OPENAI, tonight, organization="org-b"),
        ProviderExamination(three, OPENAI, tonight, organization="org-a"),
    ]
    (shared,) = shared_organizations(examined)
    assert "`one` and `three` are at" in shared.message


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (response(403, FORBIDDEN), "warning", "(the admin key)"),
        (response(404, {"code": 404, "message": "The project proj_1 was not found"}), "warning", "was not found"),
        (response(500, {"error": {"message": "oops"}}), "ok", "not checked (`lab`: oops"),
        (listing(), "ok", "proj_1 states none for `gpt-image-2`"),
        (listing({"model": MODEL, "max_requests_per_1_minute": 0}), "problem", "may make no call with `gpt-image-2`"),
        (listing({"model": f"{MODEL}-2026-04-21", "max_images_per_1_minute": 7}), "problem", "may make 7 images"),
    ],
)
async def test_what_the_admin_api_answers_about_limits_is_understood(answer: bytes, status: str, words: str) -> None:
    async with scripted(answer) as server:
        provider = Provider("lab", server.url, project="proj_1")
        tonight = replace(next_run(provider), environment={"OPENAI_ADMIN_KEY": "sk-admin-1"})
        found = await check_organization(tonight, provider, server.url)
    (limit,) = (one for one in found if one.name == "limit")
    assert limit.status == status
    assert words in limit.message


async def test_a_model_that_the_project_may_not_use_is_found_although_it_is_listed() -> None:
    def answer(request: Request) -> bytes:
        permissions = {"mode": "allow_list", "model_ids": ["dall-e-3"]}
        return response(200, permissions) if "model_permissions" in request.line else listing()

    async with scripted(answer) as server:
        provider = Provider("lab", server.url, project="proj_1")
        tonight = replace(next_run(provider), environment={"OPENAI_ADMIN_KEY": "sk-admin-1"})
        found = await check_organization(tonight, provider, server.url)
    assert said(found, "models") == ["problem: `lab`: proj_1 may not use `gpt-image-2`"]


async def test_no_admin_key_goes_to_another_vendor() -> None:
    provider = Provider("lab", "https://api.x.ai/v1")
    tonight = replace(next_run(provider), environment={"OPENAI_ADMIN_KEY": "sk-admin-1"})
    found = await check_organization(tonight, provider, "http://127.0.0.1:1/v1")
    assert {one.message for one in found} == {"not checked (`lab`: not an organization at OpenAI)"}


def test_open_files_are_compared_with_the_calls_that_are_useful(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Provider("lab", OPENAI, rate_limit=None, concurrency=500)
    (enough,) = check_open_files(next_run(provider, images=10_000))
    assert enough.status == "ok"
    monkeypatch.setattr(machine_checks, "raise_descriptor_limit", lambda: 256)
    (few,) = check_open_files(next_run(provider, images=10_000))
    assert (few.status, few.do) == ("warning", "allow more with `ulimit -n 1064`")
    slow = Provider("lab", OPENAI, rate_limit=RateLimit(5, 60))  # at most 50 calls at a time
    assert next(check_open_files(next_run(slow, images=10_000))).status == "ok"


def test_a_price_of_another_vendor_is_a_warning_and_a_missing_one_as_well() -> None:
    cheap = {MODEL: {"prices": {"per_million": {"image_out": 3}}}}
    elsewhere = Provider("lab", "https://gateway.example.org/v1", own_models=cheap)
    (other,) = check_prices(next_run(elsewhere))
    assert other.status == "warning"
    assert "unless they are what `lab` bills" in str(other.do)
    (wrong,) = check_prices(next_run(Provider("lab", OPENAI, own_models=cheap)))
    assert wrong.status == "problem"
    (missing,) = check_prices(next_run(Provider("lab", OPENAI, own_models={MODEL: {"prices": None}})))
    assert (missing.status, missing.do) == (
        "warning",
        "write its `prices` under `models: {gpt-image-2: …}` in the config",
    )


def test_a_budget_of_a_job_without_a_price_is_not_compared() -> None:
    (unknown,) = check_budgets(next_run(Provider("lab", OPENAI), usd=None, budget_usd=1.0))
    assert unknown.message == "not checked (night: its cost is unknown)"


@pytest.mark.parametrize("rehearsal", [False, True])
def test_a_budget_stops_a_rehearsal_as_it_stops_any_job(rehearsal: bool) -> None:
    (stopped,) = check_budgets(next_run(Provider("lab", OPENAI), usd=2.0, budget_usd=1.0, rehearsal=rehearsal))
    assert (stopped.status, stopped.do) == ("warning", "raise `budget_usd` in the job file, or add --budget 2.00")
    (none,) = check_budgets(replace(next_run(Provider("lab", OPENAI)), jobs=[]))
    assert none.message == "not checked (there is no job)"


def test_checks_are_lines_and_an_exit_code() -> None:
    checks = [well("a", "fine"), warning("b", "low", "raise it")]
    assert [check_line(one) for one in checks] == ["a: ok: fine", "b: warning: low; to fix it: raise it"]
    assert check_line(not_checked("d", "no key (yet)")) == "d: skipped: no key (yet)"
    assert [exit_code(checks, strict=strict) for strict in (False, True)] == [0, 1]
    assert exit_code([*checks, problem("c", "bad", "fix it")], strict=False) == 2


async def test_the_advice_for_a_variable_that_is_unset_is_printed_once() -> None:
    headers = {"X-Tenant": EnvironmentVariable("TENANT")}
    for api_key_env, words in (
        ("OTHER_KEY", "its key from $OTHER_KEY"),
        ("LAB_KEY", "its header X-Tenant from $TENANT"),
    ):
        provider = Provider("lab", OPENAI, api_key_env=api_key_env, headers=headers)
        (unset,) = await ProviderExamination(provider, OPENAI, next_run(provider)).run()
        variable, what = words.rpartition("$")[2], "key" if api_key_env == "OTHER_KEY" else "value"
        advice = f"to fix it: export {variable}=… with the whole {what}"
        assert check_line(unset) == f"key: problem: provider `lab` takes {words}, which is unset or empty; {advice}"
    about = next_run(Provider("lab", OPENAI))
    config = replace(about.config, notify=NotificationSettings(EnvironmentVariable("HOOK")))
    (unset,) = await check_notifications(replace(about, config=config), send=True)
    assert unset.message == "`notify` takes its webhook from $HOOK, which is unset or empty"
    assert unset.do == "export HOOK=… with the whole value"


def sample(**more: Any) -> Sample:
    facts: dict[str, Any] = {"params": {"size": "64x32"}, "cost_usd": 1.0, "estimate_usd": 1.0, "by_batch": False}
    facts |= {"images": (SampleImage(64, 32, "png"),), "served_by": "generation", "prompt": "a cat", **more}
    return Sample("night", "lab", "cat", "succeeded", error_kind=None, error_message=None, **facts)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, None),
        ({"cost_usd": 1.19}, None),
        ({"cost_usd": 1.21}, "cost $1.21, and the estimate was $1.00"),
        ({"cost_usd": 0.79}, "cost $0.79, and the estimate was $1.00"),
        ({"cost_usd": None}, None),
        ({"estimate_usd": None}, None),
        ({"cost_usd": 0.5, "by_batch": True}, None),
        ({"images": (SampleImage(32, 64, "png"),)}, "came in 32x64, and 64x32 was asked for"),
        ({"images": (SampleImage(64, 32, "png"), SampleImage(64, 64, "png"))}, "came in 64x64"),
        ({"params": {"size": "auto"}}, None),
        ({"params": {"output_format": "jpeg"}}, "came as png, and jpeg was asked for"),
        ({"params": {"output_format": "jpg"}, "images": (SampleImage(64, 32, "jpeg"),)}, None),
        ({"images": (SampleImage(None, None, "svg"),)}, None),
    ],
)
def test_a_sample_is_compared_with_what_was_asked_for(more: dict[str, Any], words: str | None) -> None:
    fault = find_fault(sample(**more), None, exact_size=True)
    assert (fault is None) == (words is None)
    assert fault is None or (words or "") in fault.what


def test_of_a_server_with_aspect_ratios_only_the_shape_counts_and_an_assumption_may_cost_less() -> None:
    larger = sample(images=(SampleImage(128, 64, "png"),))
    assert find_fault(larger, None, exact_size=False) is None
    assert find_fault(sample(images=(SampleImage(64, 64, "png"),)), None, exact_size=False) is not None
    assert find_fault(sample(cost_usd=0.5), 0.6, exact_size=True) is None
    assert find_fault(sample(cost_usd=0.4), 0.6, exact_size=True) is not None


async def test_a_resolver_that_does_not_answer_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over, provider = threading.Event(), Provider("lab", OPENAI, api_key_env="LAB_KEY")
    monkeypatch.setattr(daemon_thread, "NAME_SECONDS", 0.05)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_args, **_more: over.wait(2))
    fault = await daemon_thread.name_fault(OPENAI)
    assert fault == "the name api.openai.com was not resolved within 0.05 s"
    checks = await ProviderExamination(provider, OPENAI, next_run(provider)).run(fault)
    assert said(checks, "server") == [f"problem: `lab`: {fault}"]
    over.set()
