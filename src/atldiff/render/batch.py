"""Many videos from one table of jobs, side by side, resumable; one bad job never stops the rest."""

import csv
import dataclasses
import functools
import glob
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atldiff._version import __version__
from atldiff.errors import InputError, OutputError
from atldiff.media.files import existing_file
from atldiff.processes.locks import hold_lock
from atldiff.processes.ray import run_on_ray
from atldiff.processes.workers import processors, run_apart
from atldiff.render.batch_table import RECORDS_NAME, BatchJob, read_jobs
from atldiff.results import Progress
from atldiff.storage.files import write_atomically, write_json

JSON_REPORT, CSV_REPORT = "report.json", "report.csv"

MADE, KEPT, FAILED, LEFT = "made", "kept", "failed", "left"
"""What became of a job: made now, made before, failed, or not reached before the run was stopped."""

_LOCK_NAME = "lock"
_REPORT_EVERY_S = 2.0
"""Seconds between two reports while jobs are made."""


@dataclass(frozen=True)
class BatchResult:
    """What became of a job; seconds, frames and the real-time factor are those of a video that was made now."""

    row: int
    line: int
    portrait: str
    speech: str
    output: str
    status: str
    error: str = ""
    seconds: float | None = None
    frames: int | None = None
    real_time_factor: float | None = None


def run_batch(
    table: str | Path,
    folder: str | Path,
    *,
    workers: int | None = None,
    model: str | Path = "compact",
    device: str = "auto",
    ray_address: str | None = None,
    progress: Progress | None = None,
    watch: Callable[[BatchResult], object] | None = None,
) -> list[BatchResult]:
    """Make the videos of a table; what was made by an earlier run from the same inputs and options is kept.

    ``report.json`` and ``report.csv`` in ``folder`` say what became of every job, also while it runs and when it is
    stopped.

    Args:
        table: a CSV file with the columns :data:`COLUMNS`, of which ``portrait`` and ``speech`` are needed; paths are
            relative to its folder, outputs to ``folder``; an empty cell is the default.
        folder: for the videos and the report; it is made if need be.
        workers: processes, or jobs at once on a Ray cluster; if None one for each processor, or as many as the
            cluster takes.
        model, device: as for :meth:`~atldiff.pipeline.ATLDiffPipeline.from_pretrained`.
        ray_address: of a Ray cluster that does the work in place of processes here; its machines see the same files.
        progress: called with (jobs done, all jobs).
        watch: called with each result as it becomes known, but for those of videos that are kept.

    Returns:
        One result a job, in the table's order.

    Raises:
        ModelError: there is no such model.
        InputError: the table cannot be read as one, there is no such Ray cluster, or another run works in ``folder``.
        OutputError: ``folder`` cannot be written to.
    """
    from atldiff.models.loading import model_folder

    folder = Path(folder).resolve()
    model_folder(model)
    jobs = read_jobs(table, folder, str(model), device)
    try:
        (folder / RECORDS_NAME).mkdir(parents=True, exist_ok=True)
        lock = folder / RECORDS_NAME / _LOCK_NAME
        with hold_lock(lock, f"another batch works in {folder}", "expected it to end first"):
            _remove_leftovers(jobs)
            run = _Run(jobs, folder, progress, watch)
            run.do(_side_by_side(workers, ray_address, device))
            return run.results
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error


def _side_by_side(workers: int | None, ray_address: str | None, device: str) -> Callable[..., Any]:
    """What makes jobs side by side."""
    if ray_address is None:
        return functools.partial(run_apart, workers=processors() if workers is None else workers)
    return functools.partial(run_on_ray, address=ray_address, workers=workers, gpus=int(device == "cuda"))


