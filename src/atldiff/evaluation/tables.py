"""The tables of a report, as text cells that the Markdown file and the page both show."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from atldiff.evaluation.scores import TRUE, EvaluationReport, Score, Statistic
from atldiff.landmarks.shapes import SHAPES

NEEDS_WEIGHTS = "¹ needs weights: see docs/evaluation.md"
INTERVALS = "Ranges: 95 % of the median, by bootstrap over speakers, then over their clips."

MOUTH_FRECHET = "mouth_frechet"
"""Name of the distance over a second of mouth, one for all clips of a group, among the metrics of its clips."""

_ROWS = ("static", "warp", "true landmarks", "generated", TRUE)
_MEASURED_WITH_WEIGHTS = ("lpips", "fid", "lse_c", "lse_d")


@dataclass(frozen=True)
class Cell:
    """A value and its 95 % interval, as text; an empty interval is not shown."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its heading and a note below it; ``level`` is the heading's, 2 or 3."""

    title: str
    header: list[str]
    rows: list[list[Cell]]
    note: str = ""
    level: int = 3


@dataclass(frozen=True)
class _Column:
    title: str
    name: str
    decimals: int
    show: str = "median"
    interval: bool = False


_MAIN = (
    _Column("PSNR, dB ↑", "psnr", 2),
    _Column("PSNR mouth, dB ↑", "psnr_mouth", 2, interval=True),
    _Column("SSIM ↑", "ssim", 3),
    _Column("SSIM mouth ↑", "ssim_mouth", 3),
    _Column("M-LD ↓", "m_ld", 4, interval=True),
    _Column("F-LD ↓", "f_ld", 4),
    _Column("LVD ↓", "lvd", 4),
    _Column("r at lag 0 ↑", "r_at_zero", 2, interval=True),
    _Column("best r ↑", "r_best", 2),
    _Column("lag, frames", "lag", 1),
    _Column("gain", "gain", 2),
    _Column("identity ↓", "identity_median", 3),
    _Column("identity, worst ↓", "identity_max", 3, "maximum"),
    _Column("flicker ratio", "flicker_ratio", 2),
)
_PUBLISHED = (
    _Column("PSNR ↑", "psnr", 2, "mean"),
    _Column("SSIM ↑", "ssim", 3, "mean"),
    _Column("LPIPS ↓", "lpips", 3, "mean"),
    _Column("FID ↓", "fid", 2, "mean"),
    _Column("M-LD ↓", "m_ld", 4, "mean"),
    _Column("F-LD ↓", "f_ld", 4, "mean"),
    _Column("LSE-C ↑", "lse_c", 3, "mean"),
    _Column("LSE-D ↓", "lse_d", 3, "mean"),
)
_LANDMARKS = (
    _Column("M-LD ↓", "m_ld", 4, "mean"),
    _Column("F-LD ↓", "f_ld", 4, "mean"),
    _Column("LVD ↓", "lvd", 4, "mean"),
    _Column("LD as published ↓", "ld_as_published", 1, "mean"),
    _Column("LVD as published ↓", "lvd_as_published", 1, "mean"),
)
_SHAPES = (
    *(
        _Column(f"{shape} {figure}{arrow}", f"{shape}_{figure}", 2)
        for shape in SHAPES
        for figure, arrow in (("r", " ↑"), ("gain", ""), ("p95", ""))
        if figure != "p95" or shape in ("opening", "width")
    ),
    _Column("Fréchet ↓", MOUTH_FRECHET, 4),
)
_GROUP_NAMES = ("psnr_mouth", "m_ld", "r_at_zero", "r_best", "lag", "gain", "identity_median")
_GROUPS = tuple(column for column in _MAIN if column.name in _GROUP_NAMES)
_CLIPS = (*_GROUPS, _Column("faces missing", "faces_missing", 2))


