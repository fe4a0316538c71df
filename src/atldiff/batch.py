"""Many videos from one table of jobs, side by side, resumable; one bad job never stops the rest."""

import csv
import dataclasses
import functools
import glob
import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import atldiff
from atldiff.errors import ATLDiffError, InputError, OutputError
from atldiff.locks import hold_lock
from atldiff.options import GenerationOptions
from atldiff.serialization import write_atomically, write_json
from atldiff.workers import processors, run_apart

RECORDS_NAME = ".atldiff-batch"
JSON_REPORT, CSV_REPORT = "report.json", "report.csv"

MADE, KEPT, FAILED, LEFT = "made", "kept", "failed", "left"
"""What became of a job: made now, made before, failed, or not reached before the run was stopped."""

_LOCK_NAME = "lock"
_NUMBERS: dict[str, Callable[[str], Any]] = {
    "fps": float,
    "steps": int,
    "seed": int,
    "intensity": float,
    "head_motion": float,
    "mouth": float,
    "look_ahead_s": float,
    "face": int,
}
_TRUTHS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_SWITCHES = ("crop_only", "badge")
_OPTIONS = (*_NUMBERS, "emotion", "blink", *_SWITCHES)
COLUMNS = ("portrait", "speech", "output", *_OPTIONS)

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Job:
    """One video to make.

    Attributes:
        row: of the table, the first below the header is 1.
        portrait, speech: the inputs.
        output: the file to write.
        options: keyword arguments of :meth:`~atldiff.pipeline.ATLDiffPipeline.stream`.
        model, device: as for :meth:`~atldiff.pipeline.ATLDiffPipeline.from_pretrained`.
        record: the file that says what ``output`` was made from.
        fault: what is wrong with the row, where something is.
    """

    row: int
    portrait: Path
    speech: Path
    output: Path
    options: dict[str, Any]
    model: str
    device: str
    record: Path
    fault: str = ""


@dataclass(frozen=True)
class JobResult:
    """What became of a job; seconds, frames and the real-time factor are those of a video that was made now."""

    row: int
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
) -> list[JobResult]:
    """Make the videos of a table; what was made by an earlier run from the same inputs and options is kept.

    ``report.json`` and ``report.csv`` in ``folder`` say what became of every job, also when the run is stopped.

    Args:
        table: a CSV file with the columns :data:`COLUMNS`, of which ``portrait`` and ``speech`` are needed; paths are
            relative to its folder, outputs to ``folder``; an empty cell is the default.
        folder: for the videos and the report; it is made if need be.
        workers: processes, or tasks at once on a Ray cluster; if None one for each processor, or as many as the
            cluster takes.
        model, device: as for :meth:`~atldiff.pipeline.ATLDiffPipeline.from_pretrained`.
        ray_address: of a Ray cluster that does the work in place of processes here; its machines see the same files.
        progress: called with (jobs done, all jobs).

    Returns:
        One result a job, in the table's order.

    Raises:
        ModelError: there is no such model.
        InputError: the table cannot be read as one, there is no such Ray cluster, or another run works in ``folder``.
        OutputError: ``folder`` cannot be written to.
    """
    from atldiff.pipeline import model_folder

    folder = Path(folder).resolve()
    model_folder(model)
    jobs = read_jobs(table, folder, str(model), device)
    try:
        (folder / RECORDS_NAME).mkdir(parents=True, exist_ok=True)
        with hold_lock(
            folder / RECORDS_NAME / _LOCK_NAME, f"another batch works in {folder}; expected it to end first"
        ):
            _remove_leftovers(jobs)
            return _run(jobs, folder, workers, ray_address, progress)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error


