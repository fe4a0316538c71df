"""``train.py`` of a pack: what is packed there is trained where it lies."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from atldiff.cli.entry import main as atldiff_main
from atldiff.errors import InputError
from atldiff.training.engine.checkpoint import PACK_NAME, Checkpoints, lock_run
from atldiff.training.packed_run import RETURN_NAME, folder_name, gather_results, join_pieces, results_table, unpack


def main(pack: Path, arguments: Sequence[str] | None = None) -> int:
    """Unpack the clips, run ``atldiff train`` with the options of the pack, and gather the results.

    Args:
        pack: its folder.
        arguments: of the script; those that it does not know are for ``atldiff train``.

    Returns:
        The exit code of ``atldiff train``.
    """
    parser = argparse.ArgumentParser(description="Train what is packed here; the same command goes on.")
    parser.add_argument("-o", "--output", metavar="RUN", type=Path, default=Path("run"), help="default: %(default)s")
    parser.add_argument("--data", type=Path, help="folder to unpack the clips to (default: RUN.data)")
    parser.add_argument("--max-time", metavar="TIME", help="stop after so long, such as 25m; run again to go on")
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="settings")
    own, others = parser.parse_known_args(arguments)
    if own.max_time:
        others += ["--max-time", own.max_time]
    run = own.output.resolve()
    data = own.data or run.with_name(f"{run.name}.data")
    about = json.loads((pack / folder_name(0) / PACK_NAME).read_text())
    about["options"] += ["--set", *own.set] if own.set else []
    print(f"{about['clips']} of {about['of']} clips ({about['clips'] / about['of']:.0%}) are packed", flush=True)
    try:
        with lock_run(run):
            unpack(pack, data)
            join_pieces(run)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    code = atldiff_main(["train", about["part"], str(data), *about["options"], "-o", str(run), *others])
    if Checkpoints(run, 1).paths():
        gather_results(run, about)
        print(f"{results_table(run)}\nresults: {run / RETURN_NAME}", flush=True)
    return code
