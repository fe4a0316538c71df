"""Settings of the service, checked in one place."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from atldiff.errors import InputError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

_LEAST_TOKEN = 16
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+", re.ASCII)


@dataclass(frozen=True)
class ServeSettings:
    """How the service works and what it takes.

    Attributes:
        data: private folder for the jobs; made if need be.
        model, device: as for :meth:`~atldiff.pipeline.ATLDiffPipeline.from_pretrained`.
        workers: processes that make videos, each with the model in memory.
        live_sessions: processes for live sessions, one each; 0 turns them off.
        queue: jobs that may wait besides those that the workers are at.
        max_upload_bytes: of a whole request.
        max_duration_s: of the speech.
        max_pixels: of the portrait.
        upload_timeout_s: from the head of a request to the end of its body.
        check_timeout_s: for the look at what was uploaded, before it is queued.
        job_timeout_s: for the making of a video.
        live_timeout_s: for a whole live session.
        keep_s: from the end of a job to its removal.
        worker_memory_bytes: what a worker may allocate; None for no limit of our own.
        tokens: any of these as bearer token gives access; none: no token is needed.
        allowed_hosts: names that requests may call the service by; none: any.
        max_connections: open at once.
        studio: whether there is a page to use it with.
        webhook_secret: signs webhooks, see :func:`atldiff.serve.http.webhooks.signing_key`; empty: there are none.
        webhook_private: whether webhooks may lead to private addresses.
        root_path: below which a reverse proxy shows the service, ``/faces``; empty where it has a name for itself.
    """

    data: Path
    model: str = "compact"
    device: str = "auto"
    workers: int = 1
    live_sessions: int = 1
    queue: int = 8
    max_upload_bytes: int = 32 * 2**20
    max_duration_s: float = 300.0
    max_pixels: int = 40_000_000
    upload_timeout_s: float = 60.0
    check_timeout_s: float = 30.0
    job_timeout_s: float = 1800.0
    live_timeout_s: float = 3600.0
    keep_s: float = 24 * 3600.0
    worker_memory_bytes: int | None = None
    tokens: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = LOOPBACK_NAMES
    max_connections: int = 256
    studio: bool = False
    root_path: str = ""
    webhook_secret: str = field(default="", repr=False)
    webhook_private: bool = False

    def __post_init__(self) -> None:
        positive = ("workers", "max_upload_bytes", "max_pixels", "max_connections")
        for name in (*positive, *(name for name in self.__dataclass_fields__ if name.endswith("_s"))):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; expected a number above 0")
        if self.root_path and not _ROOT_PATH.fullmatch(self.root_path):
            raise InputError(f"the root path is {self.root_path!r}; expected one like /faces, without a / at its end")
        for name in ("live_sessions", "queue"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if any(len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() for token in self.tokens):
            raise InputError(f"a token is too short or not plain; expected {_LEAST_TOKEN} ASCII characters or more")


def default_data_folder(verb: str = "serve") -> Path:
    """``$XDG_STATE_HOME/atldiff/serve``, by default below ``~/.local/state``; for another verb its own."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "atldiff" / verb


def read_secret(path: Path | None, text: str) -> str:
    """The webhooks' secret: the one line of a file, or ``text``. Raises InputError."""
    if path is None:
        return text.strip()
    secret, *more = read_tokens(path, "")
    if more:
        raise InputError(f"{path} has {1 + len(more)} lines; expected one secret")
    return secret


def read_tokens(path: Path | None, text: str) -> tuple[str, ...]:
    """Bearer tokens from a file, one a line, and from ``text``, with commas between them.

    Raises:
        InputError: the file cannot be read, or has none.
    """
    tokens = [token.strip() for token in text.split(",")]
    if path is not None:
        try:
            lines = [line.strip() for line in path.read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read; expected a file with one token a line") from error
        if not any(lines):
            raise InputError(f"{path} is empty; expected one token a line")
        tokens += lines
    return tuple(token for token in tokens if token)
