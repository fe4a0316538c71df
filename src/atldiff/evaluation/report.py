"""What an evaluation found, for machines (JSON), for readers (Markdown) and for the eye (a contact sheet)."""

import json
import math
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from atldiff.errors import InputError, OutputError
from atldiff.evaluation.protocol import ROWS, EvaluationReport, Statistic
from atldiff.serialization import write_atomically

_COLUMNS = (
    ("PSNR, dB ↑", "psnr", 2),
    ("PSNR mouth, dB ↑", "psnr_mouth", 2),
    ("SSIM mouth ↑", "ssim_mouth", 3),
    ("M-LD ↓", "m_ld", 4),
    ("F-LD ↓", "f_ld", 4),
    ("LVD ↓", "lvd", 4),
    ("r at lag 0 ↑", "r_at_zero", 2),
    ("best r ↑", "r_best", 2),
    ("lag, frames", "lag", 1),
    ("gain", "gain", 2),
    ("identity ↓", "identity_median", 3),
    ("identity, worst ↓", "identity_max", 3),
    ("flicker ratio", "flicker_ratio", 2),
)
"""Title, name of the metric, decimals."""

_WITH_INTERVAL = ("psnr_mouth", "m_ld", "r_at_zero")
_LABEL_WIDTH, _LABEL_SIZE, _GAP = 120, 14, 2


def write_report(report: EvaluationReport, path: Path) -> None:
    """Everything in ``report``: each clip's values and the statistics by corpus and speaker; NaN is null.

    Raises:
        OutputError: ``path`` cannot be written; a file that was there stays.
    """
    content = asdict(report) | {
        "by_corpus": _plain(report.by_corpus()),
        "by_speaker": _plain(report.by_speaker()),
    }
    _write(path, (json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n").encode())


def _plain(groups: dict[str, dict[str, dict[str, Statistic]]]) -> dict:
    return {
        group: {row: {name: asdict(value) for name, value in values.items()} for row, values in rows.items()}
        for group, rows in groups.items()
    }


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, content: bytes) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); expected a writable folder") from error


def markdown(report: EvaluationReport) -> str:
    """One table for each corpus: medians over clips, some with their 95 % interval in brackets.

    "identity, worst" is not a median but the greatest distance of any frame of any clip.
    """
    lines = []
    for group, rows in report.by_corpus().items():
        scores = [score for score in report.scores if score.group == group]
        clips, speakers = {score.path for score in scores}, {score.speaker for score in scores}
        lines += [f"### {group}: {len(clips)} clips, {len(speakers)} speakers", ""]
        lines.append("| | " + " | ".join(title for title, _, _ in _COLUMNS) + " |")
        lines.append("| --- |" + " ---: |" * len(_COLUMNS))
        for row in ROWS:
            cells = [_cell(rows[row][name], name, decimals) for _, name, decimals in _COLUMNS]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        lines.append("")
    if report.skipped:
        lines += ["Not judged:", ""]
        lines += [f"- `{path}`: {reason}" for path, reason in report.skipped]
        lines.append("")
    return "\n".join(lines)


def _cell(value: Statistic, name: str, decimals: int) -> str:
    if not value.count:
        return "–"
    shown = value.maximum if name == "identity_max" else value.median
    text = f"{shown:.{decimals}f}"
    return f"{text} [{value.low:.{decimals}f}, {value.high:.{decimals}f}]" if name in _WITH_INTERVAL else text


def contact_sheet(rows: list[list[np.ndarray]], labels: list[str]) -> np.ndarray:
    """Pictures in rows, each row with its label to the left, as one (H, W, 3) uint8 picture on white.

    Args:
        rows: (h, w, 3) uint8 pictures, all of one size; rows may differ in length.
        labels: one for each row.

    Raises:
        InputError: no picture, pictures of several sizes, or another number of labels than of rows.
    """
    shapes = {picture.shape for row in rows for picture in row}
    if len(shapes) != 1 or len(labels) != len(rows):
        raise InputError(
            f"expected pictures of one size and a label for each of {len(rows)} rows; "
            f"got sizes {sorted(shapes)} and {len(labels)} labels"
        )
    height, width, _ = shapes.pop()
    columns = max(len(row) for row in rows)
    size = (_LABEL_WIDTH + columns * (width + _GAP), len(rows) * (height + _GAP))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_LABEL_SIZE)
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = index * (height + _GAP)
        draw.text((_LABEL_WIDTH / 2, top + height / 2), label, "black", font, anchor="mm", align="center")
        for column, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (_LABEL_WIDTH + column * (width + _GAP), top))
    return np.asarray(sheet)


def write_contact_sheet(rows: list[list[np.ndarray]], labels: list[str], path: Path) -> None:
    """:func:`contact_sheet` as a PNG file.

    Raises:
        OutputError: ``path`` cannot be written; a file that was there stays.
    """
    stream = BytesIO()
    Image.fromarray(contact_sheet(rows, labels)).save(stream, "PNG")
    _write(path, stream.getvalue())
