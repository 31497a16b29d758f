"""What the server counts, for Prometheus. Knows nothing of routes or models; no label holds what a client sent.

With several worker processes the numbers of all of them are told by each, through small files in the folder that the
environment names as PROMETHEUS_MULTIPROC_DIR: https://prometheus.github.io/client_python/multiprocess/
"""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from cxr.inference.verdict import Verdict
from cxr.serving.batching import BATCH, Timing

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = tuple(2**power for power in range(BATCH.bit_length()))


class Measures:
    """The counters of one worker process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("cxr_requests", "Requests by route and status.", "route", "status")
        self.request_seconds = self._histogram("cxr_request_seconds", "Seconds from request to answer.", SECONDS)
        self.decode_seconds = self._histogram("cxr_decode_seconds", "Seconds to decode an image.", SECONDS)
        self.queue_seconds = self._histogram(
            "cxr_queue_seconds", "Seconds that an image waits to be predicted.", SECONDS
        )
        self.predict_seconds = self._histogram("cxr_predict_seconds", "Seconds to predict a batch.", SECONDS)
        self.batch_size = self._histogram("cxr_batch_size", "Images that were predicted together.", SIZES)
        self.images = self._counter("cxr_images", "Images by outcome: ok or error.", "status")
        self.abstentions = self._counter("cxr_abstentions", "Images on which the model was not sure enough.")
        self.warnings = self._counter("cxr_warnings", "Warnings of images, by code.", "code")
        self.waiting = Gauge(
            "cxr_waiting_images", "Images that are decoded or wait for the model.", registry=self.registry,
            multiprocess_mode="livesum",
        )  # fmt: skip

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request.

        Args:
            route: The path as the route declares it, never as the client sent it.
            status: Of the answer.
            seconds: From request to answer.
        """
        self.requests.labels(route, str(status)).inc()
        self.request_seconds.observe(seconds)

    def count_batch(self, timing: Timing) -> None:
        """Count a batch that was predicted."""
        for seconds in timing.waited:
            self.queue_seconds.observe(seconds)
        self.predict_seconds.observe(timing.took)
        self.batch_size.observe(len(timing.waited))

    def count_verdict(self, verdict: Verdict) -> None:
        """Count an image that was predicted."""
        self.images.labels("ok").inc()
        if verdict.abstained:
            self.abstentions.inc()
        for code in verdict.warnings:
            self.warnings.labels(code).inc()

    def to_text(self) -> bytes:
        """All numbers, of all workers, in the text format of Prometheus."""
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(name, told, labels, registry=self.registry)

    def _histogram(self, name: str, told: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, told, registry=self.registry, buckets=buckets)
