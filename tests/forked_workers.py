"""Worker processes forked from one that has loaded what they need, in a tenth of the time in which each loads it.

As a program, ``atldiff`` with such workers: python forked_workers.py VERB …
"""

import multiprocessing
import sys

from atldiff.cli import main
from atldiff.processes import workers

NEEDED = ["atldiff.pipeline", "atldiff.data.findings", "atldiff.serve.live.work", "mediapipe.tasks.python.vision"]


def fork_workers() -> None:
    """From now on, where the system can."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload(NEEDED)
        workers.CONTEXT = multiprocessing.get_context("forkserver")


if __name__ == "__main__":
    fork_workers()
    sys.exit(main())
