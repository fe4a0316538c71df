"""Jobs on disk: a table in SQLite and a private folder a job. What is finished survives a restart.

The data folder is the service's own and says so in a marker file: what lies in any other is never touched.
"""

import contextlib
import json
import logging
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from errno import ENOSPC
from http import HTTPStatus
from pathlib import Path
from typing import Any

from atldiff.errors import InputError, OutputError
from atldiff.processes.locks import hold_lock
from atldiff.serve.problems import Problem

QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"
FINAL = (DONE, FAILED)

PORTRAIT, SPEECH, VIDEO = "portrait", "speech", "video.mp4"
PREVIEW, LANDMARKS = "preview.jpg", "landmarks.json"
TEXT, VOICE, OFFER = "text", "voice", "offer"
"""Names in a job's folder."""

MARKER_NAME = ".atldiff-service"
"""Makes a folder the service's own."""

ID_PATTERN = r"^[A-Za-z0-9_-]{22}$"

_ID = re.compile(ID_PATTERN, re.ASCII)
_MARKER_TEXT = b"The jobs of ATL-Diff's service; it removes from this folder what it has no use for.\n"
_JOBS, _LIVE, _LOCK, _DATABASE = "jobs", "live", "lock", "jobs.sqlite"
_UNMARKED_NAMES = {_JOBS, _LOCK, *(f"{_DATABASE}{suffix}" for suffix in ("", "-wal", "-shm", "-journal"))}
"""What a folder holds that was made before there was a marker."""
_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, created_at REAL NOT NULL, started_at REAL, finished_at REAL,
    expires_at REAL, options TEXT NOT NULL, result TEXT, problem TEXT
)
"""
_LATER_COLUMNS = {"owner": "TEXT NOT NULL DEFAULT ''", "webhook": "TEXT"}
_PASSING = ("locked", "busy")
_LEAST_FREE_BYTES = 16 * 2**20
_PROBE_NAME, _PROBE = "probe", bytes(2**16)

_log = logging.getLogger("atldiff")


@dataclass(frozen=True)
class Job:
    """One video to make, being made, or made; times are seconds since 1970.

    Attributes:
        state: ``queued``, ``running``, ``done`` or ``failed``.
        expires_at: when it will be removed.
        options: keyword arguments of :meth:`~atldiff.pipeline.ATLDiffPipeline.stream`.
        result: what was made.
        problem: why it failed, the body of a :class:`~atldiff.serve.problems.Problem`.
        owner: who made it, see :func:`atldiff.serve.http.guard.owner_of`.
        webhook: the address that is still to be told of its end.
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
    owner: str = ""
    webhook: str | None = None
    frames_done: int | None = None
    frames: int | None = None
    position: int | None = None


