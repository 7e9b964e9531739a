"""The figures of the ledger in Prometheus' text format: `/metrics` of the live page."""

from __future__ import annotations

import itertools
import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.ledger.attempts import sent_since
from pipeline.ledger.database import read_transaction
from pipeline.ledger.lock import find_owner
from pipeline.ledger.metrics import LATENCY_BUCKETS, Latency, read_figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pipeline.config.load import Config
    from pipeline.ledger.metrics import Figures, Values

    Sample = tuple[Mapping[str, str], float]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_OUTCOMES = ("answered", "refused", "unknown", "not_sent")
_SHARE = 0.01  # of one core's time that readings may take beside a run, after the first ones
_FIRST_SECONDS = 1.0  # of readings that are free of that


@dataclass(slots=True)
class MetricsPage:
    """The page of metrics. Where a reading takes long, as of a million calls, it is kept, so that a run loses no time.

    `read` and the clocks are parameters of tests.
    """

    config: Config
    read: Callable[[Config, float], str] | None = None
    clock: Callable[[], float] = time.monotonic
    work_clock: Callable[[], float] = time.thread_time
    _text: str | None = None
    _credit: float = _FIRST_SECONDS
    _seen_at: float = math.nan
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def text(self, now: float) -> str:
        """Return the metrics; those of a while ago if readings have taken more than their share. Raises LedgerError."""
        with self._lock:
            seen_at, self._seen_at = self._seen_at, self.clock()
            if not math.isnan(seen_at):
                self._credit = min(_FIRST_SECONDS, self._credit + (self._seen_at - seen_at) * _SHARE)
            if self._text is None or self._credit > 0:
                began = self.work_clock()
                self._text = (self.read or read_metrics)(self.config, now)
                self._credit -= self.work_clock() - began
            return self._text


def read_metrics(config: Config, now: float) -> str:
    """Return the metrics of an output folder as text. Raises LedgerError."""
    with ledger.reading(config.output) as connection, read_transaction(connection):
        owner = find_owner(config.output, connection)
        figures = read_figures(connection, is_at_work=owner is not None)
        used = {
            name: sum(images for _, images in sent_since(connection, name, now - provider.rate_limit.window))
            / provider.rate_limit.images
            for name, provider in config.providers.items()
            if provider.rate_limit is not None
        }
    return "".join(f"{line}\n" for line in _lines(figures, used, now))


def _lines(figures: Figures, used: Mapping[str, float], now: float) -> Iterator[str]:
    places, requests = figures.places, figures.requests
    none: Values = dict.fromkeys(places, 0)
    calls: Values = {(*place, outcome): 0 for place in places for outcome in _OUTCOMES}
    expiry: Values = dict.fromkeys(places, math.inf)
    expiry |= {place: at - now for place, at in figures.expires_at.items()}
    yield from _metric(
        "pipeline_images_stored_total", "counter", "Images that are on disk.", _placed(none | figures.images)
    )
    yield from _metric(
        "pipeline_calls_total",
        "counter",
        "Calls by outcome; lines of batches are none.",
        _placed(calls | figures.calls, "outcome"),
    )
    yield from _metric(
        *("pipeline_failures_total", "counter", "Calls and lines of batches that failed, by class of error."),
        _placed(figures.failures, "kind"),
    )
    yield from _metric(
        "pipeline_cost_usd_total", "counter", "US dollars that answers cost.", _placed(none | figures.cost_usd)
    )
    yield from _metric(
        *("pipeline_maybe_paid_total", "counter", "Calls that may have been paid: their responses were lost."),
        _placed(none | figures.maybe_paid),
    )
    yield from _metric(
        "pipeline_calls_in_flight", "gauge", "Calls that wait for their response.", _placed(none | figures.in_flight)
    )
    yield from _metric(
        *("pipeline_window_used_ratio", "gauge", "Images sent within the window of the rate limit, by its images."),
        [({"provider": name}, ratio) for name, ratio in used.items()],
    )
    yield from _metric("pipeline_requests", "gauge", "Requests by status.", _placed(requests, "status"))
    yield from _metric(
        *("pipeline_next_url_expiry_seconds", "gauge"),
        "Seconds until the first paid URL expires that is not downloaded yet; +Inf if there is none.",
        _placed(expiry),
    )
    yield from _histogram(dict.fromkeys(places, Latency()) | figures.latency)


def _placed(values: Values, *more: str) -> list[Sample]:
    """Return samples of values by job, provider and one more label."""
    return [(dict(zip(("job", "provider", *more), key, strict=True)), value) for key, value in values.items()]


def _metric(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield _sample(name, labels, value)


def _histogram(latencies: Mapping[tuple[str, ...], Latency]) -> Iterator[str]:
    name = "gen_ai_client_inference_duration_seconds"
    yield f"# HELP {name} Seconds from sending a call to the end of its answer."
    yield f"# TYPE {name} histogram"
    for (job, provider), latency in latencies.items():
        labels = {"job": job, "provider": provider}
        for bound, number in zip((*LATENCY_BUCKETS, math.inf), itertools.accumulate(latency.buckets), strict=True):
            yield _sample(f"{name}_bucket", {**labels, "le": _number(bound)}, number)
        yield _sample(f"{name}_sum", labels, latency.seconds)
        yield _sample(f"{name}_count", labels, sum(latency.buckets))


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{pairs}}} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else f"{round(value, 9)!r}"
