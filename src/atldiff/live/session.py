"""Live talking heads: sound comes in pieces, frames come out while it is still being spoken.

:class:`LiveFace` is the work itself, a plain generator from pieces of sound to frames; :class:`LiveSession` runs it
in a thread, between a queue of sound and a queue of frames that are both bounded.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from atldiff.errors import InputError
from atldiff.live.face import SILENT_STEP_S, LiveFace
from atldiff.live.lateness import DropRule, PlaybackClock
from atldiff.media.sound import as_float
from atldiff.options import AUTO_EMOTION, GenerationOptions
from atldiff.processes.channel import Channel, Ended
from atldiff.results import Frame
from atldiff.speech.waveform import check_sample_rate

QUEUED_SOUND_S = 2.0
"""Seconds of sound that wait at most; feeding more waits too."""

QUEUED_FRAMES = 8
"""Finished frames that wait at most to be taken; more are not made until one is."""

_COUNTED_DELAYS = 15_000
"""Frames whose delays are kept for the figures: ten minutes at 25 frames per second."""

_WORK_SHARE = 0.2
"""Weight of the last frame in the running mean of the seconds that one takes."""

_LARGEST_SAMPLE = 2.0
"""Floats that peak higher are taken for integers that were never scaled, and refused."""


@dataclass(frozen=True)
class LiveStats:
    """What a session has done so far.

    Attributes:
        frames: handed out.
        dropped: late ones that were not.
        sound_s: seconds of sound fed.
        silence_s: seconds of silence put in where none came.
        median_delay_s, p95_delay_s, longest_delay_s: from the moment at which a player that plays the sound as it
            comes plays what a frame shows, to the handing out of the frame; of the last 15,000 frames, NaN before the
            first. Below zero the frame came earlier.
    """

    frames: int
    dropped: int
    sound_s: float
    silence_s: float
    median_delay_s: float
    p95_delay_s: float
    longest_delay_s: float


class LiveSession:
    """Sound in, frames out, the work between them in a thread of its own.

    One thread may :meth:`feed` while another iterates over the frames; :meth:`animate` does both for one. A frame
    is late when a player that plays the sound as it comes, without a break while there is any, has played its moment
    more than ``max_delay_s`` ago. Late frames are not made, but for two a second however late they are, and those
    that nobody took in time are passed over where a newer one is ready.

    Use it in a ``with`` block, or :meth:`close` it.

    Attributes:
        width, height: size of the frames in pixels.
        fps: frames per second.
        sample_rate: of the sound that is fed, in Hz.
    """

    def __init__(
        self,
        face: LiveFace,
        width: int,
        height: int,
        max_delay_s: float | None,
        idle_s: float | None,
    ) -> None:
        self.width, self.height, self.fps, self.sample_rate = width, height, face.fps, face.sample_rate
        self._face = face
        self._idle_s = idle_s
        self._idle = False
        self._sound: Channel[tuple[np.ndarray, float]] = Channel(QUEUED_SOUND_S * self.sample_rate)
        self._frames: Channel[tuple[Frame, float]] = Channel(QUEUED_FRAMES)
        self._dues: dict[int, tuple[float, float]] = {}
        self._work_s = 0.0
        self._clock = PlaybackClock(self.sample_rate, time.monotonic())
        self._rule = DropRule(max_delay_s, self.fps)
        self._fed = self._silent = self._handed = self._passed_over = 0
        self._delays: deque[float] = deque(maxlen=_COUNTED_DELAYS)
        self._error: BaseException | None = None
        self._worker = threading.Thread(target=self._work, name="atldiff-live", daemon=True)
        self._worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def feed(self, samples: np.ndarray, timeout_s: float | None = None) -> None:
        """Take in the next sound; waits while two seconds of it are still waiting.

        Args:
            samples: (n,) mono at the sample rate, int16 or floating point in [-1, 1], of any length.
            timeout_s: how long to wait at most; for ever if None.

        Raises:
            InputError: samples of another kind, or the sound has been ended already.
            TimeoutError: there was no room in time; the sound was not taken.
        """
        chunk = _checked(samples)
        if not len(chunk):
            return
        arrived = time.monotonic()
        try:
            self._sound.put((chunk, arrived), len(chunk), timeout_s)
        except Ended:
            raise InputError("the live session takes no more sound: it was ended") from self._error
        except queue.Full as error:
            raise TimeoutError(f"the live session had no room for sound within {timeout_s:g} s") from error
        self._fed += len(chunk)

    def feed_silence(self, seconds: float) -> None:
        """Say that it is silent for a while; the face goes on living."""
        left, step = round(seconds * self.sample_rate), self._silent_step()
        for begin in range(0, left, len(step)):
            self.feed(step[: left - begin])

    def finish(self) -> None:
        """The sound has ended: what was fed is still made to frames, then the iteration ends."""
        self._sound.end()

    def hush(self) -> int:
        """Somebody was cut short: the mouth rests through all the sound so far that is not yet made to frames.

        Returns:
            The number of the first frame that it holds for; those before it are made already.
        """
        return self._face.hush((self._fed + self._silent) / self.sample_rate)

    def drop_after(self, max_delay_s: float) -> None:
        """Frames that will be later than this when they are made are left out from now on, but for one wherever none
        was made for half a second: whoever is behind goes on with what is new."""
        self._rule.max_delay_s, self._rule.skips = max_delay_s, True

    def close(self) -> None:
        """End at once; frames that nobody took are lost. Closing twice does no harm."""
        self._sound.stop()
        self._frames.stop()
        self._worker.join()

    def take(self, timeout_s: float | None = None) -> Frame | None:
        """The next frame; None after the last.

        Raises:
            TimeoutError: no frame was ready in time.
            Exception: whatever went wrong in making it.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                frame, due = self._frames.get(left)
            except queue.Empty as error:
                raise TimeoutError(f"the live session had no frame within {timeout_s:g} s") from error
            except Ended:
                if self._error is not None:
                    raise self._error from None
                return None
            delay = time.monotonic() - due
            if self._rule.is_late(delay) and self._frames.holds_more():
                self._passed_over += 1
                continue
            self._delays.append(delay)
            self._handed += 1
            return frame

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.take, None)

    def animate(self, chunks: Iterable[np.ndarray]) -> Iterator[Frame]:
        """Feed all of ``chunks`` from a thread of its own, and give the frames; then the session is finished."""
        failed: list[BaseException] = []

        def feed() -> None:
            try:
                for chunk in chunks:
                    self.feed(chunk)
            except BaseException as error:
                failed.append(error)
            finally:
                self.finish()

        threading.Thread(target=feed, name="atldiff-feed", daemon=True).start()
        yield from self
        if failed:
            raise failed[0]

    @property
    def stats(self) -> LiveStats:
        """What has been done so far."""
        delays = np.array(self._delays) if self._delays else np.array([np.nan])
        median, p95, longest = (float(np.percentile(delays, share)) for share in (50, 95, 100))
        dropped = self._rule.dropped + self._passed_over
        sound_s, silence_s = self._fed / self.sample_rate, self._silent / self.sample_rate
        return LiveStats(self._handed, dropped, sound_s, silence_s, median, p95, longest)

    def _work(self) -> None:
        try:
            for frame in self._face.frames(self._chunks(), self._is_wanted):
                due, asked = self._dues.pop(frame.number)
                self._work_s += _WORK_SHARE * (time.monotonic() - asked - self._work_s)
                self._frames.put((frame, due))
        except Ended:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._sound.end()
            self._frames.end()

    def _is_wanted(self, number: int) -> bool:
        due, now = self._clock.due(number / self.fps), time.monotonic()
        if kept := self._rule.keeps(number, now - due + (self._work_s if self._rule.skips else 0.0)):
            self._dues[number] = due, now
        return kept

    def _chunks(self) -> Iterator[np.ndarray]:
        """The sound as it was fed, and silence where none comes for a while."""
        while True:
            try:
                patience = self._patience()
                come = self._sound.get_all(patience) if self._face.catches_up else [self._sound.get(patience)]
                self._idle = False
            except queue.Empty:
                come = [(self._silent_step(), time.monotonic())]
                self._idle = True
                self._silent += len(come[0][0])
            except Ended:
                return
            for chunk, arrived in come:
                self._clock.add(len(chunk), arrived)
            yield np.concatenate([chunk for chunk, _ in come])

    def _patience(self) -> float | None:
        """Seconds to wait for sound: until the player has been without any for a while, or again without any."""
        if self._idle_s is None:
            return None
        return max(0.0, self._clock.runs_dry + (0.0 if self._idle else self._idle_s) - time.monotonic())

    def _silent_step(self) -> np.ndarray:
        return np.zeros(round(SILENT_STEP_S * self.sample_rate), dtype=np.float32)


