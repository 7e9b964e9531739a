"""A run's end, stop or long pause → a notice: words for people, facts for scripts, and the body of a webhook's POST."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.progress.event_text import one_line
from pipeline.progress.view import clock
from pipeline.reports.status import standing_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.ledger.job_summary import Account

_MOST_JOBS = 10
_DISCORD_CHARACTERS = 2000  # that a message there may have
_NTFY_BYTES = 3000  # of its 4096, above which it becomes an attachment


@dataclass(frozen=True, slots=True)
class Notice:
    """What people are told. `moment` is end, stop or pause."""

    moment: str
    title: str
    text: str
    facts: Mapping[str, Any]


def end_notice(
    exit_code: int, accounts: Sequence[Account], stops: Sequence[str], signal: str | None, command: str
) -> Notice:
    """Say how a run ended, and what goes on with it where it has not come to its end."""
    stopped = exit_code not in {0, 1}
    failed, left = sum(one.unsuccessful for one in accounts), sum(one.unfinished for one in accounts)
    images = sum(one.images for one in accounts)
    names = accounts[0].name if len(accounts) == 1 else f"{len(accounts)} jobs"
    title = f"{'stopped' if stopped else 'ended'}: {names}, {images:,} images" + (f", {failed:,} failed" * bool(failed))
    lines = [*(one_line(stop) for stop in dict.fromkeys(stops)), *([f"by {signal}"] if signal else [])]
    lines += [_job_line(account) for account in accounts[:_MOST_JOBS]]
    lines += [f"and {len(accounts) - _MOST_JOBS} jobs more"] * (len(accounts) > _MOST_JOBS)
    lines += [f"{left:,} requests are still queued; to go on: {command}"] * bool(left)
    facts = {"exit": exit_code, "signal": signal, "stops": list(stops), **standing_json(accounts)}
    return _notice("stop" if stopped else "end", title, lines, {**facts, "command": command if left else None})


def broken_notice(error: BaseException, command: str) -> Notice:
    """Say that an error ended a run."""
    said = one_line(str(error) or type(error).__name__)
    exit_code = getattr(error, "exit_code", 70)
    facts = {"exit": exit_code, "signal": None, "stops": [said], "jobs": [], "command": command}
    return _notice("stop", "stopped by an error", [said, f"to go on: {command}"], facts)


def pause_notice(provider: str, reason: str, since: float, until: float | None) -> Notice:
    """Say that nothing comes from a provider any more: since when, until when where that is known, and why."""
    now = time.time()
    end = "" if until is None else f", until {clock(until, now)}"
    title = f"paused: nothing from {provider} since {clock(since, now)}{end}"
    return _notice("pause", title, [one_line(reason)], {"provider": provider, "since": since, "until": until})


def _notice(moment: str, title: str, lines: Sequence[str], facts: Mapping[str, Any]) -> Notice:
    text = "\n".join(lines)
    return Notice(moment, title, text, {"moment": moment, "title": title, "text": text, **facts})


def _job_line(account: Account) -> str:
    counts = ", ".join(f"{number:,} {status}" for status, number in account.counts.items() if number)
    cost = "" if account.cost_usd is None else f"; ${account.cost_usd:.2f}{' in rehearsal' * account.rehearsal}"
    return f"{account.name}: {account.images:,} images; {counts}{cost}"


def body_of(notice: Notice, template: str, topic: str) -> dict[str, Any]:
    """Give what is sent as JSON: the facts, or the words in the form of ntfy (to a `topic`), Slack or Discord."""
    if template == "ntfy":
        text = notice.text.encode()[:_NTFY_BYTES].decode(errors="ignore")
        urgency = {"priority": 4, "tags": ["warning"]} if notice.moment != "end" else {"tags": ["frame_with_picture"]}
        return {"topic": topic, "title": notice.title, "message": text, **urgency}
    if template == "slack":
        title, text = (_for_slack(words) for words in (notice.title, notice.text))
        return {"text": f"*{title}*\n{text}"}
    if template == "discord":
        content = f"**{notice.title}**\n{notice.text}"
        return {"content": content[:_DISCORD_CHARACTERS], "allowed_mentions": {"parse": []}}  # prompts call nobody
    return dict(notice.facts)


def _for_slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
