"""Clips prepared side by side in processes of their own."""

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Sequence

from atldiff.data.findings import Tools, WantedClip, make_findings
from atldiff.errors import ATLDiffError, InputError
from atldiff.processes.workers import LostWorker, run_apart

_MAX_FACES = 3
_NICENESS = 5


def make_all_findings(wanted_clips: Sequence[WantedClip], workers: int) -> Iterator[None]:
    """Find what is to be found of every clip; yields once for each that is done.

    Raises:
        InputError: a worker died, for example for want of memory.
        OutputError: what was found cannot be written.
        ATLDiffError: a clip meets a fault of this program; the text names it.
    """
    for number, outcome in run_apart(_make_findings, wanted_clips, workers):
        if isinstance(outcome, LostWorker):
            raise InputError(
                f"a worker process died at {wanted_clips[number].clip.key}, perhaps for want of memory; what is done "
                f"is kept: run again with fewer than {workers} workers"
            ) from outcome
        if isinstance(outcome, ATLDiffError):
            raise outcome
        yield


def _make_findings(wanted: WantedClip) -> None:
    try:
        make_findings(wanted, _tools())
    except ATLDiffError:
        raise
    except Exception as error:
        raise ATLDiffError(f"preparing {wanted.clip.picture} failed: {type(error).__name__}: {error}") from error


@functools.cache
def _tools() -> Tools:
    """Of this worker process, which from now on waits behind other programs and computes in one thread."""
    import torch

    from atldiff.data.sync import LagMeter, SyncMeter
    from atldiff.face.detection import FaceDetector

    logging.getLogger("atldiff").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with contextlib.suppress(AttributeError, OSError):
        os.nice(_NICENESS)
    return Tools(FaceDetector(_MAX_FACES), LagMeter(), SyncMeter.from_package())
