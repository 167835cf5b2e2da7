"""What the endpoint measures of itself: the table of all metrics, and what they are told to.

Names are those of Prometheus: units are seconds and bytes, counters end in `_total`. A label holds a word out of a
small set, never an identity, a tenant, a key or a caller's words; a value that does not look like one of its label is
refused, so that a mistake is found by the first test that comes by and not in the bill for the storage.
"""

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import prometheus_client

from studiolo.errors import SettingsError, UsageError
from studiolo.service.records import Kind, State

MetricKind = Literal["counter", "gauge", "histogram"]
NO_REASON = "none"
"""Label `reason` of what ended well."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
_JOB_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1800.0, 3600.0, 10_800.0)
_SHARES = tuple(step / 20 for step in range(1, 20))


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, rising, all above 0; the last one, infinite, is not named."""


TABLE = (
    Metric("studiolo_queue_jobs", "gauge", "Jobs that wait or run.", ("kind", "state")),
    Metric("studiolo_queue_steps", "gauge", "Steps left of jobs that wait or run.", ("kind", "state")),
    Metric("studiolo_queue_oldest_wait_seconds", "gauge", "Wait of the job that has waited longest.", ("kind",)),
    Metric("studiolo_jobs_ended_total", "counter", "Jobs that ended, by how and why.", ("kind", "state", "reason")),
    Metric(
        "studiolo_job_seconds",
        "histogram",
        "Time of one job in one stage; whole is from its acceptance to its end.",
        ("kind", "stage"),
        _JOB_SECONDS,
    ),
    Metric("studiolo_denoising_steps_total", "counter", "Steps of candidates that a sampler did.", ("worker",)),
    Metric(
        "studiolo_slot_occupancy", "gauge", "Share of the slots of a sampler or trainer that are taken.", ("worker",)
    ),
    Metric("studiolo_training_steps_total", "counter", "Steps of identities that trainers did."),
    Metric("studiolo_candidates_accepted_total", "counter", "Candidates that became portraits."),
    Metric("studiolo_candidates_rejected_total", "counter", "Candidates that were not good enough.", ("reason",)),
    Metric(
        "studiolo_candidate_similarity",
        "histogram",
        "Calibrated similarity of judged candidates to their person.",
        buckets=_SHARES,
    ),
    Metric("studiolo_requests_total", "counter", "HTTP requests that were answered.", ("method", "route", "status")),
    Metric(
        "studiolo_request_seconds",
        "histogram",
        "Time from an HTTP request to the end of its answer.",
        ("method", "route"),
        _SECONDS,
    ),
    Metric("studiolo_refusals_total", "counter", "HTTP requests that were refused.", ("status", "reason")),
    Metric("studiolo_upload_bytes_total", "counter", "Bytes of photos and LoRAs that came in whole."),
    Metric("studiolo_webhooks_total", "counter", "Tries to deliver a webhook.", ("outcome",)),
)
"""All metrics, in the order of the dashboard."""

METRICS = {metric.name: metric for metric in TABLE}

LABELS = {
    "kind": "|".join(Kind),
    "state": "|".join(State),
    "stage": "queued|perceive|train|look|sample|finish|store|whole",
    "reason": "[a-z_]{1,64}",
    "worker": "[A-Za-z0-9_#.:-]{1,100}",
    "method": "GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|other",
    "route": r"none|(/(v1|[a-z_.-]+|\{[a-z_]+\}))+",
    "status": "[1-5][0-9][0-9]|gone",
    "outcome": "delivered|failed|given_up",
}
"""What a value of each label looks like, as a regular expression; `worker` is the name of a process."""

_VALUES = {label: re.compile(pattern) for label, pattern in LABELS.items()}
_ANY_ID = re.compile(r"[a-z]{2,8}_[0-9a-f]{32}")


