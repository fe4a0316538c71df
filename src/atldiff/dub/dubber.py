"""A video and speech → the same video, saying that: one frame after another, in constant memory."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Self, Unpack

import numpy as np

from atldiff.dub.length import Timeline, make_timeline
from atldiff.dub.mouth import new_landmarks, spoken_displacements
from atldiff.dub.options import DubOptions
from atldiff.dub.painter import FramePainter, MouthFrames
from atldiff.dub.shot import DUBBED, FATES, Shot
from atldiff.dub.sound import DubbedSound
from atldiff.dub.survey import Survey
from atldiff.dub.teeth import MouthInside, best_view, learn_inside
from atldiff.errors import InputError
from atldiff.face.crop import CROP_SIZE, FaceCrop
from atldiff.face.similarity import undo_similarity
from atldiff.media.film import Film
from atldiff.media.planes import Planes
from atldiff.media.writer import VideoWriter
from atldiff.ramps import smoothstep
from atldiff.results import Frame, Progress, SaveArguments, Watch
from atldiff.speech.waveform import Speech

MOUTH_FPS = 50
"""So many moments a second are made, as often as speech is heard; what lies between them comes by straight lines."""

_CENTRE = np.array([64.0, 80.0])
"""The place of the crop that is laid exactly where the head has it: between nose and mouth."""

_BLOCK = 32
"""Frames whose mouths are worked out together."""

_FADE_OUT_S = 0.2
"""Seconds in which the mouth comes to rest after the speech."""

_log = logging.getLogger("atldiff")


@dataclass(frozen=True)
class DubReport:
    """What became of the frames of a dubbed video.

    Attributes:
        frames: in all.
        dubbed: with another mouth.
        left: as they were, by reason.
        cuts: of the old video.
    """

    frames: int
    dubbed: int
    left: dict[str, int]
    cuts: int


@dataclass(repr=False)
class DubbedVideo:
    """A video that is being dubbed: an iterator over its pictures, (H, W, 3) uint8 each; ``len()`` counts them.

    :meth:`with_landmarks` gives the same frames with all that is known of them.

    Attributes:
        width, height: of the frames in pixels.
        fps: frames per second, on average.
        frames: how many there will be.
        sound: of the new video.
        report: what becomes of the frames.
    """

    width: int
    height: int
    fps: float
    frames: int
    sound: DubbedSound
    report: DubReport
    _film: Film
    _survey: Survey
    _timeline: Timeline
    _planes: Iterator[tuple[Planes, np.ndarray]]
    _given: int = field(init=False, default=0)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> np.ndarray:
        return self._next()[0].rgb()

    def __len__(self) -> int:
        return self.frames

    def __repr__(self) -> str:
        size = f"{self.width}×{self.height}"
        return f"DubbedVideo({self.frames} frames of {size} at {self.fps:g} fps, {self._given} given)"

    def save(
        self,
        path: str | Path,
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
        **arguments: Unpack[SaveArguments],
    ) -> Path:
        """Make all frames and write them, at the times of the old video's.

        Args:
            path, progress, arguments: see :meth:`~atldiff.results.FrameStream.save`.
            watch: called with each :class:`~atldiff.results.Frame`, without the badge.

        Raises:
            InputError: some of the frames have been taken already.
            OutputError: the file cannot be written there, or it is the video itself.
        """
        if self._given:
            raise InputError(f"{self._given} of the frames have been taken already; expected a new dub")
        timeline = self._timeline
        form = {"time_base": timeline.time_base, "colours": self._survey.colours}
        with VideoWriter(path, self.width, self.height, self._film.fps, self.sound, **form, **arguments) as writer:
            for number, time in enumerate(timeline.times_N):
                planes, landmarks = self._next()
                if watch is not None:
                    watch(self._frame(number, planes, landmarks))
                writer.write_planes(planes, int(time))
                if progress is not None:
                    progress(self._given, self.frames)
        return Path(path)

    def with_landmarks(self) -> Iterator[Frame]:
        """The frames that are left, each with its number, its moment and its landmarks."""
        while self._given < self.frames:
            number = self._given
            yield self._frame(number, *self._next())

    def _next(self) -> tuple[Planes, np.ndarray]:
        made = next(self._planes)
        self._given += 1
        return made

    def _frame(self, number: int, planes: Planes, landmarks: np.ndarray) -> Frame:
        time_s = float(self._timeline.times_N[number] * self._timeline.time_base)
        return Frame(number, time_s, planes.rgb(), landmarks)


def dub_film(
    film: Film,
    survey: Survey,
    speech: Speech,
    speak: Callable[[np.ndarray], Iterable[np.ndarray]],
    options: DubOptions,
) -> DubbedVideo:
    """Dub a film that was surveyed; its frames are made as they are asked for.

    Args:
        speech: the new one.
        speak: what a mouth at rest, (68, 2) crop pixels, becomes ``MOUTH_FPS`` times a second when it says that:
            blocks of (n, 68, 2).

    Raises:
        InputError: the speech does not fit the film.
        FaceError: no face that can be dubbed.
    """
    last_cut = int(survey.cuts[-1]) if len(survey.cuts) else 0
    frame_bytes = survey.width * survey.height * 3 // 2
    length = Fraction(speech.num_samples, speech.sample_rate)
    timeline = make_timeline(survey.times, film.step, film.time_base, length, options, last_cut, frame_bytes)
    shot = Shot(survey, float(film.fps))
    dubber = Dubber(film, shot, timeline)
    return DubbedVideo(
        width=survey.width,
        height=survey.height,
        fps=float(film.fps),
        frames=len(timeline),
        sound=_sound(film, speech, timeline, options),
        report=dubber.report(len(survey.cuts)),
        _film=film,
        _survey=survey,
        _timeline=timeline,
        _planes=dubber.planes(speak(shot.mouth.identity)),
    )


def _sound(film: Film, speech: Speech, timeline: Timeline, options: DubOptions) -> DubbedSound:
    original = None
    if options.old_sound and film.sound is None:
        _log.warning("%s has no sound: there is none to be heard under the speech", film.path)
    elif options.old_sound:
        original = Speech.open(film.path)
    loop_s = timeline.round_s if options.longer == "loop" else None
    return DubbedSound(speech, timeline.duration_s, film.sound, original, options.old_sound, loop_s)


class Dubber:
    """Puts a new mouth into the frames of a film.

    Args:
        film: the old video.
        shot: the speaker in it.
        timeline: which frame is shown when.
    """

    def __init__(self, film: Film, shot: Shot, timeline: Timeline) -> None:
        self._film, self._shot, self._timeline = film, shot, timeline
        self._inside: MouthInside | None = None

    def report(self, cuts: int) -> DubReport:
        """What becomes of the frames."""
        fate = self._shot.fate_F[self._timeline.source_N]
        left = {name: count for name, each in FATES.items() if (count := int((fate == each).sum()))}
        return DubReport(len(fate), int((fate == DUBBED).sum()), left, cuts)

    def planes(self, landmarks: Iterable[np.ndarray]) -> Iterator[tuple[Planes, np.ndarray]]:
        """The new video's frames, and their landmarks in pixels, (68, 2), or (0, 2) where one is left as it is.

        Args:
            landmarks: what the mouth at rest, ``shot.mouth.identity``, becomes when it speaks, ``MOUTH_FPS`` times a
                second: blocks of (n, 68, 2) crop pixels.
        """
        inside = self._learned()
        painter = FramePainter(inside.geometry, inside.atlas)
        timeline = self._timeline
        spoken = SpokenMouth(landmarks, self._shot.mouth.identity)
        pictures = _played(self._film, timeline)
        for first in range(0, len(timeline), _BLOCK):
            part = slice(first, first + _BLOCK)
            source, moved = timeline.source_N[part], spoken.at(timeline.seconds(part))
            kept = np.flatnonzero(self._shot.fate_F[source] == DUBBED)
            frames = self._mouths(source[kept], moved[kept], inside) if len(kept) else None
            place = {int(each): number for number, each in enumerate(kept)}
            for number in range(len(source)):
                planes = next(pictures)
                if frames is None or number not in place:
                    yield planes, np.zeros((0, 2), dtype=np.float32)
                else:
                    yield _painted(painter, planes, frames, place[number]), frames.new_F682[place[number]]

    def _mouths(self, source: np.ndarray, moved_F682: np.ndarray, inside: MouthInside) -> MouthFrames:
        places = self._shot.at(source)
        new = new_landmarks(places.own_F683, places.rest_F683, moved_F682)
        crops = places.heads.crops(_CENTRE)
        own, target = (undo_similarity(crops, each) for each in (places.picture_F682, places.heads.project(new)))
        target = own + places.share_F[:, None, None] * (target - own)
        skulls, seen = inside.skulls(places.heads, _CENTRE), np.minimum(2 * places.share_F, 1)
        return MouthFrames.of(inside.geometry, crops, own, target, skulls, seen)

    def _learned(self) -> MouthInside:
        """What lies behind the lips, from the frame that shows it best."""
        wanted = int(self._shot.samples[best_view(self._shot.sampled_F683, self._shot.sampled_heads)])
        reading = self._film.frames()
        for _ in range(wanted):
            _next_of(reading, self._film)
        planes = _next_of(reading, self._film)
        places = self._shot.at(np.array([wanted]))
        crop = FaceCrop(places.heads.crops(_CENTRE)[0])
        corners = crop.to_picture(np.array([[x, y] for x in (0.0, CROP_SIZE) for y in (0.0, CROP_SIZE)]))
        box = planes.box_around(corners.min(axis=0), corners.max(axis=0))
        own, local = crop.to_crop(places.picture_F682[0]), crop.within(*box[:2])
        return learn_inside(planes.rgb(box), local, own, self._shot.mouth.model, places.heads, _CENTRE)


class SpokenMouth:
    """What speech moves at any time, asked for in rising order.

    Args:
        landmarks: ``MOUTH_FPS`` times a second, blocks of (n, 68, 2) crop pixels.
        identity: (68, 2) what they are moved from.
    """

    def __init__(self, landmarks: Iterable[np.ndarray], identity: np.ndarray) -> None:
        self._blocks, self._identity = iter(landmarks), identity
        self._held = np.zeros((0, 68, 2))
        self._first = 0
        self._end: float | None = None

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """(F, 68, 2) from the mouth with its lips together; after the end of the speech it goes there."""
        place = seconds * MOUTH_FPS
        self._read(int(np.ceil(place[-1])) + 1)
        last = self._first + len(self._held) - 1
        inside = np.clip(place, self._first, last) - self._first
        low = np.floor(inside).astype(int)
        high = np.minimum(low + 1, len(self._held) - 1)
        share = (inside - low)[:, None, None]
        moved = self._held[low] + share * (self._held[high] - self._held[low])
        after = smoothstep((place - last) / (_FADE_OUT_S * MOUTH_FPS))
        self._forget(int(place[-1]) - 1)
        return moved * (1 - after)[:, None, None]

    def _read(self, count: int) -> None:
        while self._end is None and self._first + len(self._held) < count:
            block = next(self._blocks, None)
            if block is None:
                self._end = float(self._first + len(self._held))
                break
            self._held = np.concatenate([self._held, spoken_displacements(block, self._identity)])

    def _forget(self, before: int) -> None:
        dropped = min(before - self._first, len(self._held) - 1)
        if dropped > 0:
            self._held, self._first = self._held[dropped:], self._first + dropped


def _painted(painter: FramePainter, planes: Planes, frames: MouthFrames, number: int) -> Planes:
    low, high = painter.reach(frames, number)
    box = planes.box_around(low, high)
    made, changed = painter.paint(planes.rgb(box), frames, number, box[:2])
    return planes.with_rgb(box, made, changed)


def _played(film: Film, timeline: Timeline) -> Iterator[Planes]:
    """The old frames in the order of the new video; those that are played to and fro are kept."""
    held: list[Planes] = []
    reading, position, planes = film.frames(), -1, None
    for wanted in timeline.source_N:
        if wanted - timeline.held_from in range(len(held)):
            yield held[wanted - timeline.held_from]
            continue
        if wanted <= position:
            reading, position = film.frames(), -1
        while position < wanted:
            planes = _next_of(reading, film)
            position += 1
            if position >= timeline.held_from:
                held.append(planes)
        assert planes is not None
        yield planes


def _next_of(reading: Iterator[tuple[int, Planes]], film: Film) -> Planes:
    try:
        return next(reading)[1]
    except StopIteration:
        raise InputError(f"{film.path} has fewer frames than at its first reading; expected one that stays") from None
