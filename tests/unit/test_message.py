"""Notifications of an end, a stop and a pause, in the format of each template."""

from __future__ import annotations

import time

from pipeline.errors import DiskFull, QuotaSpent
from pipeline.notifications.message import body_of, end_message, failure_message, pause_message
from tests.unit.test_from_events import summary

LOUNGE = summary("lounge", pending=3, cost=1.5)


def test_an_end_says_what_is_there_and_a_stop_how_to_go_on() -> None:
    end = end_message(1, [summary("lounge", pending=0)], [], None, "pipeline run")
    assert (end.moment, end.title) == ("end", "ended: lounge, 0 images")
    assert end.facts["command"] is None
    stop = end_message(3, [LOUNGE, summary("birds", 2)], [QuotaSpent("no\nmoney")], None, "pipeline run")
    assert (stop.moment, stop.title) == ("stop", "stopped: 2 jobs, 0 images")
    assert stop.text.splitlines() == [
        "no money",
        "lounge: 3 requests: 3 pending; 0 images; $1.50 spent",
        "birds: 2 requests: 2 pending; 0 images",
        "to fix it: top up the account at the provider, or raise its limit",
        "5 requests still queued; to continue, type: pipeline run",
    ]
    assert (stop.facts["exit"], stop.facts["stops"], stop.facts["command"]) == (3, ["no\nmoney"], "pipeline run")
    assert [job["name"] for job in stop.facts["jobs"]] == ["lounge", "birds"]
    assert "by SIGTERM" in end_message(143, [LOUNGE], [], "SIGTERM", "pipeline run").text


def test_hundreds_of_jobs_are_no_message() -> None:
    text = end_message(0, [summary(f"job-{k}") for k in range(300)], [], None, "pipeline run").text
    assert "and 290 more jobs" in text
    assert len(text) < 1000


def test_an_error_that_ends_a_run_is_a_stop() -> None:
    message = failure_message(DiskFull("no room"), "pipeline run")
    assert (message.moment, message.facts["exit"]) == ("stop", 3)
    assert "no room" in message.text
    assert failure_message(ZeroDivisionError(), "pipeline run").facts["exit"] == 70


def test_a_pause_says_since_when_until_when_and_why() -> None:
    since = time.time()
    message = pause_message("lab", "slow\ndown", since, since + 60)
    assert message.title.startswith("paused: no images from lab since ")
    assert ", until " in message.title
    assert message.text == "slow down"
    assert (message.facts["provider"], message.facts["until"]) == ("lab", since + 60)
    assert "until" not in pause_message("lab", "gone", since, None).title


def test_each_template_has_its_own_form() -> None:
    message = end_message(3, [LOUNGE], [QuotaSpent("@everyone <a> & b" + "ü" * 5000)], None, "pipeline run")
    assert body_of(message, "json", "")["exit"] == 3
    ntfy = body_of(message, "ntfy", "night")
    assert (ntfy["topic"], ntfy["title"], ntfy["priority"]) == ("night", message.title, 4)
    assert len(ntfy["message"].encode()) <= 3000
    assert "priority" not in body_of(end_message(0, [], [], None, ""), "ntfy", "night")
    assert body_of(message, "slack", "")["text"].startswith("*stopped: lounge, 0 images*\n@everyone &lt;a&gt; &amp; …")
    discord = body_of(message, "discord", "")
    assert len(discord["content"]) <= 2000
    assert discord["allowed_mentions"] == {"parse": []}
