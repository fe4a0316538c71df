"""The sound track of a video whose sound is still being spoken."""

import queue
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atldiff.speech.waveform import AAC_SAMPLE_RATES, as_float, resampled


class SpokenTrack:
    """Stands for a :class:`~atldiff.speech.waveform.Speech` with a video writer: it is put in piece by piece, and
    whoever reads it waits for the next. One thread may put in what another reads.

    Attributes:
        path: None; it is no file.
        track_rate, track_channels: as of a ``Speech``.
    """

    path: Path | None = None
    track_channels = 1

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self.track_rate = sample_rate if sample_rate in AAC_SAMPLE_RATES else 48_000
        self._waiting: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()

    def put(self, samples: np.ndarray) -> None:
        """Add (n,) samples of any type that sound has."""
        self._waiting.put(as_float(samples)[None])

    def end(self) -> None:
        """No more will come."""
        self._waiting.put(None)

    def stereo_blocks(self, sample_rate: int | None = None) -> Iterator[np.ndarray]:
        """(1, n) float32 blocks at ``sample_rate``, by default :attr:`track_rate`, as they come; read once."""
        rate = sample_rate or self.track_rate
        return self._blocks() if rate == self._sample_rate else resampled(self._blocks(), self._sample_rate, rate)

    def _blocks(self) -> Iterator[np.ndarray]:
        while (block := self._waiting.get()) is not None:
            yield block
