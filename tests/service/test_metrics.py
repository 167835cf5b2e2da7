"""The table of metrics, and that nothing gets past it."""

import re
import threading
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from studiolo.errors import SettingsError, UsageError
from studiolo.service.metrics import LABELS, TABLE, MemoryMeters, Meters, Metric, NoMeters, PrometheusMeters
from studiolo.service.records import new_id

VALUES = {
    "kind": "portraits",
    "state": "queued",
    "stage": "whole",
    "reason": "low_similarity",
    "worker": "studiolo#Sampler#k3j2h1g0",
    "method": "GET",
    "route": "/v1/jobs/{job_id}/images/{number}",
    "status": "200",
    "outcome": "delivered",
}


def labels_of(metric: Metric) -> dict[str, str]:
    return {label: VALUES[label] for label in metric.labels}


def tell(meters: Meters, metric: Metric, value: float = 0.5) -> None:
    call = {"counter": meters.count, "gauge": meters.gauge, "histogram": meters.observe}[metric.kind]
    call(metric.name, value, **labels_of(metric))


@pytest.mark.parametrize("metric", TABLE, ids=lambda metric: metric.name)
def test_the_table_is_as_prometheus_and_ray_want_it(metric: Metric):
    assert re.fullmatch(r"studiolo_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.help.endswith(".")
    assert set(metric.labels) <= set(LABELS)
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert all(bound > 0 for bound in metric.buckets)  # Ray takes no other


def test_every_name_is_there_once():
    assert len({metric.name for metric in TABLE}) == len(TABLE)


@pytest.mark.parametrize("meters", [NoMeters(), MemoryMeters(), PrometheusMeters()], ids=lambda one: type(one).__name__)
def test_mistakes_raise_at_once(meters: Meters):
    good = {"kind": "portraits", "stage": "whole"}
    for name, labels in (
        ("studiolo_nothing", good),
        ("studiolo_job_seconds", {"kind": "portraits"}),
        ("studiolo_job_seconds", good | {"route": "/"}),
        ("studiolo_job_seconds", good | {"stage": "lunch"}),
        ("studiolo_requests_total", {}),
    ):
        with pytest.raises(UsageError, match="metrics: "):
            meters.observe(name, 1.0, **labels)
    with pytest.raises(UsageError, match="only rises"):
        meters.count("studiolo_upload_bytes_total", -1)


@pytest.mark.parametrize("label", LABELS)
def test_no_label_takes_what_belongs_to_a_person(label: str):
    metric = next(one for one in TABLE if label in one.labels)
    for value in (
        new_id("id"),
        new_id("ten"),
        f"sampler-{new_id('job')}",
        f"/v1/jobs/{new_id('job')}",
        "Anna Muster",
        "a portrait of Anna in a garden",
        "anna@example.com",
        "",
        "x" * 101,
    ):
        with pytest.raises(UsageError, match=label):
            getattr(MemoryMeters(), {"counter": "count", "gauge": "gauge", "histogram": "observe"}[metric.kind])(
                metric.name, 1.0, **(labels_of(metric) | {label: value})
            )


def test_memory_keeps_what_it_was_told():
    meters = MemoryMeters()
    meters.count("studiolo_requests_total", method="GET", route="/healthz", status="200")
    meters.count("studiolo_requests_total", 2, method="GET", route="/healthz", status="503")
    meters.count("studiolo_upload_bytes_total", 0)
    assert meters.total("studiolo_requests_total", route="/healthz") == 3
    assert meters.total("studiolo_requests_total", status="503") == 2
    assert [one["status"] for one in meters.series("studiolo_requests_total")] == ["200", "503"]
    assert meters.values("studiolo_upload_bytes_total") == []


def test_prometheus_fetches_every_metric_of_the_table():
    meters = PrometheusMeters()
    for metric in TABLE:
        tell(meters, metric)
        tell(meters, metric)
    with meters.serve(0, "127.0.0.1") as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
        with pytest.raises(SettingsError, match=str(port)), PrometheusMeters().serve(port, "127.0.0.1"):
            pass
    with pytest.raises(OSError):  # noqa: PT011
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for metric in TABLE:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        sums = {"counter": metric.name, "gauge": metric.name, "histogram": f"{metric.name}_sum"}
        (sample,) = (one for one in family.samples if one.name == sums[metric.kind])
        assert sample.labels == labels_of(metric)
        assert sample.value == (0.5 if metric.kind == "gauge" else 1.0)
        if metric.kind == "histogram":
            bounds = [float(one.labels["le"]) for one in family.samples if one.name.endswith("_bucket")]
            assert bounds == [*metric.buckets, float("inf")]


def test_threads_count_together():
    for meters in (MemoryMeters(), PrometheusMeters()):
        threads = [threading.Thread(target=lambda one=meters: _count(one)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        if isinstance(meters, MemoryMeters):
            assert meters.total("studiolo_training_steps_total") == 400
        else:
            assert meters.registry.get_sample_value("studiolo_training_steps_total") == 400


def _count(meters: Meters) -> None:
    for _ in range(100):
        meters.count("studiolo_training_steps_total")
