"""Figures for Prometheus; of all workers together where there are several."""

import os
from collections.abc import Sequence
from typing import Any

from prunit.edge.serve.status import Status
from prunit.errors import MissingExtraError

_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class Figures:
    """What is counted. Each worker of several counts in files that the client library puts together."""

    def __init__(self) -> None:
        try:
            import prometheus_client
            from prometheus_client import multiprocess
        except ImportError as error:
            raise MissingExtraError("the server", "prometheus-client", "serve") from error
        self._client: Any = prometheus_client
        self._several: Any = multiprocess if os.environ.get(FOLDER_VARIABLE) else None
        self._of: dict[tuple[int, str], tuple[Any, ...]] = {}
        self._registry: Any = prometheus_client.CollectorRegistry()
        self._requests = self._counter("prunit_requests", "Requests by answer", "code", "variant")
        self._seconds = self._histogram("prunit_request_seconds", "From a request to its answer", _BUCKETS_S)
        self._queued = self._histogram("prunit_queue_seconds", "From a request to its computation", _BUCKETS_S)
        self._batch = self._histogram("prunit_batch_images", "Images computed together", (1, 2, 4, 8, 16, 32))
        self._dropped = self._counter("prunit_dropped", "Requests without an answer, by reason", "reason")
        self._switches = self._counter("prunit_switches", "Switches by reason", "reason")
        self._failures = self._counter("prunit_variant_failures", "Variants put aside or refused", "variant")
        self._waiting = self._gauge("prunit_queue_length", "Requests that wait", "livesum")
        self._memory = self._gauge("prunit_memory_bytes", "Resident memory of the server", "livesum")
        self._target = self._gauge("prunit_target_seconds", "From a request to its answer, as wanted", "livemostrecent")
        self._active = self._gauge("prunit_active_variant", "1 for workers on which it is active", "livesum", "variant")
        self._celsius = self._gauge("prunit_temperature_celsius", "The hottest sensor", "livemax")

    def _counter(self, name: str, text: str, *labels: str) -> Any:
        return self._client.Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Any:
        return self._client.Histogram(name, text, ("variant",), registry=self._registry, buckets=buckets)

    def _gauge(self, name: str, text: str, mode: str, *labels: str) -> Any:
        return self._client.Gauge(name, text, labels, registry=self._registry, multiprocess_mode=mode)

    def answered(self, code: int, variant: str, seconds: float, queued_s: float, batch: int) -> None:
        """An answer by a variant."""
        # To look a label up takes as long as to count.
        if (code, variant) not in self._of:
            rest = (each.labels(variant) for each in (self._seconds, self._queued, self._batch))
            self._of[code, variant] = (self._requests.labels(code, variant), *rest)
        count, took, queued, size = self._of[code, variant]
        count.inc()
        took.observe(seconds)
        queued.observe(queued_s)
        size.observe(batch)

    def refused(self, code: int) -> None:
        """A request that no variant answered; 429, 503 and 504 count as dropped."""
        self._requests.labels(code, "").inc()
        reason = {429: "queue full", 503: "not ready", 504: "deadline"}.get(code)
        if reason:
            self._dropped.labels(reason).inc()

    def switched(self, why: str) -> None:
        """A switch, by the first word of its reason."""
        self._switches.labels(why.partition(":")[0].partition(" ")[0] or "asked").inc()

    def failed(self, variant: str) -> None:
        """A variant was put aside or refused."""
        self._failures.labels(variant).inc()

    def gauge(self, status: Status) -> None:
        """Of this worker, now."""
        self._waiting.set(status["waiting"])
        self._memory.set(status["memory_bytes"])
        self._target.set(status["target_ms"] / 1000)
        if status["celsius"] is not None:
            self._celsius.set(status["celsius"])
        for variant in status["variants"]:
            self._active.labels(variant["name"]).set(float(variant["name"] == status["active"]))

    def page(self) -> tuple[bytes, str]:
        """All figures as text, and its media type."""
        registry = self._registry
        if self._several:
            registry = self._client.CollectorRegistry()
            self._several.MultiProcessCollector(registry)
        return self._client.generate_latest(registry), self._client.CONTENT_TYPE_LATEST
