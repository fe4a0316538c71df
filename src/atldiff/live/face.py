"""The work of a live session, without threads or clocks: a plain generator from pieces of sound to frames."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import numpy as np

from atldiff.image.animator import FaceAnimator, FaceFrames
from atldiff.media.files import frame_rate
from atldiff.motion.living import Motion
from atldiff.results import Frame
from atldiff.speech.loudness import levelled_live
from atldiff.speech.waveform import SAMPLE_RATE, resampled

SILENT_STEP_S = 0.08
"""Seconds of silence that are put in at a time."""

_FRAMES_AT_ONCE = 4
"""Frames that are made together at most: more would be cheaper each, and the first of them later."""


class LiveFace:
    """A face that speaks what it hears, without threads or clocks.

    Args:
        motion: from sound to landmarks; it has a look-ahead.
        animator: from landmarks to frames of the face.
        pictures: from those to the pictures that are handed out.
        place: from crop pixels to those of the pictures.
        fps: frames per second.
        sample_rate: of the sound, in Hz.

    Attributes:
        catches_up: see :meth:`catch_up`.
    """

    def __init__(
        self,
        motion: Motion,
        animator: FaceAnimator,
        pictures: Callable[[Iterable[FaceFrames]], Iterator[np.ndarray]],
        place: Callable[[np.ndarray], np.ndarray],
        fps: float,
        sample_rate: int,
    ) -> None:
        self._motion = motion
        self._animator = animator
        self._pictures = pictures
        self._place = place
        self.fps = fps
        self.sample_rate = sample_rate
        self.catches_up = False
        self._next = -1

    def frames(self, chunks: Iterable[np.ndarray], wanted: Callable[[int], bool] = lambda _: True) -> Iterator[Frame]:
        """Pieces of sound → frames, each as soon as its look-ahead has been heard.

        How the sound is cut into pieces makes no difference. After its end it is silent: the last frames come as
        ``round(seconds · fps)`` of them are there.

        Args:
            chunks: (n,) float32 at the sample rate.
            wanted: asked once for each frame's number, in order, before the frame is made; others are left out.
        """
        sound, first = _Sound(chunks, self.sample_rate), 0
        for landmarks in self._motion.landmarks(sound, sys.maxsize):
            count = min(len(landmarks), sound.frames_left(first, self.fps))
            for begin in range(0, count, _FRAMES_AT_ONCE):
                piece = range(first + begin, first + min(begin + _FRAMES_AT_ONCE, count))
                numbers = [number for number in piece if wanted(number)]
                if numbers:
                    yield from self._made(landmarks[numbers[0] - first : numbers[-1] + 1 - first], numbers)
            first += count
            if not sound.frames_left(first, self.fps):
                return

    def _made(self, landmarks: np.ndarray, numbers: list[int]) -> Iterator[Frame]:
        """The frames of these numbers, the first and the last of which are those of ``landmarks``."""
        if numbers[0] != self._next:
            self._animator.begin_live()
        self._next = numbers[-1] + 1
        faces = self._animator.go_on(landmarks)
        for number in numbers:
            index = number - numbers[0]
            (picture,) = self._pictures([faces[index : index + 1]])
            yield Frame(number, number / self.fps, picture, self._place(landmarks[index]))

    def catch_up(self) -> None:
        """Let all that has come be heard at once: that costs less where it is late."""
        self.catches_up = True
        self._motion.catch_up()

    def hush(self, until_s: float) -> int:
        """Let the mouth rest in all frames before a time that are not yet made; gives the first of them."""
        return self._motion.hush.begin(math.ceil(until_s * self.fps))


class _Sound:
    """Pieces of sound as 16 kHz blocks, with silence after the last, and how much of it there was."""

    def __init__(self, chunks: Iterable[np.ndarray], sample_rate: int) -> None:
        self._chunks = chunks
        self._sample_rate = sample_rate
        self._samples = 0
        self._ended = False

    def __iter__(self) -> Iterator[np.ndarray]:
        blocks = self._counted()
        if self._sample_rate != SAMPLE_RATE:
            blocks = resampled(blocks, self._sample_rate, SAMPLE_RATE)
        yield from levelled_live(block[0] for block in blocks)
        while True:
            yield np.zeros(round(SILENT_STEP_S * SAMPLE_RATE), dtype=np.float32)

    def frames_left(self, first: int, fps: float) -> int:
        """How many frames there are from ``first`` on; no end is known before the end of the sound."""
        if not self._ended:
            return sys.maxsize
        return max(0, round(Fraction(self._samples, self._sample_rate) * frame_rate(fps)) - first)

    def _counted(self) -> Iterator[np.ndarray]:
        for chunk in self._chunks:
            self._samples += len(chunk)
            yield chunk[None]
        self._ended = True