def check_live(options: GenerationOptions, sample_rate: int, max_delay_s: float | None, idle_s: float | None) -> None:
    """Raise InputError for what a live session cannot work with."""
    check_sample_rate(sample_rate)
    if options.emotion == AUTO_EMOTION:
        raise InputError(f"emotion is {AUTO_EMOTION!r}, which hears a whole recording; expected a name for live use")
    for name, seconds in (("max_delay_s", max_delay_s), ("idle_s", idle_s)):
        if seconds is not None and not 0 < seconds < float("inf"):
            raise InputError(f"{name} is {seconds}; expected seconds above 0, or None")


def _checked(samples: np.ndarray) -> np.ndarray:
    """(n,) int16 or floating point → (n,) float32 in [-1, 1], a copy."""
    samples = np.array(samples)
    if samples.ndim != 1 or (samples.dtype != np.int16 and samples.dtype.kind != "f"):
        raise InputError(
            f"got live sound of shape {samples.shape} and type {samples.dtype}; expected (n,) int16, or floats in "
            "[-1, 1]"
        )
    chunk = as_float(samples)
    peak = float(np.abs(chunk).max(initial=0.0))
    if not peak <= _LARGEST_SAMPLE:
        raise InputError(f"live sound peaks at {peak:g}; expected int16, or floats in [-1, 1]")
    return chunk
