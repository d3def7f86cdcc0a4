"""Counts and times for Prometheus, in a registry of its own."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What `/metrics` tells: requests, their times, the queue, and the batches of the model."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "jensen_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "jensen_request_seconds", "Seconds from the request to its answer.", ["route"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._batch = Histogram(
            "jensen_batch_examples", "Examples that go through the model together.", ["work"], buckets=ROWS,
            registry=self.registry,
        )  # fmt: skip
        self._model = Histogram(
            "jensen_model_seconds", "Seconds of one call of the model.", ["work"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._examples = Counter("jensen_examples", "Examples computed.", ["work"], registry=self.registry)
        self._waiting = Gauge("jensen_queue_requests", "Requests that wait.", registry=self.registry)

    def watch(self, waiting: Callable[[], int]) -> None:
        """Ask `waiting` for the length of the queue."""
        self._waiting.set_function(lambda: float(waiting()))

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, work: str, rows: int, seconds: float) -> None:
        """Count a call of the model."""
        self._batch.labels(work).observe(rows)
        self._model.labels(work).observe(seconds)
        self._examples.labels(work).inc(rows)

    def text(self) -> bytes:
        """The metrics in the format of Prometheus."""
        return generate_latest(self.registry)
