"""Metric families, made from definitions and figures at hand."""

from __future__ import annotations

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from apiguard.telemetry.counters import Histogram
from apiguard.telemetry.names import Metric


def counter(metric: Metric, value: float | None = None) -> CounterMetricFamily:
    name = metric.name.removesuffix("_total")
    return CounterMetricFamily(name, metric.help, value=value, labels=_labels(metric, value))


def gauge(metric: Metric, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, value=value, labels=_labels(metric, value))


def _labels(metric: Metric, value: float | None) -> tuple[str, ...] | None:
    return metric.labels if value is None else None


def histogram(metric: Metric, figures: Histogram) -> HistogramMetricFamily:
    buckets = []
    running = 0
    for bound, count in zip((*figures.bounds, None), figures.counts, strict=True):
        running += count
        buckets.append(("+Inf" if bound is None else str(bound), running))
    return HistogramMetricFamily(metric.name, metric.help, buckets=buckets, sum_value=figures.sum)