def read_jobs(table: str | Path, folder: Path, model: str = "compact", device: str = "auto") -> list[Job]:
    """The jobs of a table; what is wrong with a row alone stands in its ``fault``.

    Raises:
        InputError: no such file, no CSV, unknown or missing columns, no rows, or two rows with one output.
    """
    path = Path(table)
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); expected a CSV file of jobs") from error
    names = set(rows[0]) if rows else set()
    if not {"portrait", "speech"} <= names:
        raise InputError(f"{path} has no rows with the columns portrait and speech; expected {', '.join(COLUMNS)}")
    if unknown := sorted(str(name) for name in names - set(COLUMNS)):
        raise InputError(f"{path} has the column {unknown[0]!r}; expected {', '.join(COLUMNS)}")
    taken: dict[Path, int] = {}
    jobs = []
    for number, row in enumerate(rows, start=1):
        job = _job(number, row, path.resolve().parent, folder, model, device, taken)
        if job.output in taken:
            raise InputError(
                f"rows {taken[job.output]} and {number} of {path} both write {job.output}; expected one each"
            )
        taken[job.output] = number
        jobs.append(job)
    return jobs


def _job(
    number: int, row: dict[Any, Any], base: Path, folder: Path, model: str, device: str, taken: dict[Path, int]
) -> Job:
    given = {name: (row.get(name) or "").strip() for name in COLUMNS}
    fault, options = "", {}
    try:
        if None in row:
            raise InputError(f"it has {len(row[None])} cells too many")
        if not given["portrait"] or not given["speech"]:
            raise InputError("it names no portrait or no speech")
        name = _output_name(given["output"])
        options = _checked_options(given)
    except InputError as error:
        name, fault = PurePosixPath(f"row-{number}.mp4"), f"row {number}: {error}"
    portrait, speech = base / given["portrait"], base / given["speech"]
    if name is None:
        name = _free_name(f"{portrait.stem}_{speech.stem}", folder, taken)
    output = folder / name
    record = folder / RECORDS_NAME / f"{name}.json"
    return Job(number, portrait, speech, output, options, model, device, record, fault)


def _free_name(stem: str, folder: Path, taken: dict[Path, int]) -> PurePosixPath:
    names = (PurePosixPath(f"{stem}{suffix}.mp4") for suffix in ("", *(f"_{number}" for number in range(2, 10**6))))
    return next(name for name in names if folder / name not in taken)


def _output_name(text: str) -> PurePosixPath | None:
    """The name in an output cell, None where it is empty."""
    name = PurePosixPath(text.replace("\\", "/"))
    if not text:
        return None
    if name.is_absolute() or ".." in name.parts or name.suffix.lower() != ".mp4" or name.parts[0] == RECORDS_NAME:
        raise InputError(f"its output is {text!r}; expected a name inside the batch's folder that ends in .mp4")
    return name


