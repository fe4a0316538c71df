"""A table of jobs, as people write it: what is wrong with a row is that row's fault alone."""

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from atldiff.errors import InputError
from atldiff.media.framing import check_framing
from atldiff.options import FramingOptions, GenerationOptions, known_options

RECORDS_NAME = ".atldiff-batch"
"""Folder, inside that of the videos, with what each was made from."""

_FRAMING = known_options(FramingOptions)
_OPTIONS = {name: about for name, (about, _) in (known_options(GenerationOptions) | _FRAMING).items()}
_TRUTHS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
COLUMNS = ("portrait", "speech", "output", *_OPTIONS)

_DELIMITERS = ",;\t"
_LARGEST_TABLE = 2**26
_LONGEST_NAME, _LONGEST_STEM = 240, 200
"""Bytes: file systems take 255, of which the record and the unfinished file need some."""


@dataclass(frozen=True)
class BatchJob:
    """One video to make.

    Attributes:
        row: of the table, the first below the header is 1.
        line: of the file, where the row begins.
        portrait, speech: the inputs.
        output: the file to write.
        options: keyword arguments of :meth:`~atldiff.pipeline.ATLDiffPipeline.stream`.
        model, device: as for :meth:`~atldiff.pipeline.ATLDiffPipeline.from_pretrained`.
        record: the file that says what ``output`` was made from.
        fault: what is wrong with the row, where something is.
    """

    row: int
    line: int
    portrait: Path
    speech: Path
    output: Path
    options: dict[str, Any]
    model: str
    device: str
    record: Path
    fault: str = ""


def read_jobs(table: str | Path, folder: Path, model: str = "compact", device: str = "auto") -> list[BatchJob]:
    """The jobs of a table; what is wrong with a row alone stands in its ``fault``.

    Args:
        table: text in UTF-8, or in UTF-16 with its mark, with commas, semicolons or tabs between its cells; rows
            without any content are left out.
        folder: for the videos.
        model, device: of every job.

    Raises:
        InputError: no such file, no such text, no CSV, unknown or missing columns, or no rows.
    """
    path = Path(table)
    rows = _rows(path)
    wanted = [_wished_name(cells.get("output", "")) for _, cells in rows]
    taken = {_same(folder / name) for name in wanted if name is not None}
    owners: dict[str, int] = {}
    jobs = []
    for number, (line, cells) in enumerate(rows, start=1):
        job = _job(number, line, cells, path.resolve().parent, folder, model, device, taken, owners)
        jobs.append(job)
    return jobs


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The line where each row begins, and its cells by column; those too many are under ""."""
    text = _text(path)
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=head.count)
    found = [(line, cells) for line, cells in _cells(path, text, delimiter) if any(cells)]
    names = [name.lower() for name in found[0][1]] if found else []
    while names and not names[-1]:
        names.pop()
    if len(found) < 2 or not {"portrait", "speech"} <= set(names):
        raise InputError(f"{path} has no rows with the columns portrait and speech; expected {', '.join(COLUMNS)}")
    if unknown := [name for name in names if name not in COLUMNS or names.count(name) > 1]:
        raise InputError(f"{path} has the column {unknown[0]!r}, or twice; expected {', '.join(COLUMNS)}")
    rows = []
    for line, cells in found[1:]:
        row = dict(zip(names, cells, strict=False))
        rows.append((line, row | {"": " ".join(filter(None, cells[len(names) :]))}))
    return rows


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_TABLE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); expected a CSV file of jobs") from error
    if len(content) > _LARGEST_TABLE:
        raise InputError(f"{path} has more than {_LARGEST_TABLE >> 20} MiB; expected a CSV file of jobs")
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} cannot be read: line {line} is no UTF-8; expected it, or UTF-16") from error


def _cells(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The line where each row begins, and its cells."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            begin = reader.line_num - sum(cell.count("\n") for cell in cells)
            yield begin, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise InputError(
            f"{path} cannot be read at line {reader.line_num} ({error}); expected a CSV file of jobs"
        ) from error


def _job(
    number: int,
    line: int,
    cells: dict[str, str],
    base: Path,
    folder: Path,
    model: str,
    device: str,
    taken: set[str],
    owners: dict[str, int],
) -> BatchJob:
    given = {name: cells.get(name, "") for name in COLUMNS}
    portrait, speech = base / given["portrait"], base / given["speech"]
    fault, options = "", {}
    try:
        _check_cells(given, cells[""])
        name = _output_name(given["output"])
        options = _checked_options(given)
        if name is None:
            name = _free_name(f"{portrait.stem}_{speech.stem}", folder, taken)
        owner = owners.setdefault(_same(folder / name), line)
        if owner != line:
            raise InputError(f"its output is {str(name)!r}, as that of line {owner}; expected another")
    except InputError as error:
        name, fault = PurePosixPath(f"row-{number}.mp4"), f"line {line}: {error}"
    output = folder / name
    record = folder / RECORDS_NAME / f"{name}.json"
    return BatchJob(number, line, portrait, speech, output, options, model, device, record, fault)


def _check_cells(given: dict[str, str], surplus: str) -> None:
    if surplus:
        raise InputError(f"it has cells too many ({surplus[:40]!r})")
    if not given["portrait"] or not given["speech"]:
        raise InputError("it names no portrait or no speech")
    for name, value in given.items():
        if "\0" in value:
            raise InputError(f"its {name} is {value[:40]!r}; expected no NUL character")


def _same(path: Path) -> str:
    """Equal for names that some file systems take for the same."""
    return str(path).casefold()


def _free_name(stem: str, folder: Path, taken: set[str]) -> PurePosixPath:
    short = stem.encode()[:_LONGEST_STEM].decode(errors="ignore")
    names = (PurePosixPath(f"{short}{suffix}.mp4") for suffix in ("", *(f"_{number}" for number in range(2, 10**6))))
    name = next(name for name in names if _same(folder / name) not in taken)
    taken.add(_same(folder / name))
    return name


def _wished_name(text: str) -> PurePosixPath | None:
    try:
        return _output_name(text)
    except InputError:
        return None


def _output_name(text: str) -> PurePosixPath | None:
    """The name in an output cell, None where it is empty."""
    name = PurePosixPath(text.replace("\\", "/"))
    if not text:
        return None
    if name.is_absolute() or ".." in name.parts or name.suffix.lower() != ".mp4" or name.parts[0] == RECORDS_NAME:
        raise InputError(f"its output is {text!r}; expected a name inside the batch's folder that ends in .mp4")
    if any(len(part.encode()) > _LONGEST_NAME for part in name.parts):
        raise InputError(f"its output is {text[:40]!r} and more; expected names of at most {_LONGEST_NAME} bytes")
    return name


def _checked_options(given: dict[str, str]) -> dict[str, Any]:
    options = {name: _read(name, given[name]) for name in _OPTIONS if given[name]}
    check_framing(**{name: value for name, value in options.items() if name in _FRAMING})
    GenerationOptions(**{name: value for name, value in options.items() if name not in _FRAMING})
    return options


def _read(name: str, cell: str) -> Any:
    """The value in a cell of an option."""
    about = _OPTIONS[name]
    if about.kind is bool:
        if cell.lower() not in _TRUTHS:
            raise InputError(f"its {name} is {cell!r}; expected yes or no")
        return _TRUTHS[cell.lower()]
    try:
        return about.kind(cell)
    except ValueError as error:
        raise InputError(f"its {name} is {cell!r}; expected a number") from error
