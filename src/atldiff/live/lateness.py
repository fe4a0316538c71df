"""When live frames are due, and which are too late to be worth it."""

import time
from collections import deque

LEAST_FRAMES_PER_S = 2
"""Frames that are let through however late they are."""


class PlaybackClock:
    """When a player that plays the sound as it comes plays each moment of it.

    It plays without a break while it has sound, so sound that comes faster than it plays waits its turn, and sound
    that comes late moves everything after it.

    Args:
        sample_rate: in Hz.
        now: time in seconds of any clock, before the first sound.

    Attributes:
        runs_dry: when all the sound so far will have been played.
    """

    def __init__(self, sample_rate: int, now: float) -> None:
        self.runs_dry = now
        self._sample_rate = sample_rate
        self._samples = 0
        self._shifts: deque[tuple[float, float]] = deque([(0.0, now)])

    def add(self, samples: int, arrived: float) -> None:
        """So many samples arrived at a time."""
        begin = self._samples / self._sample_rate
        shift = max(arrived, self.runs_dry) - begin
        if shift > self._shifts[-1][1]:
            self._shifts.append((begin, shift))
        self._samples += samples
        self.runs_dry = self._shifts[-1][1] + self._samples / self._sample_rate

    def due(self, seconds: float) -> float:
        """When the moment ``seconds`` of the sound is played; to be asked in rising order."""
        while len(self._shifts) > 1 and self._shifts[1][0] <= seconds:
            self._shifts.popleft()
        return seconds + self._shifts[0][1]


class DropRule:
    """Which frames are let through: those in time, and however late they are, two a second.

    Args:
        max_delay_s: the delay from which a frame is late; None: never.
        fps: frames per second.

    Attributes:
        dropped: frames that were not let through.
        max_delay_s: as given; may be changed.
        skips: whether two a second are those of the clock, not of the numbers; may be changed.
    """

    def __init__(self, max_delay_s: float | None, fps: float) -> None:
        self.dropped = 0
        self.max_delay_s = max_delay_s
        self._longest_gap = max(1, round(fps / LEAST_FRAMES_PER_S))
        self._last_kept, self._last_kept_at = -self._longest_gap, time.monotonic()
        self.skips = False

    def is_late(self, delay_s: float) -> bool:
        """Whether a frame with this delay is late."""
        return self.max_delay_s is not None and delay_s > self.max_delay_s

    def keeps(self, number: int, delay_s: float) -> bool:
        """Whether a frame is let through; to be asked in rising order of ``number``."""
        now = time.monotonic()
        is_too_soon = number - self._last_kept < self._longest_gap
        if self.skips:
            is_too_soon = now - self._last_kept_at < 1 / LEAST_FRAMES_PER_S
        if self.is_late(delay_s) and is_too_soon:
            self.dropped += 1
            return False
        self._last_kept, self._last_kept_at = number, now
        return True
