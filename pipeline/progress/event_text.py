"""Writes an event as a line for people, or as plain values for scripts."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import TYPE_CHECKING, Any

from pipeline.engine import events, worker_events
from pipeline.engine.control_events import Held, Reprioritised, Throttled
from pipeline.engine.events import CallEnded, CallSent, RequestEnded
from pipeline.errors import RequestError
from pipeline.ledger.error_kind import error_fields
from pipeline.planning.mode import local_time
from pipeline.printable import printable
from pipeline.progress.batch_waves import BAD_ENDS, BatchEvent, BatchWave
from pipeline.progress.view import thumbnails_made
from pipeline.reports.facts import clock, counted, dollars, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.engine.events import Event


def describe(event: Event | BatchWave) -> str:
    """Return an event in one line: a glyph for its kind, then who and what. Control characters are escaped."""
    if isinstance(event, BatchWave):
        return printable(_describe_batches(event.events))
    if isinstance(event, BatchEvent):
        return printable(_describe_batches([event]))
    return printable(_describe(event))


def _describe(event: Event) -> str:
    match event:
        case CallSent(job, id_, provider, images):
            return f"→ {job}/{id_}: {images} requested from {provider}"
        case CallEnded(job, id_, _, seconds, _, None):
            return f"← {job}/{id_}: response after {seconds:.1f} s"
        case CallEnded(job, id_, _, seconds, _, error):
            return f"! {job}/{id_}: {_error_text(error)} after {seconds:.1f} s"
        case events.ImageStored(_, _, file, _):
            return f"• {file}"
        case events.Retrying(job, id_, seconds, error):
            return f"↻ {job}/{id_}: retry {_in_or_at(seconds)}: {_error_text(error)}"
        case RequestEnded(job, id_, status, error):
            return f"{'✓' if status == 'succeeded' else '✗'} {job}/{id_}: {status}" + (
                f": {_error_text(error)}" if error else ""
            )
    return _describe_run(event)


def _in_or_at(seconds: float) -> str:
    if seconds < 60:
        return f"in {seconds:.1f} s"
    return f"at {time.strftime('%H:%M:%S', time.localtime(time.time() + seconds))}"


def _describe_run(event: Event) -> str:
    """Return the line of an event that is about the run, or about a provider."""
    match event:
        case events.RunStarted(jobs):
            return f"▶ processing {', '.join(jobs[:10])}" + (f" and {len(jobs) - 10} more" if len(jobs) > 10 else "")
        case events.ProviderPace():
            return _describe_pace(event)
        case events.KeyExposed(provider, host):
            return f"! {provider}: the key is sent to {host} without encryption; use https://, or set `insecure: true`"
        case events.NotificationFailed(how, reason):
            return f"! notification by {how} failed: {one_line(reason)}"
        case events.Stopping(signal):
            return f"■ {signal}: no further calls; calls in flight finish, a second signal stops at once"
        case events.ThumbnailsMade(job, made, total):
            return f"• {job}: {thumbnails_made(made, total)}"
        case events.BackupFailed(error):
            return f"! the ledger could not be copied, and the run goes on: {_stop_text(error)}"
        case events.ImagesFound(adopted, unknown):
            return f"! images on disk that the ledger did not know: {'; '.join(_found(adopted, unknown))}"
        case Held() | Throttled() | Reprioritised():
            return _describe_control(event)
        case events.Stopped(what, error):
            return f"■ no further calls for {what}: {_stop_text(error)}"
    return _describe_workers(event)


def _describe_workers(event: Event) -> str:
    """Return the line of an event that is about workers on other machines."""
    match event:
        case worker_events.WorkersReady(ready, asked, nodes):
            of = "" if ready == asked else f" of {asked}"
            return f"▶ {ready}{of} worker{'s' * (asked != 1)} ready, on {counted(nodes, 'node')}"
        case worker_events.WorkerLost(name, node, pid, calls, reason):
            lost = f"; {counted(calls, 'call')} of unknown outcome" if calls else ""
            return f"! worker {name} (process {pid} on {node}) was lost{lost}: {one_line(reason)}"
        case worker_events.NodeRefused(node, reason):
            return f"! node {node} is not used: {one_line(reason)}"
        case worker_events.AwaitingLeases(seconds):
            return f"‖ workers of a run that was killed may send calls for {seconds:.0f} s more; waiting"
        case worker_events.EngineOutput(line):
            return f"~ Ray: {one_line(line)}"
    return _describe_provider(event)


def _describe_control(event: Held | Throttled | Reprioritised) -> str:
    """Return the line of an event about what people have set."""
    match event:
        case Held(provider, True, reason, until):
            return f"‖ {provider}: no call is sent{'' if until is None else f' until {local_time(until)}'}: {reason}"
        case Held(provider):
            return f"▶ {provider}: calls are sent again"
        case Throttled(provider, images, per_seconds, reason):
            return f"~ {provider}: {images} images per {per_seconds:g} s from now on: {reason}"
        case Reprioritised(job, priority):
            return f"~ {job} has priority {priority} from now on"


def _found(adopted: int, unknown: int) -> Iterator[str]:
    if adopted:
        yield f"{adopted:,} recorded again, and not paid again"
    if unknown:
        yield f"{unknown:,} left as they are; to list them, run: pipeline verify"


def _describe_provider(event: Event) -> str:
    """Return the line of an event that is about a provider."""
    match event:
        case events.Paused(provider, seconds, reason):
            return f"‖ {provider} asks for a pause of {seconds:.1f} s: {one_line(reason)}"
        case events.LimitLowered(provider, images, per_seconds, reason, model):
            of = f" of {model}" if model else ""
            return f"▼ {provider} allows only {images} images{of} per {per_seconds:g} s: {one_line(reason)}"
        case events.ImagesLeftOut(job, name, provider, returned, left_out):
            kept = f"the first {returned - left_out} are kept, {left_out:,} are not"
            return f"! {job}/{name}: a response of {provider} has {returned:,} images: {kept}"
        case events.UsageIgnored(provider, model, stated, counted):
            price = "" if counted is None else f": ${counted:.4f}"
            share = "less than a tenth of its price in the table; the table's price is counted"
            return f"! {provider} reports a usage worth ${stated:.4f} for {model}, {share}{price}"
        case events.ProviderDown(provider, reason, None, moment):
            end = "" if moment is None else f" until {clock(moment, time.time())}"
            return f"‖ {provider} is down; waiting, and trying again now and then{end}: {one_line(reason)}"
        case events.ProviderDown(provider, reason, until):
            end = time.strftime("%H:%M:%S", time.localtime(until))
            return f"‖ {provider} is down and asks to wait until {end}: {one_line(reason)}"
        case events.StoreSilent(_, reason):
            return f"‖ paid images wait on this disk for the object store: {one_line(reason)}"
        case events.StoreAnswers(root, seconds):
            return f"▶ {root} takes images again after {seconds:.0f} s"
        case events.PurchasesHeld(provider, reason):
            return f"‖ {provider}: paid images do not arrive; nothing more is bought until one does: {one_line(reason)}"
        case events.PurchasesResumed(provider, seconds):
            return f"▶ {provider}: paid images arrive again after {seconds:.0f} s"
        case events.BatchLineIgnored(batch, reason):
            return f"! a line of batch {batch} is ignored: {one_line(reason)}"
        case events.ProviderUp(provider, seconds):
            return f"▶ {provider} is up again after {seconds:.0f} s"
    raise AssertionError(event)  # pragma: no cover - the match is complete


def _describe_batches(same: Sequence[BatchEvent]) -> str:
    """Return the line of events of one kind, each about another batch."""
    first = same[0]
    which = f"batch {first.id}" if len(same) == 1 else f"{len(same):,} batches"
    if isinstance(first, events.BatchSent):
        sent = [event for event in same if isinstance(event, events.BatchSent)]
        requests, images = sum(event.requests for event in sent), sum(event.images for event in sent)
        return f"→ {which}: {counted(requests, 'request')} for {counted(images, 'image')} sent to {first.provider}"
    if isinstance(first, events.BatchMoved):
        moved = [event for event in same if isinstance(event, events.BatchMoved)]
        completed, failed = sum(event.completed for event in moved), sum(event.failed for event in moved)
        glyph = "!" if first.status in BAD_ENDS else "~"
        return f"{glyph} {which}: {first.status}; {completed:,} made, {failed:,} failed"
    got = [event for event in same if isinstance(event, events.BatchCollected)]
    facts = {"made": sum(event.succeeded for event in got), "failed": sum(event.failed for event in got)}
    facts["returned to the queue"] = sum(event.returned for event in got)
    parts = [f"{number:,} {what}" for what, number in facts.items() if number or what == "made"]
    return f"← {which} collected: {', '.join([*parts, dollars(sum(event.cost_usd for event in got))])}"


def _describe_pace(pace: events.ProviderPace) -> str:
    limit = "no limit" if pace.images is None else f"{pace.images} images per {pace.per_seconds:g} s"
    until = "" if pace.until is None else f" until {time.strftime('%H:%M:%S', time.localtime(pace.until))}"
    return f"~ {pace.provider}: {pace.bottleneck or 'idle'}{until}, {limit}, {pace.downloads} downloads"


def event_json(event: Event) -> dict[str, Any]:
    """Return an event as plain values for JSON, with the moment at which it is written."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    fields = {field.name: _plain(field.name, getattr(event, field.name)) for field in dataclasses.fields(event)}
    return {"event": name, "at": rfc3339(time.time()), **fields}


def _plain(name: str, value: Any) -> Any:
    """Return a value for JSON: money with 6 decimals, seconds and other numbers with 3."""
    if isinstance(value, float):
        return round(value, 6 if name.endswith("_usd") else 3)
    if isinstance(value, RequestError):
        return error_fields(value)
    return value


def _error_text(error: RequestError | None) -> str:
    if error is None:
        return ""
    status = f"{error.http_status} " if error.http_status else ""
    code = error.code if error.code != str(error.http_status) else None  # gateways say the status twice
    return f"{status}{code or type(error).__name__}: {one_line(error.message)}"


def _stop_text(error: RequestError) -> str:
    """Return why nothing is sent any more, without the name of our class, which the sentence says in words."""
    stated = [str(code) for code in (error.http_status, error.code) if code]
    return ": ".join([*([" ".join(dict.fromkeys(stated))] if stated else []), one_line(error.message)])


def one_line(text: str, most: int = 300) -> str:
    """Return a text, such as a server's message, on one line; a longer one than `most` characters ends after a word."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    head = line[: most - 1]
    return f"{head.rpartition(' ')[0] or head} …"
