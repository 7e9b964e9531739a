"""Reading `notify:` names every mistake and repeats no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.config.environment import EnvironmentVariable
from pipeline.config.notifications import NotificationSettings
from pipeline.errors import ConfigError
from tests.support.readme import PACKAGE
from tests.unit.test_config import read, refusal

if TYPE_CHECKING:
    from pathlib import Path


def notify(folder: Path, text: str) -> NotificationSettings:
    """Return the settings that `notify:` is read as."""
    found = read(folder, f"notify: {text}").notify
    assert found is not None
    return found


def test_without_it_nobody_is_told(tmp_path: Path) -> None:
    assert read(tmp_path, "output: x").notify is None


def test_every_key_is_read(tmp_path: Path) -> None:
    assert notify(
        tmp_path,
        "{webhook: {env: HOOK}, template: ntfy, headers: {Authorization: {env: AUTH}}, command: [tell, me],"
        " on: [stop, pause], pause_minutes: 5}",
    ) == NotificationSettings(
        webhook=EnvironmentVariable("HOOK"),
        template="ntfy",
        headers={"Authorization": EnvironmentVariable("AUTH")},
        command=("tell", "me"),
        on=frozenset({"stop", "pause"}),
        pause_minutes=5.0,
    )


def test_the_readme_s_example_is_read(tmp_path: Path) -> None:
    readme = (PACKAGE / "config" / "README.md").read_text()
    block = readme.partition("## Notifications\n\n```yaml config\n")[2].partition("```")[0]
    told = read(tmp_path, block).notify
    assert told is not None
    assert (told.webhook, told.template, told.command) == (
        EnvironmentVariable("NTFY_URL"),
        "ntfy",
        ("/usr/local/bin/tell",),
    )


def test_what_is_left_out_is_as_the_readme_says(tmp_path: Path) -> None:
    plain = notify(tmp_path, "{webhook: 'http://x/y'}")
    assert (plain.template, sorted(plain.on), plain.pause_minutes) == ("json", ["end", "pause", "stop"], 15.0)
    assert plain.webhook_url({}) == "http://x/y"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{webhok: x}", "config.yaml, line 1, notify.webhok: unknown key `webhok`; did you mean `webhook`?"),
        ("{template: slak, command: [x]}", "`slak` is not known; did you mean `slack`?"),
        ("{on: [ends], command: [x]}", "`ends` is not known; did you mean `end`?"),
        ("{on: end, command: [x]}", "must be a list of end, stop, pause"),
        ("{on: [stop]}", "has no recipient"),
        ("{command: notify-send hello}", "must be a list of words"),
        ("{command: []}", "must be a list of words"),
        ("{command: [x], pause_minutes: -1}", "at least 0"),
        ("{webhook: 'https://x/y', headers: {Authorization: Bearer secret}}", "keys are never written in files"),
        ("{webhook: {env: NOT-A-NAME}}", "must be a URL"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, f"notify: {text}")


@pytest.mark.parametrize("address", ["hooks.x/secret", "ftp://x/secret", "https://", "https://x/a secret", "https://["])
def test_what_is_no_address_is_refused_and_not_repeated(tmp_path: Path, address: str) -> None:
    said = refusal(tmp_path, f"notify: {{webhook: '{address}'}}")
    assert "must be a URL like https://" in said
    assert "secret" not in said
    named = notify(tmp_path, "{webhook: {env: HOOK}}")
    for wrong in (
        '"https://hooks.example/secret"',
        "'https://hooks.example/secret",
        "HOOK=https://hooks.example/secret",
    ):
        with pytest.raises(ConfigError, match=r"\$HOOK, which begins") as caught:
            named.webhook_url({"HOOK": wrong})
        assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"\$HOOK, which does not hold a URL") as caught:
        named.webhook_url({"HOOK": address})
    assert "secret" not in str(caught.value)


def test_ntfy_needs_its_topic(tmp_path: Path) -> None:
    assert "like https://ntfy.sh/TOPIC" in refusal(tmp_path, "notify: {webhook: 'https://ntfy.sh/', template: ntfy}")


def test_what_stands_in_the_environment_is_read_from_there_and_demanded(tmp_path: Path) -> None:
    named = notify(tmp_path, "{webhook: {env: HOOK}, headers: {X-Key: {env: AUTH}}}")
    assert named.webhook_url({"HOOK": "https://x/y"}) == "https://x/y"
    assert named.header_values({"AUTH": "z"}) == {"X-Key": "z"}
    with pytest.raises(ConfigError, match=r"its webhook from \$HOOK, which is unset or empty"):
        named.webhook_url({})
    with pytest.raises(ConfigError, match=r"its header X-Key from \$AUTH"):
        named.header_values({})
