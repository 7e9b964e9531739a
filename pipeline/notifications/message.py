"""Composes notifications of a run's end, stop or long pause: text for people, fields for scripts, webhook bodies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.progress.event_text import one_line
from pipeline.reports.advice import stop_advice
from pipeline.reports.batches import left_out_lines
from pipeline.reports.facts import clock, counted, job_line
from pipeline.reports.status import status_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.errors import Stop
    from pipeline.ledger.job_summary import JobSummary

_MOST_JOBS = 10  # that get a line
_DISCORD_CHARACTERS = 2000  # that a message there may have
_NTFY_BYTES = 3000  # of its 4096, above which it becomes an attachment


@dataclass(frozen=True, slots=True)
class Message:
    """One notification. `moment` is end, stop or pause; `facts` are for scripts."""

    moment: str
    title: str
    text: str
    facts: Mapping[str, Any]


def end_message(
    exit_code: int, summaries: Sequence[JobSummary], stops: Sequence[Stop], signal: str | None, command: str
) -> Message:
    """Return the message about how a run ended, how to fix it, and what continues it if requests are left."""
    reasons = [stop.message for stop in stops]
    stopped = exit_code not in {0, 1}
    failed = sum(summary.unsuccessful for summary in summaries)
    in_batches = sum(summary.in_batches.requests for summary in summaries)
    left = sum(summary.unfinished for summary in summaries) - in_batches
    out = left_out_lines(summaries, command)
    images = sum(summary.images for summary in summaries)
    names = summaries[0].name if len(summaries) == 1 else f"{len(summaries)} jobs"
    how = "waits for batches" if out and not stops and signal is None else "stopped" if stopped else "ended"
    title = f"{how}: {names}, {counted(images, 'image')}" + (f", {failed:,} failed" * bool(failed))
    lines = [*(one_line(reason) for reason in dict.fromkeys(reasons)), *([f"by {signal}"] if signal else [])]
    lines += [job_line(summary) for summary in summaries[:_MOST_JOBS]]
    lines += [f"and {len(summaries) - _MOST_JOBS} more jobs"] * (len(summaries) > _MOST_JOBS)
    lines += [f"to fix it: {advice}" for advice in stop_advice(stops)]
    lines += out
    lines += [f"{counted(left, 'request')} still queued; to continue, type: {command}"] * bool(left)
    facts = {"exit": exit_code, "signal": signal, "stops": reasons, **status_json(summaries, living_only=True)}
    return _message("stop" if stopped else "end", title, lines, {**facts, "command": command if left or out else None})


def failure_message(error: BaseException, command: str) -> Message:
    """Return the message that an error ended a run."""
    reason = one_line(str(error) or type(error).__name__)
    exit_code = getattr(error, "exit_code", 70)
    facts = {"exit": exit_code, "signal": None, "stops": [reason], "jobs": [], "command": command}
    return _message("stop", "stopped by an error", [reason, f"to continue, type: {command}"], facts)


def pause_message(provider: str, reason: str, since: float, until: float | None) -> Message:
    """Return the message that a provider sends nothing: since when, until when if that is known, and why."""
    now = time.time()
    end = "" if until is None else f", until {clock(until, now)}"
    title = f"paused: no images from {provider} since {clock(since, now)}{end}"
    return _message("pause", title, [one_line(reason)], {"provider": provider, "since": since, "until": until})


def trial_message(command: str) -> Message:
    """Return the message by which `pipeline doctor` tries whether notifications arrive."""
    text = f"notifications of `{command}` arrive; nothing has run"
    return _message("end", "a trial by pipeline doctor", [text], {"exit": 0, "signal": None, "stops": [], "jobs": []})


def _message(moment: str, title: str, lines: Sequence[str], facts: Mapping[str, Any]) -> Message:
    text = "\n".join(lines)
    return Message(moment, title, text, {"moment": moment, "title": title, "text": text, **facts})


def body_of(message: Message, template: str, topic: str) -> dict[str, Any]:
    """Return what is sent as JSON: the facts, or the text in the format of ntfy (for a `topic`), Slack or Discord."""
    if template == "ntfy":
        text = message.text.encode()[:_NTFY_BYTES].decode(errors="ignore")
        urgency = {"priority": 4, "tags": ["warning"]} if message.moment != "end" else {"tags": ["frame_with_picture"]}
        return {"topic": topic, "title": message.title, "message": text, **urgency}
    if template == "slack":
        title, text = (_for_slack(words) for words in (message.title, message.text))
        return {"text": f"*{title}*\n{text}"}
    if template == "discord":
        content = f"**{message.title}**\n{message.text}"
        return {
            "content": content[:_DISCORD_CHARACTERS],
            "allowed_mentions": {"parse": []},
        }  # mentions nobody
    return dict(message.facts)


def _for_slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
