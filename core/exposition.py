"""Samples as Prometheus reads them, through its own library, which is an extra."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from millrace.core.errors import MissingExtra, UsageError
from millrace.core.metrics import Buckets, Kind, Metric, Sample

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

Tagged = tuple[Mapping[str, str], list[Sample]]
"""Samples, and the labels that each of them has beside its metric's own."""


def registry_of(source: Callable[[], Iterable[Tagged]]) -> CollectorRegistry:
    """A registry whose samples are asked for at each scrape. Raises MissingExtra."""
    try:
        from prometheus_client.registry import CollectorRegistry
    except ModuleNotFoundError:
        raise MissingExtra("prometheus-client", "metrics") from None

    class Collector:
        def collect(self) -> Iterator[Any]:
            return _families(source())

        def describe(self) -> list[Any]:
            return []  # else it would be collected to be registered

    registry = CollectorRegistry()
    registry.register(Collector())
    return registry


def register_process(registry: CollectorRegistry, name: str) -> None:
    """Memory, CPU time and open files of this process, where the system tells, as
    `<name>_process_…`."""
    from prometheus_client.process_collector import ProcessCollector

    ProcessCollector(namespace=name, registry=registry)


def page_of(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """What `/metrics` answers, and its content type."""
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def serve(registry: CollectorRegistry, address: str, port: int) -> tuple[int, Callable[[], None]]:
    """Answer scrapes in threads of their own; returns the port, which was chosen if `port` is 0,
    and what ends it. Raises UsageError if the address cannot be used."""
    from prometheus_client.exposition import start_http_server

    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise UsageError(
            f"cannot serve metrics on {address}:{port}: {error.strerror or error}"
        ) from None

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return int(server.server_port), end


def _families(tagged: Iterable[Tagged]) -> Iterator[Any]:
    """All samples of a metric stand together, whosever they are."""
    found: dict[str, Any] = {}
    for more, samples in tagged:
        for sample in samples:
            metric = sample.metric
            if metric.name not in found:
                found[metric.name] = _family(metric, (*metric.labels, *more))
            values = [*sample.labels, *more.values()]
            if isinstance(sample.value, Buckets):
                found[metric.name].add_metric(
                    values, _cumulative(metric, sample.value), sum_value=sample.value.sum
                )
            else:
                found[metric.name].add_metric(values, sample.value)
    yield from found.values()


def _family(metric: Metric, labels: tuple[str, ...]) -> Any:
    from prometheus_client import core

    families = {
        Kind.COUNTER: core.CounterMetricFamily,
        Kind.GAUGE: core.GaugeMetricFamily,
        Kind.HISTOGRAM: core.HistogramMetricFamily,
    }
    return families[metric.kind](metric.name, metric.help, labels=labels)


def _cumulative(metric: Metric, buckets: Buckets) -> list[tuple[str, float]]:
    bounds = [*(str(float(bound)) for bound in metric.bounds), "+Inf"]
    return list(zip(bounds, accumulate(map(float, buckets.counts)), strict=True))
