"""``atldiff assemble``: trained parts → a model folder."""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  atldiff assemble runs/landmarks runs/diffusion -o my-model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add = parser.add_argument
    add("runs", metavar="RUN", type=Path, nargs="*", help="folder of a training run")
    add(
        "--streaming",
        metavar="RUN",
        type=Path,
        help="run of the speech encoder, for streaming mode alone (default: none)",
    )
    add("-o", "--output", metavar="MODEL", required=True, type=Path, help="folder of the model, a new one")
    add("--base", metavar="MODEL", default="compact", help="where the other parts come from (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    from atldiff.training.assemble import assemble

    print(f"model: {assemble(arguments.runs, arguments.output, arguments.base, arguments.streaming)}")
