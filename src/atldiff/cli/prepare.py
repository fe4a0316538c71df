"""``atldiff prepare``: clips as they are distributed → one prepared format."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from atldiff.cli.common import ProgressBar

if TYPE_CHECKING:
    from atldiff.data.prepare import PrepareReport


EXAMPLES = """examples:
  atldiff prepare clips my-clips prepared
  atldiff prepare crema-d CREMA-D prepared --workers 2 --limit 500
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add = parser.add_argument
    add("kind", choices=("mead", "crema-d", "grid", "clips"), help="which tree SRC is; clips: any folder of videos")
    add("source", metavar="SRC", type=Path, help="folder of the clips as they are distributed")
    add("destination", metavar="DST", type=Path, help="folder for the prepared clips; one that was begun goes on")
    add("--workers", metavar="N", type=int, help="processes (default: one for each processor)")
    add("--size", metavar="N", type=int, default=256, help="side of the crops in pixels (default: %(default)s)")
    add("--fps", metavar="X", type=float, default=25.0, help="frames per second (default: %(default)g)")
    add(
        "--limit",
        metavar="N",
        type=int,
        help="at most so many clips, spread over the speakers; more adds to them (default: all)",
    )
    add("--view", metavar="NAME", default="front", help="camera of MEAD (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    from atldiff.data.prepare import prepare

    with ProgressBar("clip", arguments.quiet) as progress:
        report = prepare(
            arguments.kind,
            arguments.source,
            arguments.destination,
            workers=arguments.workers,
            size=arguments.size,
            fps=arguments.fps,
            limit=arguments.limit,
            view=arguments.view,
            progress=progress,
        )
    if report.processed is None:
        print(f"{report.folder} is complete: nothing to do")
    print(_table(report))


def _lone(speakers: int) -> str:
    if not speakers:
        return ""
    return f" ({speakers} of them single files directly in SRC, each taken for a speaker: who speaks is not known)"


def _counted(reasons: dict[str, int]) -> str:
    listed = ", ".join(f"{count} {kind}" for kind, count in reasons.items())
    return f"{sum(reasons.values())}" + (f" ({listed})" if listed else "")


def _table(report: "PrepareReport") -> str:
    lines = [
        ("clips", f"{report.clips}"),
        ("usable", f"{report.usable}"),
        ("without sound", _counted(report.unheard)),
        ("rejected", _counted(report.rejected)),
        ("hours", f"{report.hours:.2f}"),
        ("speakers", f"{report.speakers}" + _lone(report.lone_speakers)),
        *((f"lag of {corpus}", str(lag)) for corpus, lag in report.lags.items()),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)
