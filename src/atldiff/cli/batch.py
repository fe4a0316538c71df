"""``atldiff batch``: a table of jobs → videos."""

import argparse
import logging
from pathlib import Path

from atldiff.cli.common import ProgressBar, make_folder
from atldiff.errors import InputError

EXAMPLES = """examples:
  atldiff batch jobs.csv -o videos
  atldiff batch jobs.csv -o videos --workers 2
"""

_log = logging.getLogger("atldiff")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add = parser.add_argument
    add("table", metavar="JOBS.csv", type=Path, help="columns portrait, speech, output and options of a generation")
    add("-o", "--output", metavar="DIR", required=True, type=Path, help="folder for the videos and the report")
    add("--workers", metavar="N", type=int, help="processes, or tasks at once on Ray (default: as many as there fit)")
    add("--ray", metavar="ADDRESS", help="of a Ray cluster whose machines see the same files (default: this machine)")
    add("--model", metavar="DIR", help="folder of a model (default: the one in the package)")


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    from atldiff.models.loading import DEFAULT_MODEL
    from atldiff.render.batch import CSV_REPORT, FAILED, KEPT, MADE, BatchResult, run_batch

    make_folder(arguments.output)

    def show(result: BatchResult) -> None:
        words = f"made, {result.frames} frames in {result.seconds} s" if result.status == MADE else result.error
        _log.info("%s: %s%s", result.output, "" if result.status == MADE else "failed: ", words)

    with ProgressBar("video", arguments.quiet) as progress:
        results = run_batch(
            arguments.table,
            arguments.output,
            workers=arguments.workers,
            model=arguments.model or DEFAULT_MODEL,
            device=arguments.device,
            ray_address=arguments.ray,
            progress=progress,
            watch=show,
        )
    count = {status: sum(result.status == status for result in results) for status in (MADE, KEPT, FAILED)}
    report = arguments.output / CSV_REPORT
    failed = f", {count[FAILED]} failed" if count[FAILED] else ""
    print(f"{arguments.output}: {count[MADE]} videos made, {count[KEPT]} kept{failed}; see {report}")
    if count[FAILED]:
        raise InputError(f"{count[FAILED]} of {len(results)} jobs failed; {report} says why")
