"""``atldiff evaluate``: a model judged on prepared clips."""

import argparse
from pathlib import Path

from atldiff.cli.common import ProgressBar, open_pipeline, output_folder

EXAMPLES = """examples:
  atldiff evaluate compact prepared -o report
  atldiff evaluate my-model prepared -o report --split test --limit 40
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="compact, or the folder of a model")
    add("data", metavar="DATA", type=Path, help="folder that `atldiff prepare` wrote")
    add("-o", "--output", metavar="DIR", required=True, type=Path, help="folder for the report (json, md, html)")
    add("--split", default="val", help="which clips (default: %(default)s)")
    add("--per-speaker", metavar="N", type=_count, help="at most so many clips of each speaker (default: all)")
    add("--limit", metavar="N", type=_count, help="at most so many clips, of the speakers in turn (default: all)")
    add("--seed", metavar="N", type=int, default=0, help="default: %(default)s")
    weights = parser.add_argument_group("files of weights (docs/evaluation.md says where they are published)")
    weights.add_argument(
        "--inception", metavar="PATH", type=Path, help="TorchScript Inception, for FID (default: none)"
    )
    weights.add_argument("--lpips", metavar="PATH", type=Path, help="TorchScript VGG-16 with LPIPS (default: none)")
    weights.add_argument(
        "--syncnet", metavar="PATH", type=Path, help="syncnet_v2.model, for LSE-C and LSE-D (default: none)"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number from 1 on")
    return int(text)


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    from atldiff.data.prepared import PreparedClips

    data = PreparedClips.open(arguments.data)
    data.split(arguments.split, heard=True)

    from atldiff.evaluation.protocol import WeightPaths, evaluate
    from atldiff.evaluation.report import MARKDOWN_NAME, write_report

    with (
        open_pipeline(arguments) as pipeline,
        output_folder(arguments.output),
        ProgressBar("clip", arguments.quiet) as progress,
    ):
        report = evaluate(
            pipeline,
            data,
            arguments.split,
            limit=arguments.limit,
            per_speaker=arguments.per_speaker,
            seed=arguments.seed,
            weights=WeightPaths(arguments.inception, arguments.lpips, arguments.syncnet),
            device=pipeline.device,
            model=arguments.model,
            progress=progress,
        )
        write_report(report, arguments.output)
    print((arguments.output / MARKDOWN_NAME).read_text())