class JobStore:
    """The jobs of a data folder, which is this process's alone while the store is open.

    Jobs that an earlier process left unfinished are failed ones from then on. While the disk is full or the table
    cannot be written, methods raise a :class:`~atldiff.serve.problems.Problem` of status 503 or 507, :attr:`fault`
    says why, and how jobs ended is remembered until :meth:`settle` can write it down.

    Args:
        folder: a new or empty one, or one that is the service's own.
        keep_s: from the end of a job to its removal.

    Raises:
        InputError: another service works in the folder, or it holds something else.
        OutputError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, keep_s: float) -> None:
        self.folder = folder.resolve()
        self.fault = ""
        self._keep_s = keep_s
        self._mutex = threading.RLock()
        self._new: set[str] = set()
        self._unwritten: dict[str, dict[str, Any]] = {}
        self._closing = contextlib.ExitStack()
        try:
            _claim(self.folder)
            self.folder.chmod(0o700)
            busy = f"another service works in {self.folder}"
            self._closing.enter_context(hold_lock(self.folder / _LOCK, busy, "expected it to end first"))
            for place in (self._jobs, self.live_folder):
                place.mkdir(mode=0o700, exist_ok=True)
            self._database = sqlite3.connect(self.folder / _DATABASE, check_same_thread=False)
            self._database.row_factory = sqlite3.Row
            self._closing.callback(self._database.close)
            with self._database:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute(_TABLE)
                there = {row[1] for row in self._database.execute("PRAGMA table_info(jobs)")}
                for name, kind in _LATER_COLUMNS.items():
                    if name not in there:
                        self._database.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")
            self._recover()
        except (OSError, sqlite3.Error, Problem) as error:
            self._closing.close()
            reason = getattr(error, "strerror", None) or getattr(error, "log", None) or error
            raise OutputError(f"cannot work in {folder}: {reason}; expected a writable folder") from error
        except BaseException:
            self._closing.close()
            raise

    def close(self) -> None:
        """Let another process have the folder."""
        with self._mutex:
            self._closing.close()

    @property
    def _jobs(self) -> Path:
        return self.folder / _JOBS

    @property
    def live_folder(self) -> Path:
        """Where the portraits of live sessions are while they last; emptied at each start."""
        return self.folder / _LIVE

    def job_folder(self, job_id: str) -> Path:
        """Where the files of a job are; the number of a job is of our own making."""
        assert _ID.fullmatch(job_id)
        return self._jobs / job_id

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[str]:
        """The number of a new job with a folder, which is removed again unless the job is added in the block."""
        job_id = secrets.token_urlsafe(16)
        folder = self.job_folder(job_id)
        with self._alone():
            folder.mkdir(mode=0o700)
        self._new.add(job_id)
        try:
            yield job_id
        finally:
            if job_id in self._new:
                self._new.remove(job_id)
                shutil.rmtree(folder, ignore_errors=True)

    def add(self, job_id: str, options: dict[str, Any], owner: str = "", webhook: str | None = None) -> None:
        """Add a queued job."""
        self._write(
            "INSERT INTO jobs (id, state, created_at, options, owner, webhook) VALUES (?, ?, ?, ?, ?, ?)",
            (job_id, QUEUED, time.time(), json.dumps(options), owner, webhook),
        )
        self._new.discard(job_id)

    def get(self, job_id: str) -> Job | None:
        """A job as it was last written, or has ended since."""
        if not _ID.fullmatch(job_id):
            return None
        with self._alone():
            row = self._database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else self._job(row)

    def newest(self, owner: str, most: int) -> list[Job]:
        """The jobs of an owner, the newest first, at most so many."""
        statement = "SELECT * FROM jobs WHERE owner = ? ORDER BY created_at DESC, rowid DESC LIMIT ?"
        with self._alone():
            rows = self._database.execute(statement, (owner, most)).fetchall()
        return [job for row in rows if (job := self._job(row)) is not None]

    def _job(self, row: sqlite3.Row) -> Job | None:
        values = dict(row) | self._unwritten.get(row["id"], {})
        for name in ("options", "result", "problem"):
            values[name] = None if values[name] is None else json.loads(values[name])
        job = Job(**values)
        is_over = job.expires_at is not None and job.expires_at < time.time()
        return None if is_over else job

    def start(self, job_id: str) -> None:
        """A worker is at it."""
        self._write("UPDATE jobs SET state = ?, started_at = ? WHERE id = ?", (RUNNING, time.time(), job_id))

    def finish(self, job_id: str, outcome: dict[str, Any] | Problem) -> None:
        """It is done, with a result, or has failed; what was uploaded is removed, after a failure everything.

        Never raises: what cannot be written down now is so later, by :meth:`settle`.
        """
        now = time.time()
        ended: dict[str, Any] = {"finished_at": now, "expires_at": now + self._keep_s}
        if isinstance(outcome, Problem):
            ended |= {"state": FAILED, "problem": json.dumps(outcome.body())}
        else:
            ended |= {"state": DONE, "result": json.dumps(outcome)}
        with self._mutex:
            self._unwritten[job_id] = ended
        with contextlib.suppress(Problem):
            self._write_end(job_id)

    def _write_end(self, job_id: str) -> None:
        ended = self._unwritten.get(job_id)
        if ended is None:
            return
        with self._alone():
            self._remove_files(job_id, (VIDEO, PREVIEW, LANDMARKS) if ended["state"] == DONE else ())
        columns = ", ".join(f"{name} = ?" for name in ended)
        self._write(f"UPDATE jobs SET {columns} WHERE id = ?", (*ended.values(), job_id))
        with self._mutex:
            self._unwritten.pop(job_id, None)

    def settle(self) -> None:
        """Find out whether jobs can be stored, and write down what could not be before."""
        with self._alone():
            (self.folder / _PROBE_NAME).write_bytes(_PROBE)
            (self.folder / _PROBE_NAME).unlink()
            if shutil.disk_usage(self.folder).free < _LEAST_FREE_BYTES:
                raise OSError(ENOSPC, f"less than {_LEAST_FREE_BYTES >> 20} MiB are free")
        for job_id in list(self._unwritten):
            self._write_end(job_id)
        self._write("PRAGMA user_version = 1")
        self.fault = ""

    def untold(self) -> list[str]:
        """The jobs that have ended, and of whose end an address is still to be told."""
        statement = "SELECT id FROM jobs WHERE webhook IS NOT NULL AND state IN (?, ?)"
        with self._alone():
            return [row["id"] for row in self._database.execute(statement, FINAL).fetchall()]

    def forget_webhook(self, job_id: str) -> None:
        """Nobody is to be told of it any more."""
        self._write("UPDATE jobs SET webhook = NULL WHERE id = ?", (job_id,))

    def remove(self, job_id: str) -> bool:
        """Forget a job; True if there was one. Its folder stays until :meth:`remove_folder`."""
        with self._mutex:
            self._unwritten.pop(job_id, None)
        return self._write("DELETE FROM jobs WHERE id = ?", (job_id,)) > 0

    def remove_folder(self, job_id: str) -> None:
        """Remove a job's files, as far as that can be done."""
        shutil.rmtree(self.job_folder(job_id), ignore_errors=True)

    def remove_expired(self) -> int:
        """Remove the jobs whose time is over; how many there were."""
        with self._alone():
            rows = self._database.execute("SELECT id FROM jobs WHERE expires_at < ?", (time.time(),)).fetchall()
        for row in rows:
            self.remove(row["id"])
            self.remove_folder(row["id"])
        return len(rows)

    def _remove_files(self, job_id: str, kept: Collection[str]) -> None:
        for path in self.job_folder(job_id).glob("*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def _recover(self) -> None:
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
            if path.name not in known and _ID.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.live_folder.iterdir():
            shutil.rmtree(path, ignore_errors=True)

    def _write(self, statement: str, values: tuple[Any, ...] = ()) -> int:
        with self._alone(), self._database:
            return self._database.execute(statement, values).rowcount

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Alone with the table and the folder; what fails there is a Problem, and :attr:`fault` says why."""
        try:
            with self._mutex:
                yield
        except (OSError, sqlite3.Error) as error:
            fault = getattr(error, "strerror", None) or str(error)
            if fault != self.fault:
                _log.error("the jobs in %s cannot be written: %s", self.folder, fault)
            self.fault = fault
            raise _store_problem(fault) from error


def _claim(folder: Path) -> None:
    """Make a new or empty folder the service's own.

    Raises:
        InputError: it holds something else.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    marker = folder / MARKER_NAME
    is_strange = any(folder.iterdir()) and not _was_made_before_markers(folder)
    if marker.is_file():
        return
    if is_strange:
        raise InputError(f"{folder} holds other files; expected a new or empty folder, or one of this service's own")
    marker.write_bytes(_MARKER_TEXT)


def _was_made_before_markers(folder: Path) -> bool:
    """Whether everything in a folder without a marker is the service's own."""
    if not {path.name for path in folder.iterdir()} <= _UNMARKED_NAMES or not (folder / _DATABASE).is_file():
        return False
    jobs = folder / _JOBS
    if jobs.is_dir() and not all(_ID.fullmatch(path.name) for path in jobs.iterdir()):
        return False
    address = f"{(folder / _DATABASE).as_uri()}?mode=ro"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(address, uri=True)) as database:
        names = {row[1] for row in database.execute("PRAGMA table_info(jobs)")}
        return {"id", "state", "expires_at", "options", "problem"} <= names
    return False


def _store_problem(fault: str) -> Problem:
    """Why a job cannot be stored or looked up."""
    if any(word in fault for word in _PASSING):
        headers = {"Retry-After": "5"}
        detail = "the service cannot get at its jobs now; try again later"
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=headers, log=fault)
    return Problem(HTTPStatus.INSUFFICIENT_STORAGE, "the service cannot store its jobs; its log says why", log=fault)


def stopped_problem() -> Problem:
    """Why a job failed that was not finished when the service ended."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the service ended before the video was finished; send it again")
