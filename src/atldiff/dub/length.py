"""Which frame of the shot is shown when, for a speech that is longer or shorter than the video."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from atldiff.dub.options import DubOptions
from atldiff.errors import InputError

_HELD_S = 1.0
_HELD_BYTES = 256 << 20
"""What is played to and fro at the end waits in memory: a second of it, and less of large frames."""


@dataclass(frozen=True)
class Timeline:
    """The frames of the new video.

    Attributes:
        source_N: which frame of the old one each is.
        times_N: when it is shown, in units of ``time_base``.
        time_base: in seconds.
        end: when the last one ends.
        held_from: from which frame of the old one on frames are needed again after the last.
        old_end: when the old one ends.
    """

    source_N: np.ndarray
    times_N: np.ndarray
    time_base: Fraction
    end: int
    held_from: int
    old_end: int

    def __len__(self) -> int:
        return len(self.source_N)

    @property
    def duration_s(self) -> float:
        """Length of the new video in seconds."""
        return float(self.end * self.time_base)

    @property
    def round_s(self) -> float:
        """Seconds after which an old video that is begun anew begins anew."""
        return float(self.old_end * self.time_base)

    def seconds(self, part: slice = slice(None)) -> np.ndarray:
        """When the frames of ``part`` are shown."""
        return self.times_N[part] * float(self.time_base)


def make_timeline(
    times: np.ndarray,
    step: int,
    time_base: Fraction,
    speech_s: Fraction,
    options: DubOptions,
    last_cut: int,
    frame_bytes: int,
) -> Timeline:
    """Fit a video to a speech.

    Args:
        times: (F,) when the frames of the video are shown, units of ``time_base``.
        step: what the last one lasts.
        speech_s: length of the speech in seconds.
        options: what is shown when it is longer or shorter than the video.
        last_cut: number of the first frame after the last cut; what is played to and fro has no cut in it.
        frame_bytes: size of a frame in memory.

    Raises:
        InputError: the speech is longer, and that was to be refused.
    """
    end, wanted = int(times[-1]) + step, int(speech_s / time_base)
    frames = np.arange(len(times))
    if wanted <= end:
        kept = len(times) if options.shorter == "keep" else max(1, int(np.searchsorted(times, wanted)))
        until = end if kept == len(times) else int(times[kept])
        return Timeline(frames[:kept], times[:kept], time_base, until, len(times), end)
    if wanted - end < step:
        return Timeline(frames, times, time_base, end, len(times), end)
    if options.longer == "error":
        raise InputError(
            f"the speech lasts {float(speech_s):.2f} s and the video {float(end * time_base):.2f} s; "
            "expected a speech that is not longer"
        )
    if options.longer == "loop":
        rounds = -(-wanted // end)
        every = np.concatenate([times + number * end for number in range(rounds)])
        kept = int(np.searchsorted(every, wanted))
        until = int(every[kept]) if kept < len(every) else rounds * end
        return Timeline(np.tile(frames, rounds)[:kept], every[:kept], time_base, until, len(times), end)
    held_from = _held_from(times, time_base, last_cut, frame_bytes)
    source, later = _to_and_fro(times, held_from, step, wanted)
    shown, when = np.concatenate([frames, source]), np.concatenate([times, later])
    return Timeline(shown, when, time_base, int(later[-1]) + step, held_from, end)


def _held_from(times: np.ndarray, time_base: Fraction, last_cut: int, frame_bytes: int) -> int:
    """The first of the frames that are played to and fro."""
    first = int(np.searchsorted(times, times[-1] - float(_HELD_S / time_base)))
    return max(first, last_cut, len(times) - max(2, _HELD_BYTES // frame_bytes))


def _to_and_fro(times: np.ndarray, first: int, step: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """The frames after the last one and their times, until ``wanted``: backwards, forwards and so on."""
    last = len(times) - 1
    forth = np.arange(first, last + 1)
    path = np.concatenate([forth[-2::-1], forth[1:]]) if len(forth) > 1 else np.array([last])
    steps = np.abs(np.diff(times[np.concatenate([[last], path])])) if len(forth) > 1 else np.array([step])
    rounds = -(-(wanted - int(times[-1])) // int(steps.sum()))
    later = int(times[-1]) + np.cumsum(np.tile(steps, rounds))
    kept = max(1, int(np.searchsorted(later, wanted)))
    return np.tile(path, rounds)[:kept], later[:kept]
