"""Speech of any length in overlapping windows, which the speech encoder hears one by one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from atldiff.speech import SAMPLE_RATE

HOP = 8 * SAMPLE_RATE
"""Samples of sound that one window of the encoder answers for, where the whole recording is at hand."""

MARGIN = SAMPLE_RATE
"""Samples of sound heard before and after them."""

STEP = SAMPLE_RATE // 50
"""Samples from one speech feature to the next; windows lie on them."""

_LEAST_AFTER = 2 * STEP

STREAMED_HOP = SAMPLE_RATE * 8 // 100
"""Samples between the windows of streaming mode, where each window is heard anew."""


@dataclass(frozen=True)
class SpeechWindow:
    """A stretch of sound: ``samples`` begin at sample ``start``, frames from ``begin`` to ``end`` seconds are its."""

    samples: np.ndarray
    start: int
    begin: float
    end: float


@dataclass(frozen=True)
class Windowing:
    """Where windows lie.

    Attributes:
        hop: samples from one window's beginning to the next one's; a window answers for the frames among them.
        before, after: samples heard before and after them.
        grows: whether a window answers for all that has come by then, in whole steps, not for ``hop`` samples alone.
            Whoever is behind then catches up at less cost; how the stream is cut into blocks makes a difference.
    """

    hop: int = HOP
    before: int = MARGIN
    after: int = MARGIN
    grows: bool = False

    @classmethod
    def for_look_ahead(cls, seconds: float | None, most_hop: int = STREAMED_HOP) -> Self:
        """Windows in which a frame hears at most ``seconds`` of the sound that follows it; None: those of recordings.

        The windows follow each other by ``most_hop`` samples or less, so by default each frame hears at least
        ``seconds`` − 100 ms of what follows it, 40 ms at the least, and 1 s of what came before. With Whisper they
        cost 0.26 s of one core for each second of sound; half the hop or a second more of the past costs about twice
        as much, and gains 0.01 of the mouth's correlation.
        """
        if seconds is None:
            return cls()
        heard = int(seconds * SAMPLE_RATE + 1e-6) // STEP * STEP
        hop = min(most_hop, heard - _LEAST_AFTER)
        return cls(hop, MARGIN, heard - hop)


def speech_windows(blocks: Iterable[np.ndarray], windowing: Windowing | None = None) -> Iterator[SpeechWindow]:
    """Cut a stream of 16 kHz mono blocks into overlapping windows.

    A window is given as soon as one sample beyond it has come; the last one, whose end is infinite, when the
    stream ends. How the stream is cut into blocks makes no difference, unless windows grow.
    """
    hop, before, after = (windowing := windowing or Windowing()).hop, windowing.before, windowing.after
    held, start, begin = np.zeros(0, dtype=np.float32), 0, 0
    for block in blocks:
        held = np.concatenate([held, block])
        while (ready := start + len(held) - begin - after - 1) >= hop:
            answered = min(ready // STEP * STEP, HOP) if windowing.grows else hop
            used = held[: begin + answered + after - start]
            yield SpeechWindow(used, start, begin / SAMPLE_RATE, (begin + answered) / SAMPLE_RATE)
            begin += answered
            dropped = max(0, begin - before - start)
            held, start = held[dropped:], start + dropped
    yield SpeechWindow(held, start, begin / SAMPLE_RATE, float("inf"))
