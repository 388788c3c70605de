"""Metrics of the server, which Prometheus reads by `GET /metrics`."""

import functools
from collections.abc import Sequence

from keras_tokenlearner._extras import require


class Metrics:
    """Histograms of batch sizes and queue times, and a counter of refused requests.

    Names in `GET /metrics`:

    * `keras_tokenlearner_batch_rows`: number of rows (examples) in each batch.
    * `keras_tokenlearner_queue_seconds`: time that a row waits for its batch, after its
      images are decoded.
    * `keras_tokenlearner_refusals_total`: HTTP answers of status 400 and higher, and gRPC calls
      that failed, by `status`, for example `"400"` or `"INVALID_ARGUMENT"`.
    """

    def __init__(self) -> None:
        prometheus = require("prometheus_client", "serve")
        rows = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        seconds = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
        self.batch_rows = prometheus.Histogram(
            "keras_tokenlearner_batch_rows", "Number of rows in a batch", buckets=rows
        )
        self.queue_seconds = prometheus.Histogram(
            "keras_tokenlearner_queue_seconds",
            "Time that a row waits for its batch",
            buckets=seconds,
        )
        self.refusals = prometheus.Counter(
            "keras_tokenlearner_refusals", "HTTP and gRPC answers with an error", ["status"]
        )

    def batch(self, waited: Sequence[float]) -> None:
        """Record the size of a batch, and the queue time of its rows.

        Args:
            waited: Seconds that each row of the batch waited.
        """
        self.batch_rows.observe(len(waited))
        for seconds in waited:
            self.queue_seconds.observe(seconds)

    def status(self, status: int) -> None:
        """Count an HTTP answer as refused if its status code is 400 or higher."""
        if status >= 400:
            self.refuse(str(status))

    def refuse(self, status: str) -> None:
        """Count a refused request under the name of its status."""
        self.refusals.labels(status).inc()


@functools.cache
def metrics() -> Metrics:
    """Return the only `Metrics` of this process, because Prometheus allows each name once."""
    return Metrics()
