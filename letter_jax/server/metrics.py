"""What the server counts, in the format of Prometheus."""

import prometheus_client as prometheus


class Metrics:
  """Counters and histograms of one server, in a registry of its own.

  Attributes:
    registry: what `GET /metrics` shows.
    requests: by path and HTTP status.
    seconds: of a request to /recommend, from its last byte to the answer.
    users: who were answered.
    unknown_items: items of histories that the catalogue does not have.
    batch_users: users of a search.
    queue_users: users who wait for a search.
    ready: 1 if requests are answered.
    items: size of the catalogue.
    loads: of models, the first one too, by result: 'done', 'refused' or 'failed'.
    loaded: when the model was loaded, in seconds since 1970.
  """

  def __init__(self) -> None:
    self.registry = registry = prometheus.CollectorRegistry()
    for collector in (prometheus.ProcessCollector, prometheus.PlatformCollector, prometheus.GCCollector):
      collector(registry=registry)
    self.requests = prometheus.Counter(
      'letter_requests', 'Requests by path and HTTP status', ['path', 'status'], registry=registry
    )
    self.seconds = prometheus.Histogram(
      'letter_request_seconds',
      'Time of a request to /recommend',
      buckets=(0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5),
      registry=registry,
    )
    self.users = prometheus.Counter('letter_users', 'Users who were answered', registry=registry)
    self.unknown_items = prometheus.Counter(
      'letter_unknown_items', 'Items of histories that the catalogue does not have', registry=registry
    )
    self.batch_users = prometheus.Histogram(
      'letter_batch_users', 'Users of a search', buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), registry=registry
    )
    self.queue_users = prometheus.Gauge('letter_queue_users', 'Users who wait for a search', registry=registry)
    self.ready = prometheus.Gauge('letter_ready', '1 if requests are answered', registry=registry)
    self.items = prometheus.Gauge('letter_items', 'Items of the catalogue', registry=registry)
    self.loaded = prometheus.Gauge(
      'letter_loaded_timestamp_seconds', 'When the model was loaded, in seconds since 1970', registry=registry
    )
    self.loads = prometheus.Counter('letter_loads', 'Loads of models by result', ['result'], registry=registry)

  def text(self) -> bytes:
    """Everything, in the text format of Prometheus."""
    return prometheus.generate_latest(self.registry)