class _Run:
    """Jobs, and what is known of each."""

    def __init__(
        self,
        jobs: Sequence[BatchJob],
        folder: Path,
        progress: Progress | None,
        watch: Callable[[BatchResult], object] | None,
    ) -> None:
        self._jobs, self._folder, self._progress, self._watch = jobs, folder, progress, watch
        self._results = {job.row: _known_result(job) for job in jobs}
        self._report_due = 0.0

    @property
    def results(self) -> list[BatchResult]:
        return list(self._results.values())

    def do(self, work_through: Callable[..., Any]) -> None:
        missing = [job for job in self._jobs if self._results[job.row].status == LEFT]
        for result in self.results:
            if result.status == FAILED:
                self._pass_on(result)
        try:
            self._write_report()
            for number, outcome in work_through(make_job, missing) if missing else ():
                job = missing[number]
                is_made = isinstance(outcome, BatchResult)
                result = outcome if is_made else _result(job, FAILED, error=" ".join(str(outcome).split()))
                self._results[job.row] = result
                self._pass_on(result)
                self._write_report()
        finally:
            self._report_due = 0.0
            self._write_report()

    def _pass_on(self, result: BatchResult) -> None:
        if self._watch is not None:
            self._watch(result)
        if self._progress is not None:
            done = sum(known.status != LEFT for known in self._results.values())
            self._progress(done, len(self._jobs))

    def _write_report(self) -> None:
        """The report so far, unless it has just been written."""
        if time.monotonic() >= self._report_due:
            _write_report(self._folder, self.results)
            self._report_due = time.monotonic() + _REPORT_EVERY_S


def _known_result(job: BatchJob) -> BatchResult:
    """What is known without doing the job: that it cannot be done, was done before, or is left to do."""
    try:
        if job.fault:
            raise InputError(job.fault)
        return _result(job, KEPT if _is_made(job, _fingerprint(job)) else LEFT)
    except InputError as error:
        return _result(job, FAILED, error=str(error))


def make_job(job: BatchJob) -> BatchResult:
    """Make the video of one job.

    The record of what an output was made from is removed before it is made anew and written after it is in place, so
    that whatever ends the process never leaves an output with a record that is not its own.

    Raises:
        ATLDiffError: the job cannot be done; the text says why.
    """
    from atldiff.render.video import render_video

    made_from = _fingerprint(job)
    job.record.unlink(missing_ok=True)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    report = render_video(_pipeline(job.model, job.device), job.portrait, job.speech, job.output, **job.options)
    state = job.output.stat()
    write_json(job.record, {"made_from": made_from, "size": state.st_size, "modified_ns": state.st_mtime_ns})
    factor = round(report.real_time_factor, 3)
    return _result(job, MADE, seconds=round(report.seconds, 3), frames=report.frames, real_time_factor=factor)


@functools.lru_cache(maxsize=1)
def _pipeline(model: str, device: str) -> Any:
    from atldiff.pipeline import ATLDiffPipeline

    return ATLDiffPipeline.from_pretrained(model, device)


def _is_made(job: BatchJob, made_from: str) -> bool:
    try:
        record, state = json.loads(job.record.read_text()), job.output.stat()
    except (OSError, ValueError):
        return False
    return record == {"made_from": made_from, "size": state.st_size, "modified_ns": state.st_mtime_ns}


def _fingerprint(job: BatchJob) -> str:
    """Of all that the video is made from: the inputs' and the model's bytes, the options, the version."""
    from atldiff.models.loading import model_folder

    folder = model_folder(job.model)
    parts = [path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".safetensors")]
    model = [[path.relative_to(folder).as_posix(), _digest(path)] for path in parts]
    inputs = [_digest(job.portrait), _digest(job.speech)]
    content = [__version__, model, inputs, sorted(job.options.items())]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _digest(path: Path) -> str:
    existing_file(path, "a file")
    try:
        state = path.stat()
        return _file_digest(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected a file") from error


@functools.lru_cache(maxsize=1024)
def _file_digest(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _result(job: BatchJob, status: str, **more: Any) -> BatchResult:
    return BatchResult(job.row, job.line, str(job.portrait), str(job.speech), str(job.output), status, **more)


def _write_report(folder: Path, results: Sequence[BatchResult]) -> None:
    rows = [dataclasses.asdict(result) for result in results]
    counts = {status: sum(row["status"] == status for row in rows) for status in (MADE, KEPT, FAILED, LEFT)}
    write_json(folder / JSON_REPORT, {"counts": counts, "jobs": rows})
    table = io.StringIO()
    writer = csv.DictWriter(table, [field.name for field in dataclasses.fields(BatchResult)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / CSV_REPORT, table.getvalue().encode())


def _remove_leftovers(jobs: Sequence[BatchJob]) -> None:
    """Remove the half-written videos of a killed run, which have the hidden names of the video writer."""
    for job in jobs:
        for path in job.output.parent.glob(f".{glob.escape(job.output.name[:40])}.????????.mp4"):
            path.unlink(missing_ok=True)
