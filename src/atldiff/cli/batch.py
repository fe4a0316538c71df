"""``atldiff batch``: a table of jobs → videos."""

import argparse
from pathlib import Path

from atldiff.cli.common import ProgressBar, make_folder
from atldiff.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("table", metavar="JOBS.csv", type=Path, help="columns portrait, speech, output and options of a generation")
    add("-o", "--output", metavar="DIR", required=True, type=Path, help="folder for the videos and the report")
    add("--workers", metavar="N", type=int, help="processes, or tasks at once on Ray (default: as many as there fit)")
    add("--ray", metavar="ADDRESS", help="of a Ray cluster whose machines see the same files")
    add("--model", metavar="DIR", help="folder of a model (default: the one in the package)")


def run(arguments: argparse.Namespace) -> None:
    from atldiff.batch import CSV_REPORT, FAILED, KEPT, MADE, run_batch
    from atldiff.pipeline import DEFAULT_MODEL

    make_folder(arguments.output)
    with ProgressBar("video", arguments.quiet) as progress:
        results = run_batch(
            arguments.table,
            arguments.output,
            workers=arguments.workers,
            model=arguments.model or DEFAULT_MODEL,
            device=arguments.device,
            ray_address=arguments.ray,
            progress=progress,
        )
    count = {status: sum(result.status == status for result in results) for status in (MADE, KEPT, FAILED)}
    report = arguments.output / CSV_REPORT
    if count[FAILED]:
        raise InputError(f"{count[FAILED]} of {len(results)} jobs failed; {report} says why")
    print(f"{arguments.output}: {count[MADE]} videos made, {count[KEPT]} kept; see {report}")
