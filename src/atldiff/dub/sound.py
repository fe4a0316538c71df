"""The sound of a dubbed video: the new speech, and as much of the old sound under it as was asked for."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atldiff.speech.waveform import AAC_SAMPLE_RATES, Speech

_BLOCK = 16_384
"""Samples that are mixed at a time."""


class DubbedSound:
    """A sound track as long as the dubbed video.

    Args:
        speech: the new one.
        duration_s: of the whole.
        layout: (channels, rate in Hz) of the video's own sound; None where it has none.
        original: that sound itself, where it is to be heard.
        old_sound: how loud that is, 0 to 1.
        loop_s: after how many seconds it begins anew; None where it does not.

    Attributes:
        path: of the speech.
    """

    def __init__(
        self,
        speech: Speech,
        duration_s: float,
        layout: tuple[int, int] | None = None,
        original: Speech | None = None,
        old_sound: float = 0.0,
        loop_s: float | None = None,
    ) -> None:
        self.path: Path | None = speech.path
        self.duration_s = duration_s
        self._speech, self._original, self._layout = speech, original, layout
        self._old_sound, self._loop_s = old_sound, loop_s

    @property
    def track_rate(self) -> int:
        """In Hz: the finer of the two."""
        rate = self._layout[1] if self._layout is not None else 0
        return max(self._speech.track_rate, rate if rate in AAC_SAMPLE_RATES else 0)

    @property
    def track_channels(self) -> int:
        """As the video has them, two at most; those of the speech where it has none."""
        return self._speech.track_channels if self._layout is None else min(2, self._layout[0])

    def stereo_blocks(self, sample_rate: int | None = None) -> Iterator[np.ndarray]:
        """A new reading: (track_channels, n) float32 blocks."""
        rate = sample_rate or self.track_rate
        left = max(1, round(self.duration_s * rate))
        tracks = [_Reader(self._speech.stereo_blocks(rate), self.track_channels, 1.0)]
        if self._original is not None:
            tracks.append(_Reader(self._under(self._original, rate), self.track_channels, self._old_sound))
        while left:
            count = min(left, _BLOCK)
            yield np.clip(sum(track.take(count) for track in tracks), -1, 1).astype(np.float32)
            left -= count

    def _under(self, original: Speech, rate: int) -> Iterator[np.ndarray]:
        """The original sound, over and over where the picture is."""
        if self._loop_s is None:
            yield from original.stereo_blocks(rate)
            return
        while True:
            once = _Reader(original.stereo_blocks(rate), original.track_channels, 1.0)
            left = max(1, round(self._loop_s * rate))
            while left:
                count = min(left, _BLOCK)
                yield once.take(count)
                left -= count


class _Reader:
    """Takes pieces of any length from blocks of samples; after their end there is silence."""

    def __init__(self, blocks: Iterator[np.ndarray], channels: int, gain: float) -> None:
        self._blocks = blocks
        self._gain = np.float32(gain)
        self._rest = np.zeros((channels, 0), dtype=np.float32)

    def take(self, count: int) -> np.ndarray:
        """(channels, count) float32."""
        while self._rest.shape[1] < count:
            block = next(self._blocks, None)
            if block is None:
                block = np.zeros((len(self._rest), count), dtype=np.float32)
            self._rest = np.concatenate([self._rest, self._gain * _spread(block, len(self._rest))], axis=1)
        taken, self._rest = self._rest[:, :count], self._rest[:, count:]
        return taken


def _spread(block: np.ndarray, channels: int) -> np.ndarray:
    """One channel to both loudspeakers; of two channels the mean to one."""
    if len(block) == channels:
        return block
    return np.repeat(block.mean(axis=0, keepdims=True), channels, axis=0)
