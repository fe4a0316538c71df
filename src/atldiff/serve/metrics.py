"""What the service counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """Counters of one service in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.jobs = Counter("atldiff_jobs", "Jobs that ended, by how.", ["outcome"], registry=registry)
        self.frames = Counter("atldiff_frames", "Frames of finished videos.", registry=registry)
        self.job_seconds = Histogram(
            "atldiff_job_seconds", "Time that a video took to make.", registry=registry, buckets=_SECONDS
        )
        self.queued = Gauge("atldiff_jobs_queued", "Jobs that wait, with those being uploaded.", registry=registry)
        self.running = Gauge("atldiff_jobs_running", "Jobs that workers are at.", registry=registry)
        self.ready_workers = Gauge("atldiff_workers_ready", "Workers that wait for a job.", registry=registry)
        self.worker_restarts = Counter(
            "atldiff_worker_restarts", "Worker processes started anew after a death.", registry=registry
        )
        self.requests = Counter(
            "atldiff_http_requests",
            "Requests, by route and status.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.live_sessions = Gauge("atldiff_live_sessions", "Live sessions that are open.", registry=registry)
        self.live_frames = Counter("atldiff_live_frames", "Frames sent to live sessions.", registry=registry)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
