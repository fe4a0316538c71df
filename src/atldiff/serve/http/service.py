"""The parts of the service, started and stopped together."""

from typing import TYPE_CHECKING

import anyio

from atldiff.processes.workers import processors
from atldiff.serve.http.webhooks import Webhooks
from atldiff.serve.live.sessions import LivePool
from atldiff.serve.metrics import Metrics
from atldiff.serve.settings import ServeSettings
from atldiff.serve.work.checker import Checker
from atldiff.serve.work.jobs import JobQueue
from atldiff.serve.work.processes import WorkerSetup
from atldiff.serve.work.store import JobStore

if TYPE_CHECKING:
    from atldiff.serve.live.webrtc import WebRTCSessions


class Service:
    """Everything behind the routes.

    Attributes:
        settings, store, jobs, webhooks, checker, live, metrics: its parts.
        webrtc: sessions over WebRTC; None without the extra of that name.
        checks: limits the threads that wait for checks of uploads; they are none of those that answer requests.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        setup = WorkerSetup(
            model=settings.model,
            device=settings.device,
            threads=max(1, processors() // settings.workers),
            max_duration_s=settings.max_duration_s,
            max_pixels=settings.max_pixels,
            memory_bytes=settings.worker_memory_bytes,
        )
        self.store = JobStore(settings.data, settings.keep_s)
        self.webhooks = Webhooks(self.store, settings.webhook_secret, settings.webhook_private)
        self.jobs = JobQueue(settings, self.store, setup, self.metrics, self.webhooks.announce)
        self.checker = Checker(setup, settings.check_timeout_s)
        self.checks = anyio.CapacityLimiter(settings.max_connections)
        self.live = LivePool(settings, setup, self.metrics, self.store.live_folder)
        self.webrtc = _webrtc(self.live)

    def start(self) -> None:
        """Start the processes; they load while the first requests may already come."""
        self.checker.start()
        self.webhooks.start()
        self.jobs.start()

    def stop(self) -> None:
        """End all work and close the table of jobs."""
        self.jobs.stop()
        self.webhooks.stop()
        self.checker.stop()
        self.live.stop()
        self.store.close()


def _webrtc(pool: LivePool) -> "WebRTCSessions | None":
    try:
        from atldiff.serve.live.webrtc import WebRTCSessions
    except ImportError:
        return None
    return WebRTCSessions(pool)
