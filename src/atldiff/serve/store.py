"""Jobs on disk: a table in SQLite and a private folder a job. What is finished survives a restart."""

import contextlib
import json
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from atldiff.errors import OutputError
from atldiff.locks import hold_lock
from atldiff.serve.problems import Problem

QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"
FINAL = (DONE, FAILED)

PORTRAIT, SPEECH, VIDEO = "portrait", "speech", "video.mp4"
PREVIEW, LANDMARKS = "preview.jpg", "landmarks.json"
"""Names in a job's folder."""

ID_PATTERN = r"^[A-Za-z0-9_-]{22}$"

_ID = re.compile(ID_PATTERN, re.ASCII)
_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, created_at REAL NOT NULL, started_at REAL, finished_at REAL,
    expires_at REAL, options TEXT NOT NULL, result TEXT, problem TEXT
)
"""


@dataclass(frozen=True)
class Job:
    """One video to make, being made, or made; times are seconds since 1970.

    Attributes:
        state: ``queued``, ``running``, ``done`` or ``failed``.
        expires_at: when it will be removed.
        options: keyword arguments of :meth:`~atldiff.pipeline.ATLDiffPipeline.stream`.
        result: what was made.
        problem: why it failed, the body of a :class:`~atldiff.serve.problems.Problem`.
        frames_done, frames: of a job that is being made.
        position: in the queue, from 1.
    """

    id: str
    state: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    options: dict[str, Any]
    result: dict[str, Any] | None
    problem: dict[str, Any] | None
    frames_done: int | None = None
    frames: int | None = None
    position: int | None = None


class JobStore:
    """The jobs of a data folder, which is this process's alone while the store is open.

    Jobs that an earlier process left unfinished are failed ones from then on.

    Raises:
        InputError: another service works in the folder.
        OutputError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, keep_s: float) -> None:
        self.folder = folder.resolve()
        self._keep_s = keep_s
        self._mutex = threading.RLock()
        self._closing = contextlib.ExitStack()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            busy = f"another service works in {self.folder}; expected it to end first"
            self._closing.enter_context(hold_lock(self.folder / "lock", busy))
            self._jobs.mkdir(exist_ok=True)
            self._database = sqlite3.connect(self.folder / "jobs.sqlite", check_same_thread=False)
            self._database.row_factory = sqlite3.Row
            self._closing.callback(self._database.close)
            with self._database:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute(_TABLE)
            self._mend()
        except (OSError, sqlite3.Error) as error:
            self._closing.close()
            raise OutputError(f"cannot work in {folder}: {getattr(error, 'strerror', None) or error}") from error
        except BaseException:
            self._closing.close()
            raise

    def close(self) -> None:
        """Let another process have the folder."""
        with self._mutex:
            self._closing.close()

    @property
    def _jobs(self) -> Path:
        return self.folder / "jobs"

    def job_folder(self, job_id: str) -> Path:
        """Where the files of a job are; the number of a job is of our own making."""
        assert _ID.fullmatch(job_id)
        return self._jobs / job_id

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[str]:
        """The number of a new job with a folder, which is removed again unless the job is added in the block."""
        job_id = secrets.token_urlsafe(16)
        folder = self.job_folder(job_id)
        folder.mkdir(mode=0o700)
        try:
            yield job_id
        finally:
            if self.get(job_id) is None:
                shutil.rmtree(folder, ignore_errors=True)

    def add(self, job_id: str, options: dict[str, Any]) -> None:
        """Add a queued job."""
        self._write(
            "INSERT INTO jobs (id, state, created_at, options) VALUES (?, ?, ?, ?)",
            (job_id, QUEUED, time.time(), json.dumps(options)),
        )

    def get(self, job_id: str) -> Job | None:
        """A job as it was last written."""
        if not _ID.fullmatch(job_id):
            return None
        with self._mutex:
            row = self._database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            return None
        values = dict(row)
        for name in ("options", "result", "problem"):
            values[name] = None if values[name] is None else json.loads(values[name])
        job = Job(**values)
        is_over = job.expires_at is not None and job.expires_at < time.time()
        return None if is_over else job

    def start(self, job_id: str) -> None:
        """A worker is at it."""
        self._write("UPDATE jobs SET state = ?, started_at = ? WHERE id = ?", (RUNNING, time.time(), job_id))

    def finish(self, job_id: str, outcome: dict[str, Any] | Problem) -> None:
        """It is done, with a result, or has failed; what was uploaded is removed, after a failure everything."""
        now = time.time()
        failed = isinstance(outcome, Problem)
        content = json.dumps(outcome.body() if isinstance(outcome, Problem) else outcome)
        self._remove_files(job_id, () if failed else (VIDEO, PREVIEW, LANDMARKS))
        self._write(
            f"UPDATE jobs SET state = ?, finished_at = ?, expires_at = ?, {'problem' if failed else 'result'} = ? "
            "WHERE id = ?",
            (FAILED if failed else DONE, now, now + self._keep_s, content, job_id),
        )

    def remove(self, job_id: str) -> bool:
        """Forget a job; True if there was one. Its folder stays until :meth:`remove_folder`."""
        return self._write("DELETE FROM jobs WHERE id = ?", (job_id,)) > 0

    def remove_folder(self, job_id: str) -> None:
        shutil.rmtree(self.job_folder(job_id), ignore_errors=True)

    def remove_expired(self) -> int:
        """Remove the jobs whose time is over; how many there were."""
        with self._mutex:
            rows = self._database.execute("SELECT id FROM jobs WHERE expires_at < ?", (time.time(),)).fetchall()
        for row in rows:
            self.remove(row["id"])
            self.remove_folder(row["id"])
        return len(rows)

    def _remove_files(self, job_id: str, kept: Collection[str]) -> None:
        for path in self.job_folder(job_id).glob("*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def _mend(self) -> None:
        """What an earlier process left: unfinished jobs have failed, folders without a job are removed."""
        known = set()
        for row in self._database.execute("SELECT id, state FROM jobs").fetchall():
            if row["state"] == DONE and not (self.job_folder(row["id"]) / VIDEO).is_file():
                self.remove(row["id"])
                continue
            known.add(row["id"])
            if row["state"] not in FINAL:
                self.finish(row["id"], stopped_problem())
        for path in self._jobs.iterdir():
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        with self._mutex, self._database:
            return self._database.execute(statement, values).rowcount


def stopped_problem() -> Problem:
    """Why a job failed that was not finished when the service ended."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the service ended before the video was finished; send it again")