class Meters(ABC):
    """Where a process tells what it measures; from any thread.

    An unknown name, another kind, missing or unknown labels and values that do not fit raise `UsageError`, in every
    implementation alike.
    """

    def count(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Add `amount`, 0 or more, to a counter."""
        metric = _checked(name, "counter", labels)
        if amount < 0:
            raise UsageError(f"metrics: {name} got {amount}; a counter only rises")
        if amount > 0:
            self.record(metric, amount, labels)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge."""
        self.record(_checked(name, "gauge", labels), value, labels)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Put a value into a histogram."""
        self.record(_checked(name, "histogram", labels), value, labels)

    @abstractmethod
    def record(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """Add, set or put, by the metric's kind; `labels` are its own, all of them. A counter gets no 0."""


class NoMeters(Meters):
    """Measures nothing, and finds mistakes all the same."""

    def record(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """Nothing."""


class MemoryMeters(Meters):
    """Keeps every value: for tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}

    def record(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """As `Meters` says."""
        with self._lock:
            self._values.setdefault((metric.name, tuple(sorted(labels.items()))), []).append(value)

    def values(self, name: str, /, **labels: str) -> list[float]:
        """Everything told to a metric, oldest first, of all series that have these labels."""
        with self._lock:
            found = [(dict(key), values) for (one, key), values in self._values.items() if one == METRICS[name].name]
        return [value for key, values in found if labels.items() <= key.items() for value in values]

    def total(self, name: str, /, **labels: str) -> float:
        """What a counter has come to, over all series that have these labels."""
        return sum(self.values(name, **labels))

    def series(self, name: str, /) -> list[dict[str, str]]:
        """The labels of all series of a metric."""
        with self._lock:
            return [dict(key) for one, key in self._values if one == METRICS[name].name]


class PrometheusMeters(Meters):
    """Metrics that Prometheus fetches from this process; they are lost with it."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._families = {metric.name: _family(metric, self.registry) for metric in TABLE}

    def record(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """As `Meters` says."""
        family = self._families[metric.name]
        series = family.labels(**labels) if labels else family
        if isinstance(series, prometheus_client.Counter):
            series.inc(value)
        elif isinstance(series, prometheus_client.Gauge):
            series.set(value)
        else:
            series.observe(value)

    @contextmanager
    def serve(self, port: int, host: str = "0.0.0.0") -> Iterator[int]:
        """Answer Prometheus at `http://HOST:PORT/metrics` within the `with`; the port, free when 0 was given.

        Raises `SettingsError` for one that is taken.
        """
        try:
            server, thread = prometheus_client.start_http_server(port, host, self.registry)
        except OSError as error:
            raise SettingsError(f"metrics: port {port} cannot be listened on ({error}); name another one") from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


_Family = prometheus_client.Counter | prometheus_client.Gauge | prometheus_client.Histogram


def _family(metric: Metric, registry: prometheus_client.CollectorRegistry) -> _Family:
    """The metric as prometheus_client has it."""
    if metric.kind == "counter":
        return prometheus_client.Counter(metric.name, metric.help, metric.labels, registry=registry)
    if metric.kind == "gauge":
        return prometheus_client.Gauge(metric.name, metric.help, metric.labels, registry=registry)
    return prometheus_client.Histogram(
        metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets
    )


def _checked(name: str, kind: MetricKind, labels: dict[str, str]) -> Metric:
    metric = METRICS.get(name)
    if metric is None or metric.kind != kind:
        raise UsageError(f"metrics: there is no {kind} {name!r}; the table in studiolo/service/metrics.py has them all")
    if labels.keys() != set(metric.labels):
        raise UsageError(f"metrics: {name} got the labels {sorted(labels)}, wanted {sorted(metric.labels)}")
    for label, value in labels.items():
        if not _VALUES[label].fullmatch(value) or _ANY_ID.search(value):
            raise UsageError(f"metrics: {name} got a value of {label} that is none; wanted {LABELS[label]}, and no id")
    return metric
