"""The admin API: its client beside the sandbox's own, and who is sent the admin key."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from pipeline.client.organization import OrganizationClient, ProjectRateLimit, SpendLimit, open_admin_session
from pipeline.config.organization import has_admin_api, read_admin_key, read_project
from pipeline.config.provider import Provider
from pipeline.errors import ConfigError, KeyRefused, WrongPath
from tests.support.sandbox_client import calling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = "sk-admin-0123456789"
PROJECT = "proj_sandbox"


@contextlib.asynccontextmanager
async def asking(folder: Path, key: str = KEY, **organization: object) -> AsyncIterator[OrganizationClient]:
    async with (
        calling(folder, organization=organization) as caller,
        open_admin_session(caller.sandbox.base_url, key, timeout=10) as session,
    ):
        yield OrganizationClient(session)


async def test_rate_limits_are_the_planted_ones_and_else_those_of_the_sandbox(tmp_path: Path) -> None:
    planted = {"gpt-image-2": 20, "gpt-image-2.6-flare": 0, "dall-e-3": None}
    async with asking(tmp_path, rate_limits=planted) as client:
        limits = {one.model: one for one in await client.rate_limits(PROJECT)}
    assert limits["gpt-image-2"] == ProjectRateLimit("gpt-image-2", 20, 10_000)
    assert limits["gpt-image-2.6-flare"].images_per_minute == 0
    assert limits["dall-e-2"].images_per_minute == 50
    assert "dall-e-3" not in limits


async def test_a_list_of_several_pages_is_read_to_its_end(tmp_path: Path) -> None:
    many = {f"model-{number}": number for number in range(250)}
    async with asking(tmp_path, rate_limits=many) as client:
        limits = {one.model: one.images_per_minute for one in await client.rate_limits(PROJECT)}
    assert {name: limits[name] for name in many} == many


async def test_model_permissions_name_what_is_denied(tmp_path: Path) -> None:
    async with asking(tmp_path, denied_models=["dall-e-3"]) as client:
        permissions = await client.model_permissions(PROJECT)
    assert permissions is not None
    assert [permissions.allows(name) for name in ("dall-e-3", "gpt-image-2")] == [False, True]


async def test_spend_limits_are_in_dollars_and_may_be_missing(tmp_path: Path) -> None:
    async with asking(tmp_path, spend_limit_usd=12.5) as client:
        assert await client.spend_limit() == SpendLimit(12.5, is_enforced=True)
        assert await client.spend_limit(PROJECT) is None


@pytest.mark.parametrize(
    ("key", "kind", "words"),
    [
        ("sk-project-0123456789", KeyRefused, "Missing scopes"),
        ("bad-admin-key", KeyRefused, "Incorrect API key"),
    ],
)
async def test_a_key_that_is_no_admin_key_is_refused(
    tmp_path: Path, key: str, kind: type[KeyRefused], words: str
) -> None:
    async with asking(tmp_path, key) as client:
        with pytest.raises(kind, match=words) as refused:
            await client.rate_limits(PROJECT)
    assert key not in str(refused.value)


async def test_the_admin_key_of_the_settings_is_the_only_one(tmp_path: Path) -> None:
    async with asking(tmp_path, admin_key="sk-admin-another") as client:
        with pytest.raises(KeyRefused):
            await client.rate_limits(PROJECT)


async def test_an_unknown_project_is_named(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        with pytest.raises(WrongPath, match="project proj_other was not found"):
            await client.rate_limits("proj_other")


@pytest.mark.parametrize(
    ("base_url", "project", "expected"),
    [
        ("https://api.openai.com/v1", None, True),
        ("http://127.0.0.1:8123/v1", None, True),
        ("https://openai.com.example.org/v1", None, False),
        ("https://api.x.ai/v1", None, False),
        ("https://gateway.example.org/v1", "proj_1", True),
        ("http://gateway.lan/v1", "proj_1", False),
    ],
)
def test_the_admin_key_is_sent_to_openai_and_to_hosts_with_a_project(
    base_url: str, project: str | None, *, expected: bool
) -> None:
    provider = Provider("lab", base_url, project=project)
    assert has_admin_api(provider) is expected
    assert (read_admin_key(provider, {"OPENAI_ADMIN_KEY": KEY}) == KEY) is expected


def test_key_and_project_come_from_the_environment_and_a_sandbox_gets_neither() -> None:
    provider, environment = Provider("openai", "https://api.openai.com/v1"), {"OPENAI_PROJECT_ID": " proj_2 "}
    assert (read_admin_key(provider, environment), read_project(provider, environment)) == (None, "proj_2")
    assert read_project(Provider("openai", None, project="proj_1"), environment) == "proj_1"
    with pytest.raises(ConfigError, match="OPENAI_ADMIN_KEY, which holds a space"):
        read_admin_key(provider, {"OPENAI_ADMIN_KEY": "two words"})
    sandbox = Provider("sandbox", None, sandbox={"organization": {"admin_key": "sk-admin-own"}})
    environment["OPENAI_ADMIN_KEY"] = KEY
    assert (read_admin_key(sandbox, environment), read_project(sandbox, environment)) == ("sk-admin-own", PROJECT)
