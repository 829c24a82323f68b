"""Every metric, defined once: its name, what it counts, its labels, its buckets.

Names follow Prometheus's conventions: base units, `_total` for what only grows. No label has more
values than there are models, stages, error codes, routes or processes; never a job or an image.

A process counts in plain numbers (`Counts`), which needs no library, and hands them out as samples;
`core/exposition.py` turns samples of one process or of several into what Prometheus reads.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One name, and what stands under it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, but for the last one, which has none."""


METRICS: dict[str, Metric] = {}
"""By name."""


def _define(name: str, kind: Kind, text: str, *labels: str, bounds: Any = ()) -> Metric:
    assert name not in METRICS
    METRICS[name] = Metric(name, kind, text, labels, tuple(bounds))
    return METRICS[name]


# --- of each worker process ---

IMAGES = _define(
    "millrace_images_total",
    Kind.COUNTER,
    "Images whose outcome was counted; stage and code of those that failed.",
    *("model", "outcome", "stage", "code"),
)
CHUNKS = _define(
    "millrace_chunks_total",
    Kind.COUNTER,
    "Chunks by how they ended: counted, repeat or late (counted elsewhere), unknown, given_back.",
    *("model", "outcome"),
)
BATCH_IMAGES = _define(
    "millrace_batch_images",
    Kind.HISTOGRAM,
    "Images in each batch that was predicted.",
    bounds=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
BATCH_FILL = _define(
    "millrace_batch_fill_ratio",
    Kind.HISTOGRAM,
    "How full each batch was, 0 to 1.",
    bounds=[n / 10 for n in range(1, 11)],
)
STAGE_SECONDS = _define(
    "millrace_stage_seconds",
    Kind.HISTOGRAM,
    "Fetching and decoding (CPU time) of an image, inferring a batch, writing a chunk.",
    "stage",
    bounds=SECONDS,
)
MODEL_WAITED = _define(
    "millrace_model_wait_seconds_total",
    Kind.COUNTER,
    "How long the model stood without images while chunks were in hand, by what held it up.",
    "stage",
)
LEASES = _define("millrace_leases", Kind.GAUGE, "Chunks in hand.")
QUEUE_CHUNKS = _define(
    "millrace_queue_chunks",
    Kind.GAUGE,
    "Messages that wait in a queue; the same whoever is asked.",
    "queue",
)
LOAD_SECONDS = _define(
    "millrace_session_load_seconds",
    Kind.GAUGE,
    "How long the model took to load and warm up.",
)
READY = _define("millrace_worker_ready", Kind.GAUGE, "1 once the model is loaded.")
RSS = _define("millrace_worker_resident_memory_bytes", Kind.GAUGE, "Resident memory.")
CPU = _define("millrace_worker_cpu_seconds_total", Kind.COUNTER, "CPU time.")
INFO = _define(
    "millrace_worker_info",
    Kind.GAUGE,
    "1, and what runs here.",
    *("model", "version", "engine", "precision", "millrace"),
)

# --- of the supervisor, about each of its processes ---

UP = _define("millrace_worker_up", Kind.GAUGE, "1 if the process answers.")
RESTARTS = _define(
    "millrace_worker_restarts_total", Kind.COUNTER, "Ends of the process that nobody asked for."
)

# --- of the server ---

JOBS = _define("millrace_jobs", Kind.GAUGE, "Jobs that Redis knows.", "state")
UNHEALTHY = _define(
    "millrace_jobs_unhealthy",
    Kind.GAUGE,
    "Jobs under way that get nowhere, by why: no_workers, no_producer, stalled.",
    *("model", "health"),
)
PENDING = _define(
    "millrace_pending_images",
    Kind.GAUGE,
    "Images of jobs under way that have no outcome yet.",
    "model",
)
QUEUE_LEASES = _define(
    "millrace_queue_leases", Kind.GAUGE, "Chunks that workers hold, of each queue.", "queue"
)
LIVE_WORKERS = _define(
    "millrace_live_workers", Kind.GAUGE, "Worker processes alive, by their model.", "model"
)
NOTIFICATIONS_WAITING = _define(
    "millrace_notifications_waiting", Kind.GAUGE, "Ends of jobs that are yet to be told."
)
REDIS_UP = _define("millrace_redis_up", Kind.GAUGE, "1 if Redis answers.")
REQUESTS = _define(
    "millrace_http_requests_total",
    Kind.COUNTER,
    "Requests answered.",
    *("method", "route", "status"),
)
REQUEST_SECONDS = _define(
    "millrace_http_request_seconds",
    Kind.HISTOGRAM,
    "From a request to the end of its answer; event streams are left out.",
    *("method", "route"),
    bounds=SECONDS,
)
REQUESTS_OPEN = _define(
    "millrace_http_requests_open", Kind.GAUGE, "Requests under way, event streams among them."
)


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram's values: how many fell in each bucket, the last one without a bound."""

    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric; `labels` in the metric's order."""

    metric: Metric
    value: float | Buckets
    labels: tuple[str, ...] = ()


class Counts:
    """What a process has counted so far. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[tuple[Metric, tuple[str, ...]], float] = {}
        self._histograms: dict[tuple[Metric, tuple[str, ...]], _Histogram] = {}

    def add(self, metric: Metric, value: float, *labels: str) -> None:
        """Count up."""
        key = metric, labels
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + value

    def observe(self, metric: Metric, values: Iterable[float], *labels: str) -> None:
        """Take values into a histogram; many at once cost little more than one."""
        key = metric, labels
        with self._lock:
            histogram = self._histograms.get(key)
            if histogram is None:
                histogram = self._histograms[key] = _Histogram(metric)
            histogram.take(values)

    def samples(self) -> list[Sample]:
        with self._lock:
            counted = [
                Sample(metric, value, labels) for (metric, labels), value in self._counters.items()
            ]
            return counted + [
                Sample(metric, Buckets(tuple(each.counts), each.sum), labels)
                for (metric, labels), each in self._histograms.items()
            ]


class _Histogram:
    def __init__(self, metric: Metric) -> None:
        self._bounds = metric.bounds
        self.counts = [0] * (len(metric.bounds) + 1)
        self.sum = 0.0

    def take(self, values: Iterable[float]) -> None:
        bounds, counts = self._bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            self.sum += value


def as_json(samples: Iterable[Sample]) -> list[Any]:
    """For another process."""
    return [
        [
            sample.metric.name,
            [*sample.value.counts, sample.value.sum]
            if isinstance(sample.value, Buckets)
            else sample.value,
            sample.labels,
        ]
        for sample in samples
    ]


def from_json(said: Iterable[Any]) -> list[Sample]:
    """Inverse of `as_json`, of a process of the same version."""
    return [
        Sample(
            METRICS[name],
            Buckets(tuple(value[:-1]), value[-1]) if isinstance(value, list) else value,
            tuple(labels),
        )
        for name, value, labels in said
    ]
