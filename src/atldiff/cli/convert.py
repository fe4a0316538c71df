"""``atldiff convert``: published checkpoints → folders that this package reads."""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  atldiff convert landmarks published.ckpt -o converted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add = parser.add_argument
    add("part", choices=("landmarks",), help="the landmark part and its wav2vec2")
    add("source", metavar="SOURCE", type=Path, help="the published Lightning checkpoint")
    add("-o", "--output", metavar="DIR", required=True, type=Path, help="folder for the converted parts")


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    from atldiff.models.convert import convert_landmark_checkpoint

    convert_landmark_checkpoint(arguments.source, arguments.output)
    print(f"{arguments.output}: landmark generator and wav2vec2 of {arguments.source}")