def _checked_options(given: dict[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {name: given[name] for name in ("emotion", "blink") if given[name]}
    for name, read in _NUMBERS.items():
        if given[name]:
            try:
                options[name] = read(given[name])
            except ValueError as error:
                raise InputError(f"its {name} is {given[name]!r}; expected a number") from error
    for name in filter(given.get, _SWITCHES):
        if given[name].lower() not in _TRUTHS:
            raise InputError(f"its {name} is {given[name]!r}; expected yes or no")
        options[name] = _TRUTHS[given[name].lower()]
    GenerationOptions(**{name: value for name, value in options.items() if name not in ("face", *_SWITCHES)})
    return options


def _run(
    jobs: Sequence[Job], folder: Path, workers: int | None, ray_address: str | None, progress: Progress | None
) -> list[JobResult]:
    if ray_address is None:
        tasks = functools.partial(run_apart, workers=processors() if workers is None else workers)
    else:
        tasks = functools.partial(_run_on_ray, address=ray_address, workers=workers)
    results = {job.row: _known_result(job) for job in jobs}
    missing = [job for job in jobs if results[job.row].status == LEFT]
    known = len(jobs) - len(missing)
    try:
        for done, (number, outcome) in enumerate(tasks(make_job, missing) if missing else (), start=known + 1):
            job = missing[number]
            results[job.row] = outcome if isinstance(outcome, JobResult) else _result(job, FAILED, error=str(outcome))
            if progress is not None:
                progress(done, len(jobs))
    finally:
        _write_report(folder, list(results.values()))
    return list(results.values())


def _known_result(job: Job) -> JobResult:
    """What is known without doing the job: that it cannot be done, was done before, or is left to do."""
    try:
        if job.fault:
            raise InputError(job.fault)
        return _result(job, KEPT if _is_made(job, _fingerprint(job)) else LEFT)
    except InputError as error:
        return _result(job, FAILED, error=str(error))


def make_job(job: Job) -> JobResult:
    """Make the video of one job.

    The record of what an output was made from is removed before it is made anew and written after it is in place, so
    that whatever ends the process never leaves an output with a record that is not its own.

    Raises:
        ATLDiffError: the job cannot be done; the text says why.
    """
    from atldiff.render import render_video

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


def _is_made(job: Job, made_from: str) -> bool:
    try:
        record, state = json.loads(job.record.read_text()), job.output.stat()
    except (OSError, ValueError):
        return False
    return record == {"made_from": made_from, "size": state.st_size, "modified_ns": state.st_mtime_ns}


def _fingerprint(job: Job) -> str:
    """Of all that the video is made from: the inputs' and the model's bytes, the options, the version."""
    from atldiff.pipeline import model_folder

    folder = model_folder(job.model)
    parts = [path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".safetensors")]
    model = [[path.relative_to(folder).as_posix(), _digest(path)] for path in parts]
    inputs = [_digest(job.portrait), _digest(job.speech)]
    content = [atldiff.__version__, model, inputs, sorted(job.options.items())]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        state = path.stat()
        return _file_digest(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected a file") from error


@functools.lru_cache(maxsize=1024)
def _file_digest(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _run_on_ray(
    function: Callable[[Job], JobResult], jobs: Sequence[Job], address: str, workers: int | None
) -> Iterator[tuple[int, JobResult | ATLDiffError]]:
    """Like :func:`~atldiff.workers.run_apart` on a Ray cluster, at most ``workers`` jobs at once."""
    try:
        import ray
    except ImportError as error:
        raise InputError('a Ray cluster needs Ray: pip install "atldiff[ray]"') from error
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster at {address!r}: {error}") from error
    needs: dict[str, Any] = {"num_cpus": 1, "num_gpus": int(jobs[0].device == "cuda"), "max_retries": 0}
    remote = ray.remote(**needs)(function)
    try:
        waiting, running = list(enumerate(jobs))[::-1], {}
        while waiting or running:
            while waiting and (workers is None or len(running) < workers):
                number, job = waiting.pop()
                running[remote.remote(job)] = number
            ready, _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ready[0]), _ray_outcome(ray, ready[0])
    finally:
        ray.shutdown()


def _ray_outcome(ray: Any, reference: Any) -> JobResult | ATLDiffError:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        return cause if isinstance(cause, ATLDiffError) else ATLDiffError(f"{type(cause).__name__}: {cause}")
    except ray.exceptions.RayError as error:
        return InputError(f"the Ray worker ended, perhaps for want of memory: {error}")


def _result(job: Job, status: str, **more: Any) -> JobResult:
    return JobResult(job.row, str(job.portrait), str(job.speech), str(job.output), status, **more)


def _write_report(folder: Path, results: Sequence[JobResult]) -> None:
    rows = [dataclasses.asdict(result) for result in results]
    counts = {status: sum(row["status"] == status for row in rows) for status in (MADE, KEPT, FAILED, LEFT)}
    write_json(folder / JSON_REPORT, {"counts": counts, "jobs": rows})
    table = io.StringIO()
    writer = csv.DictWriter(table, [field.name for field in dataclasses.fields(JobResult)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / CSV_REPORT, table.getvalue().encode())


def _remove_leftovers(jobs: Sequence[Job]) -> None:
    """Remove the half-written videos of a killed run, which have the hidden names of the video writer."""
    for job in jobs:
        for path in job.output.parent.glob(f".{glob.escape(job.output.name[:40])}.????????.mp4"):
            path.unlink()
