"""Metrics: names as Prometheus wants them, and numbers that survive the way to it."""

from __future__ import annotations

import json
import re
import threading
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from millrace.core import metrics as m
from millrace.core.errors import UsageError
from millrace.core.exposition import page_of, registry_of, serve
from millrace.core.metrics import METRICS, Buckets, Counts, Kind, Metric, Sample, as_json, from_json

UNITS = ("_seconds", "_bytes", "_ratio", "_info", "_total")


def text_of(*tagged: tuple[dict[str, str], list[Sample]]) -> str:
    return page_of(registry_of(lambda: tagged))[0].decode()


def samples_of(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_name_follows_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"millrace_[a-z]+(_[a-z]+)*", metric.name)
    assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total")
    assert bool(metric.bounds) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.bounds) == sorted(metric.bounds)
    assert not set(metric.labels) & {"job", "instance", "le", "process", "image", "key"}
    assert metric.help.endswith(".")


def test_what_is_counted_in_threads_is_all_there() -> None:
    counts = Counts()

    def count() -> None:
        for _ in range(500):
            counts.add(m.IMAGES, 2, "tiny", "failed", "decode", "corrupt")
            counts.observe(m.STAGE_SECONDS, (0.001, 0.002), "fetch")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    images, seconds = counts.samples()
    assert (images.value, images.labels) == (4000, ("tiny", "failed", "decode", "corrupt"))
    assert isinstance(seconds.value, Buckets)
    assert sum(seconds.value.counts) == 4000
    assert seconds.value.sum == pytest.approx(6)


def test_a_value_on_a_bound_belongs_below_it() -> None:
    counts = Counts()
    counts.observe(m.BATCH_IMAGES, (1, 2, 3, 4, 1000))
    found = samples_of(text_of(({}, counts.samples())))
    by_bound = {
        dict(labels)["le"]: value for (name, labels), value in found.items() if "le" in dict(labels)
    }
    assert [by_bound[bound] for bound in ("1.0", "2.0", "4.0", "8.0", "512.0", "+Inf")] == [
        1,
        2,
        4,
        4,
        4,
        5,
    ]
    assert found["millrace_batch_images_count", ()] == 5
    assert found["millrace_batch_images_sum", ()] == 1010


def test_samples_survive_the_way_to_another_process() -> None:
    counts = Counts()
    counts.add(m.CHUNKS, 3, "tiny", "counted")
    counts.observe(m.STAGE_SECONDS, (0.2,), "write")
    samples = [*counts.samples(), Sample(m.READY, 1)]
    assert from_json(json.loads(json.dumps(as_json(samples)))) == samples


def test_processes_are_told_apart_within_one_family() -> None:
    text = text_of(
        ({"process": "0"}, [Sample(m.READY, 1), Sample(m.QUEUE_CHUNKS, 7, ("millrace.tiny",))]),
        ({"process": "1"}, [Sample(m.READY, 0)]),
    )
    assert text.count("# TYPE millrace_worker_ready gauge") == 1
    found = samples_of(text)
    assert found["millrace_worker_ready", (("process", "0"),)] == 1
    assert found["millrace_worker_ready", (("process", "1"),)] == 0
    labels = (("process", "0"), ("queue", "millrace.tiny"))
    assert found["millrace_queue_chunks", labels] == 7


def test_it_is_served_and_ended() -> None:
    registry = registry_of(lambda: [({}, [Sample(m.READY, 1)])])
    port, end = serve(registry, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert b"millrace_worker_ready 1.0" in answer.read()
    with pytest.raises(UsageError, match=f"127.0.0.1:{port}"):
        serve(registry, "127.0.0.1", port)
    end()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=10)
