"""One self-contained page: the tables, and for the worst clips what was seen and how the mouth moved."""

import base64
from html import escape

from atldiff.evaluation.gallery import THUMBNAIL_SIZE
from atldiff.evaluation.scores import TRUE, ContactSheet, EvaluationReport, MouthCurves
from atldiff.evaluation.tables import INTERVALS, Cell, Table, clip_table

_PLOT_WIDTH, _PLOT_HEIGHT = 720, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 28, 24
_LEAST_SPAN = 0.05
_PLOTTED = (TRUE, "true landmarks", "generated")

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #5b6470; --paper: #ffffff; --line: #d5dae1;
  --band: #f3f5f8; --true: #1b1f24; --true-landmarks: #8a93a0; --generated: #d1242f; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --soft: #9aa4b2; --paper: #14171c; --line: #353c47;
  --band: #1d222a; --true: #e6e9ee; --true-landmarks: #76808e; --generated: #ff7b72; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--paper); margin: 2rem auto;
  max-width: 84rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin-bottom: .3rem; }
p, figcaption { color: var(--soft); max-width: 50rem; } a { color: inherit; }
.wide { overflow-x: auto; } .tall { max-height: 32rem; overflow: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; } th:first-child { text-align: left; }
thead th { background: var(--band); position: sticky; top: 0; }
td small { display: block; color: var(--soft); }
.clip { border-top: 1px solid var(--line); margin-top: 1.5rem; }
.strips th { font-weight: 400; color: var(--soft); border: 0; }
.strips td { padding: 1px 0; border: 0; line-height: 0; }
.strips td.times { display: flex; line-height: 1.4; color: var(--soft); }
.strips td.times span { text-align: center; }
svg { max-width: 100%; height: auto; display: block; margin-top: .5rem; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg .axis { stroke: var(--line); }
svg polyline { fill: none; stroke-width: 1.6; } .true { stroke: var(--true); }
.true-landmarks { stroke: var(--true-landmarks); stroke-dasharray: 4 3; } .generated { stroke: var(--generated); }
"""


def page(report: EvaluationReport, tables: list[Table]) -> str:
    """The whole page as HTML text; nothing in it is fetched from elsewhere."""
    title = f"Evaluation of {report.model or 'a model'}"
    clips = len({score.key for score in report.scores})
    about = f"{clips} clips of split {report.split} of {report.data}, seed {report.seed}."
    curves = {entry.key: entry for entry in report.curves}
    shown = {sheet.key: f"clip-{number}" for number, sheet in enumerate(report.sheets, start=1)}
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(about)} {escape(INTERVALS)}</p>",
        *[_table(table) for table in tables],
        "<h2>Worst clips first</h2>",
        f"<p>The {len(report.sheets)} clips whose generated mouth follows the true one least. Times in seconds; "
        "the first frame is the portrait, and one column is the true mouth at its widest.</p>",
        *[_clip(sheet, curves[sheet.key], shown[sheet.key]) for sheet in report.sheets],
        _table(clip_table(report), shown, "wide tall"),
        _skipped(report),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _table(table: Table, links: dict[str, str] | None = None, style: str = "wide") -> str:
    heading = f"<h{table.level}>{escape(table.title)}</h{table.level}>"
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    if not table.rows:
        return heading + note
    header = "".join(f'<th scope="col">{escape(title)}</th>' for title in table.header)
    rows = "".join(
        f'<tr><th scope="row">{_row_name(row[0].text, links or {})}</th>' + "".join(map(_cell, row[1:])) + "</tr>\n"
        for row in table.rows
    )
    body = f"<table>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>"
    return f'{heading}\n<div class="{style}">\n{body}\n</div>\n{note}'


def _row_name(name: str, links: dict[str, str]) -> str:
    return f'<a href="#{links[name]}">{escape(name)}</a>' if name in links else escape(name)


def _cell(cell: Cell) -> str:
    interval = f"<small>{escape(cell.interval)}</small>" if cell.interval else ""
    return f"<td>{escape(cell.text)}{interval}</td>"


def _clip(sheet: ContactSheet, curves: MouthCurves, anchor: str) -> str:
    width = len(sheet.frames) * THUMBNAIL_SIZE
    times = "".join(
        f'<span style="width: {THUMBNAIL_SIZE}px">{frame / curves.fps:.2f}</span>' for frame in sheet.frames
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(row)}</th><td><img width="{width}" height="{THUMBNAIL_SIZE}" '
        f'alt="{escape(row)}: frames {", ".join(map(str, sheet.frames))}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}"></td></tr>\n'
        for row, picture in sheet.strips.items()
    )
    return (
        f'<section class="clip" id="{anchor}">\n<h3>{escape(sheet.key)}: r at lag 0 is {sheet.r_at_zero:.2f}</h3>\n'
        f'<div class="wide"><table class="strips">\n{rows}<tr><th></th><td class="times">{times}</td></tr>\n'
        f"</table></div>\n{opening_plot(curves)}\n</section>"
    )


def opening_plot(curves: MouthCurves) -> str:
    """Mouth openings over time as inline SVG: true, from true landmarks, and generated; a legend above."""
    series = {row: curves.openings[row] for row in _PLOTTED if curves.openings.get(row)}
    highest = max(_LEAST_SPAN, *(max(values) for values in series.values()))
    longest = max(len(values) for values in series.values()) / curves.fps
    across = (_PLOT_WIDTH - _LEFT - _RIGHT) / longest
    down = (_PLOT_HEIGHT - _TOP - _BOTTOM) / highest
    floor = _PLOT_HEIGHT - _BOTTOM
    ends = f'x1="{_LEFT}" y1="{floor}" x2="{_PLOT_WIDTH - _RIGHT}" y2="{floor}"'
    parts = [f'<line class="axis" stroke="currentColor" {ends}/>']
    parts += [f'<text x="{_LEFT - 6}" y="{floor}" text-anchor="end">0</text>']
    parts += [f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{highest:.2f}</text>']
    step = next(step for step in (0.2, 0.5, 1, 2, 5, 10, 30, 60, 600, 3600) if longest / step <= 12 or step == 3600)
    for number in range(int(longest / step) + 1):
        x = _LEFT + number * step * across
        parts.append(f'<text x="{x:.1f}" y="{_PLOT_HEIGHT - 6}" text-anchor="middle">{number * step:g} s</text>')
    for place, (row, values) in enumerate(series.items()):
        style = row.replace(" ", "-")
        points = " ".join(
            f"{_LEFT + index / curves.fps * across:.1f},{floor - value * down:.1f}"
            for index, value in enumerate(values, start=1)
        )
        parts.append(f'<polyline class="{style}" fill="none" stroke="currentColor" points="{points}"/>')
        x = _LEFT + 150 * place
        parts.append(
            f'<line class="{style}" stroke="currentColor" x1="{x}" y1="8" x2="{x + 22}" y2="8" stroke-width="2"/>'
        )
        parts.append(f'<text x="{x + 28}" y="12">{escape(row)}</text>')
    label = f"mouth opening over time of {curves.key}, in inter-ocular distances"
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {_PLOT_WIDTH} {_PLOT_HEIGHT}" '
        f'width="{_PLOT_WIDTH}" height="{_PLOT_HEIGHT}" fill="currentColor">' + "".join(parts) + "</svg>"
    )


def _skipped(report: EvaluationReport) -> str:
    if not report.skipped:
        return ""
    entries = "".join(f"<li><code>{escape(key)}</code>: {escape(reason)}</li>\n" for key, reason in report.skipped)
    return f"<h2>Not judged</h2>\n<ul>\n{entries}</ul>"