def report_tables(report: EvaluationReport) -> list[Table]:
    """All tables over clips, in the order of reading."""
    tables = [
        *_by_row(
            report, "Every metric", _MAIN, "Medians over clips; “identity, worst” is the worst frame of any clip."
        ),
        *_by_row(
            report,
            "Shapes of the mouth",
            _SHAPES,
            "Medians over clips, but for the Fréchet distance between all seconds of mouth and all true ones. Gain: "
            "ratio of the standard deviations. p95: ratio of the 95th percentiles.",
        ),
        *_by_row(report, "The paper's layout", _PUBLISHED, "Means over clips. LPIPS is that of VGG-16."),
        *_by_row(
            report,
            "Landmark formulas",
            _LANDMARKS,
            "Means over clips. M-LD, F-LD and LVD: per frame and point, over the inter-ocular distance. "
            "As published: one norm over a whole clip in pixels of a 256×256 crop, so it grows "
            "with the clip's length; its LVD differs along the landmarks, not in time.",
        ),
    ]
    for title, groups in (("Emotions", report.by_emotion()), ("Speakers", report.by_speaker())):
        rows = [
            [Cell(group), Cell(str(values["generated"]["psnr"].count)), *_cells(values["generated"], _GROUPS)]
            for group, values in groups.items()
        ]
        if rows:
            header = [title, "clips", *[column.title for column in _GROUPS]]
            tables.append(Table(title, header, rows, "The generated videos; medians over clips.", level=2))
    return tables


def _by_row(report: EvaluationReport, title: str, columns: tuple[_Column, ...], note: str) -> Iterator[Table]:
    for number, (group, by_row) in enumerate(report.by_corpus().items()):
        scores = [score for score in report.scores if score.group == group]
        clips, speakers = len({score.key for score in scores}), len({score.speaker for score in scores})
        rows = []
        for row in (row for row in _ROWS if row in by_row):
            of_all = {"fid": report.frechet, MOUTH_FRECHET: report.mouth_frechet}
            shared = {name: found[group][row] for name, found in of_all.items() if row in found.get(group, {})}
            cells = _cells(by_row[row], columns, shared, computable=row != TRUE)
            if any(cell.text not in ("–", "¹") for cell in cells):
                rows.append([Cell(row), *cells])
        missing = any(cell.text == "¹" for cells in rows for cell in cells)
        if number == 0:
            yield Table(title, [], [], note, level=2)
        heading = f"{group}: {clips} clips, {speakers} speakers"
        header = ["", *[column.title for column in columns]]
        yield Table(heading, header, rows, NEEDS_WEIGHTS if missing else "")


def _cells(
    values: dict[str, Statistic],
    columns: tuple[_Column, ...],
    shared: Mapping[str, float] = MappingProxyType({}),
    computable: bool = True,
) -> list[Cell]:
    cells = []
    for column in columns:
        if column.name in shared:
            cells.append(Cell(f"{shared[column.name]:.{column.decimals}f}"))
        elif column.name in values:
            cells.append(_cell(values[column.name], column))
        else:
            cells.append(Cell("¹" if computable and column.name in _MEASURED_WITH_WEIGHTS else "–"))
    return cells


def _cell(value: Statistic, column: _Column) -> Cell:
    if not value.count:
        return Cell("–")
    text = f"{getattr(value, column.show):.{column.decimals}f}"
    if not column.interval or value.count == 1:
        return Cell(text)
    return Cell(text, f"{value.low:.{column.decimals}f} … {value.high:.{column.decimals}f}")


def clip_table(report: EvaluationReport) -> Table:
    """Every clip's generated video, the worst mouth correlation first."""
    scores = sorted(
        (score for score in report.scores if score.row == "generated"),
        key=lambda score: (score.values["r_at_zero"], score.key),
    )
    rows = [[Cell(score.key), Cell(score.emotion or "–"), *_clip_cells(score)] for score in scores]
    header = ["clip", "emotion", *[column.title for column in _CLIPS]]
    return Table("Every clip", header, rows, "The generated videos, the least r at lag 0 first.", level=2)


def _clip_cells(score: Score) -> list[Cell]:
    values = [score.values[column.name] for column in _CLIPS]
    texts = [f"{value:.{column.decimals}f}" for value, column in zip(values, _CLIPS, strict=True)]
    return [Cell("–" if text == "nan" else text) for text in texts]
