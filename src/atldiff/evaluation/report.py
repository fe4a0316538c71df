"""What an evaluation found, for machines (JSON), for readers (Markdown) and for the eye (one page)."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atldiff.errors import OutputError
from atldiff.evaluation.page import page
from atldiff.evaluation.scores import EvaluationReport, Groups
from atldiff.evaluation.tables import INTERVALS, Cell, Table, report_tables
from atldiff.storage.files import write_atomically

JSON_NAME, MARKDOWN_NAME, PAGE_NAME = "report.json", "report.md", "report.html"


def write_report(report: EvaluationReport, folder: Path) -> None:
    """Write ``report.json``, ``report.md`` and ``report.html`` into ``folder``, which is made.

    Raises:
        OutputError: they cannot be written there; files that were there stay.
    """
    tables = report_tables(report)
    contents = {
        JSON_NAME: json.dumps(_without_nan(_content(report)), indent=1, allow_nan=False) + "\n",
        MARKDOWN_NAME: markdown(report, tables),
        PAGE_NAME: page(report, tables),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content.encode())
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}); expected a writable folder") from error


def _content(report: EvaluationReport) -> dict[str, Any]:
    """Everything but the pictures."""
    return {
        "model": report.model,
        "data": report.data,
        "split": report.split,
        "seed": report.seed,
        "by_corpus": _plain(report.by_corpus()),
        "by_emotion": _plain(report.by_emotion()),
        "by_speaker": _plain(report.by_speaker()),
        "frechet": report.frechet,
        "mouth_frechet": report.mouth_frechet,
        "scores": [asdict(score) for score in report.scores],
        "mouth_openings": [asdict(curves) for curves in report.curves],
        "skipped": [{"key": key, "reason": reason} for key, reason in report.skipped],
    }


def _plain(groups: Groups) -> dict:
    return {
        group: {row: {name: asdict(value) for name, value in values.items()} for row, values in rows.items()}
        for group, rows in groups.items()
    }


def _without_nan(value: Any) -> Any:
    """``value`` with null in the place of NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(report: EvaluationReport, tables: list[Table]) -> str:
    """The tables, and what was not judged."""
    heading = f"# Evaluation of {report.model or 'a model'}: {report.data}, {report.split}, seed {report.seed}"
    lines = [heading, "", INTERVALS, ""]
    for table in tables:
        lines += _markdown_table(table)
    if report.skipped:
        lines += ["## Not judged", ""]
        lines += [f"- `{key}`: {reason}" for key, reason in report.skipped]
        lines.append("")
    return "\n".join(lines)


def _markdown_table(table: Table) -> list[str]:
    lines = ["#" * table.level + " " + table.title, ""]
    if table.rows:
        lines.append("| " + " | ".join(table.header) + " |")
        lines.append("| --- |" + " ---: |" * (len(table.header) - 1))
        lines += ["| " + " | ".join(map(_markdown_cell, row)) + " |" for row in table.rows]
        lines.append("")
    if table.note:
        lines += [table.note, ""]
    return lines


def _markdown_cell(cell: Cell) -> str:
    return f"{cell.text} [{cell.interval}]" if cell.interval else cell.text
