"""Every event is a line for people, and a line of JSON for scripts."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, get_args

from pipeline.engine.control_events import Held, Reprioritised, Throttled
from pipeline.engine.events import (
    BackupFailed,
    BatchCollected,
    BatchLineIgnored,
    BatchMoved,
    BatchSent,
    CallEnded,
    CallSent,
    Event,
    ImagesFound,
    ImagesLeftOut,
    ImageStored,
    KeyExposed,
    LimitLowered,
    NotificationFailed,
    Paused,
    ProviderDown,
    ProviderPace,
    ProviderUp,
    PurchasesHeld,
    PurchasesResumed,
    RequestEnded,
    Retrying,
    RunStarted,
    Stopped,
    Stopping,
    StoreAnswers,
    StoreSilent,
    ThumbnailsMade,
    UsageIgnored,
)
from pipeline.engine.worker_events import AwaitingLeases, EngineOutput, NodeRefused, WorkerLost, WorkersReady
from pipeline.errors import DiskFull, QuotaSpent, ServerFault, Unusable
from pipeline.printable import printable_json
from pipeline.progress.event_text import describe, event_json, one_line
from pipeline.reports.facts import clock

if TYPE_CHECKING:
    import pytest

BUSY = ServerFault("the server\n is busy", http_status=503)
UNTIL = time.mktime((2026, 11, 23, 6, 5, 4, 0, 0, -1))
EVENTS: list[Event] = [
    CallSent("lounge", "pool", "lab", 3),
    CallEnded("lounge", "pool", "lab", 1.25, 0.5, None),
    CallEnded("lounge", "pool", "lab", 1.25, None, BUSY),
    ImageStored("lounge", "pool", "lounge/images/pool-1.png"),
    Retrying("lounge", "pool", 2.0, BUSY),
    RequestEnded("lounge", "pool", "succeeded", None),
    RequestEnded("lounge", "pool", "failed", BUSY),
    Paused("lab", 3.0, "slow down"),
    LimitLowered("lab", 5, 60.0, "Limit: 5/1min"),
    Held("lab", held=True, reason="paused by a person", until=None),
    Held("lab", held=True, reason="outside its window", until=UNTIL),
    Held("lab", held=False, reason="paused by a person", until=None),
    Throttled("lab", 5, 60.0, "a person lowered the limit"),
    Reprioritised("lounge", -5),
    ProviderDown("lab", "no way"),
    ProviderUp("lab", 61.0),
    Stopping("SIGINT"),
    Stopped("provider `lab`", QuotaSpent("no money", http_status=429, code="insufficient_quota")),
    RunStarted(("lounge", "birds")),
    ProviderPace("lab", "paused", UNTIL, 50, 60.0, 2, UNTIL),
    ProviderPace("lab", "", None, None, None, 0, None),
    NotificationFailed("webhook", "timed\nout"),
    BackupFailed(DiskFull("no room left")),
    ImagesFound(7, 0),
    ImagesFound(0, 2),
    ImagesFound(7, 2),
    StoreSilent("s3://bucket", "503\nSlow Down"),
    StoreAnswers("s3://bucket", 61.0),
    PurchasesHeld("lab", "host\nunreachable"),
    PurchasesResumed("lab", 12.4),
    UsageIgnored("lab", "dall-e-9", 0.0001, 0.05268),
    ImagesLeftOut("lounge", "pool", "lab", 20_001, 19_801),
    KeyExposed("lab", "gpu.lan"),
    ProviderDown("lab", "no way", None, UNTIL),
    ThumbnailsMade("lounge", 612, 1800),
    BatchSent("batch_7", "lab", "gpt-image-2", 100, 120),
    BatchMoved("batch_7", "in_progress", 84, 1),
    BatchMoved("batch_7", "expired", 84, 1),
    BatchCollected("batch_7", 84, 0, 16, 1.25),
    BatchLineIgnored("batch_7", "it is not JSON"),
    AwaitingLeases(8.6),
    WorkersReady(8, 8, 4),
    WorkersReady(1, 2, 1),
    WorkerLost(3, "here", 17, 2, "the process\ndied"),
    WorkerLost(3, "here", 17, 0, "it does not answer"),
    NodeRefused("there", "has Python 3.12"),
    EngineOutput("raylet: no room"),
]


def test_every_event_has_a_line_of_its_own() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    lines = [describe(event) for event in EVENTS]
    assert lines == [
        "→ lounge/pool: 3 requested from lab",
        "← lounge/pool: response after 1.2 s",
        "! lounge/pool: 503 ServerFault: the server is busy after 1.2 s",
        "• lounge/images/pool-1.png",
        "↻ lounge/pool: retry in 2.0 s: 503 ServerFault: the server is busy",
        "✓ lounge/pool: succeeded",
        "✗ lounge/pool: failed: 503 ServerFault: the server is busy",
        "‖ lab asks for a pause of 3.0 s: slow down",
        "▼ lab allows only 5 images per 60 s: Limit: 5/1min",
        "‖ lab: no call is sent: paused by a person",
        "‖ lab: no call is sent until Mon 23 Nov 06:05: outside its window",
        "▶ lab: calls are sent again",
        "~ lab: 5 images per 60 s from now on: a person lowered the limit",
        "~ lounge has priority -5 from now on",
        "‖ lab is down; waiting, and trying again now and then: no way",
        "▶ lab is up again after 61 s",
        "■ SIGINT: no further calls; calls in flight finish, a second signal stops at once",
        "■ no further calls for provider `lab`: 429 insufficient_quota: no money",
        "▶ processing lounge, birds",
        "~ lab: paused until 06:05:04, 50 images per 60 s, 2 downloads",
        "~ lab: idle, no limit, 0 downloads",
        "! notification by webhook failed: timed out",
        "! the ledger could not be copied, and the run goes on: no room left",
        "! images on disk that the ledger did not know: 7 recorded again, and not paid again",
        "! images on disk that the ledger did not know: 2 left as they are; to list them, run: pipeline verify",
        (
            "! images on disk that the ledger did not know: 7 recorded again, and not paid again; 2 left as they are;"
            " to list them, run: pipeline verify"
        ),
        "‖ paid images wait on this disk for the object store: 503 Slow Down",
        "▶ s3://bucket takes images again after 61 s",
        "‖ lab: paid images do not arrive; nothing more is bought until one does: host unreachable",
        "▶ lab: paid images arrive again after 12 s",
        (
            "! lab reports a usage worth $0.0001 for dall-e-9, less than a tenth of its price in the table; the table's"
            " price is counted: $0.0527"
        ),
        "! lounge/pool: a response of lab has 20,001 images: the first 200 are kept, 19,801 are not",
        "! lab: the key is sent to gpu.lan without encryption; use https://, or set `insecure: true`",
        f"‖ lab is down; waiting, and trying again now and then until {clock(UNTIL, time.time())}: no way",
        "• lounge: thumbnails 612/1,800",
        "→ batch batch_7: 100 requests for 120 images sent to lab",
        "~ batch batch_7: in_progress; 84 made, 1 failed",
        "! batch batch_7: expired; 84 made, 1 failed",
        "← batch batch_7 collected: 84 made, 16 returned to the queue, $1.25",
        "! a line of batch batch_7 is ignored: it is not JSON",
        "‖ workers of a run that was killed may send calls for 9 s more; waiting",
        "▶ 8 workers ready, on 4 nodes",
        "▶ 1 of 2 workers ready, on 1 node",
        "! worker 3 (process 17 on here) was lost; 2 calls of unknown outcome: the process died",
        "! worker 3 (process 17 on here) was lost: it does not answer",
        "! node there is not used: has Python 3.12",
        "~ Ray: raylet: no room",
    ]


def test_a_status_that_is_said_twice_is_told_once() -> None:
    error = ServerFault("Request timed out", http_status=408, code="408")
    assert describe(CallEnded("lounge", "pool", "lab", 1.0, None, error)).startswith("! lounge/pool: 408 ServerFault:")


def test_a_long_text_ends_after_a_word() -> None:
    assert one_line("two\nlines   of a server") == "two lines of a server"
    assert one_line("rejected as allowed by our safety system", 26) == "rejected as allowed by …"
    assert one_line("x" * 50, 10) == f"{'x' * 9} …"


def test_of_hundreds_of_jobs_the_first_are_named() -> None:
    assert describe(RunStarted(tuple(f"job-{number}" for number in range(300)))).endswith("job-9 and 290 more")


def _line(event: Event) -> str:
    return printable_json(event_json(event))


def test_every_event_is_one_line_of_json() -> None:
    documents = [json.loads(_line(event)) for event in EVENTS]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one.pop("at")) for one in documents)
    assert documents[0] == {"event": "call_sent", "job": "lounge", "id": "pool", "provider": "lab", "images": 3}
    assert documents[2]["error"] == {
        "http_status": 503,
        "type": None,
        "code": None,
        "message": "the server\n is busy",
        "kind": "ServerFault",
    }
    assert documents[-12] == {
        "event": "batch_sent",
        "id": "batch_7",
        "provider": "lab",
        "model": "gpt-image-2",
        "requests": 100,
        "images": 120,
    }
    assert documents[-9]["cost_usd"] == 1.25
    assert documents[18] == {"event": "run_started", "jobs": ["lounge", "birds"]}
    assert all("\n" not in _line(event) for event in EVENTS)


def test_a_name_in_an_image_from_outside_commands_neither_terminal_nor_log() -> None:
    error = Unusable("the PNG's chunk \x1bc\x07\x9b is \u202edamaged")
    for event in (RequestEnded("job", "a", "failed", error), ProviderDown("lab", str(error), None)):
        assert r"\x1bc\x07\x9b is \u202edamaged" in describe(event)
        assert _line(event).isprintable()
    assert json.loads(_line(RequestEnded("job", "a", "failed", error)))["error"]["message"] == str(error)


def test_json_has_the_moment_in_utc_and_numbers_of_a_sensible_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_764_313_200.123_456)
    ended = json.loads(_line(CallEnded("lounge", "pool", "lab", 1.234_567_89, 0.035_400_123_456, None)))
    assert (ended["at"], ended["seconds"], ended["cost_usd"]) == ("2025-11-28T07:00:00.123Z", 1.235, 0.0354)
    stated = json.loads(_line(UsageIgnored("lab", "m", 0.000_123_456_7, None)))
    assert (stated["stated_usd"], stated["counted_usd"]) == (0.000123, None)
