"""The first reading of a film: its takes, and where the face is in each frame."""

from array import array
from dataclasses import dataclass, field

import numpy as np

from atldiff.dub.follow import FaceFollower, Seen
from atldiff.errors import FaceError, InputError
from atldiff.face.crop import resample
from atldiff.face.detection import FaceDetector
from atldiff.media.cuts import cells, find_cuts, may_be_cut
from atldiff.media.film import Film
from atldiff.media.planes import Colours
from atldiff.results import Progress

PATCH = 12
"""Side of the picture of the lower face that is kept of each frame."""

_PATCH_BELOW, _PATCH_SIDE = 0.35, 1.4
"""Its middle below the base of the nose, and its side, in distances of the outer eye corners."""

_PATCH_PIXELS = 4 * PATCH
_LANDMARKS = 68 * 3


@dataclass(frozen=True)
class Survey:
    """What a film's F frames show.

    Attributes:
        width, height, colours: of the frames.
        times: (F,) when they are shown, units of the film's time base.
        cuts: numbers of the frames that begin another take.
        solid_F683: landmarks and depths of the face, pixels; NaN where it is not seen.
        patches: (F, 12, 12, 3) uint8, the lower face in little; 0 where it is not seen.
    """

    width: int
    height: int
    colours: Colours
    times: np.ndarray
    cuts: np.ndarray
    solid_F683: np.ndarray
    patches: np.ndarray

    def __len__(self) -> int:
        return len(self.times)


@dataclass
class _Notes:
    """What is kept of each frame: 1.3 kB."""

    times: array = field(default_factory=lambda: array("q"))
    changes: array = field(default_factory=lambda: array("f"))
    solids: array = field(default_factory=lambda: array("f"))
    patches: bytearray = field(default_factory=bytearray)

    def add(self, time: int, change: float, seen: Seen | None) -> None:
        self.times.append(time)
        self.changes.append(change)
        if seen is None:
            self.solids.frombytes(np.full(_LANDMARKS, np.nan, dtype=np.float32).tobytes())
            self.patches += bytes(3 * PATCH * PATCH)
        else:
            self.solids.frombytes(seen.solid_683.astype(np.float32).tobytes())
            self.patches += _patch(seen).tobytes()


def survey_film(
    film: Film, detector: FaceDetector, number: int | None = None, progress: Progress | None = None
) -> Survey:
    """Read a film once.

    Args:
        detector: finds faces.
        number: which face of the first frame that shows one, from 1 at the left; the largest if None.
        progress: called with (frames read, frames in all, or about).

    Raises:
        InputError: no frame can be decoded, or they change their size.
        FaceError: no face in any frame, or none of that number.
    """
    follower = FaceFollower(detector, float(film.fps), number)
    notes, before, about = _Notes(), None, (0, 0, Colours())
    for time, planes in film.frames():
        about = planes.width, planes.height, planes.colours
        little = cells(planes.luma)
        change = 0.0 if before is None else float(np.abs(little - before).mean())
        before = little
        notes.add(time, change, follower.see(planes, may_be_cut(change)))
        if progress is not None:
            progress(len(notes.times), max(len(notes.times), film.stated_frames))
    frames = len(notes.times)
    if not frames:
        raise InputError(f"{film.path} has no frame that can be decoded; expected a video of a talking face")
    solid = np.frombuffer(notes.solids, dtype=np.float32).reshape(frames, 68, 3)
    if np.isnan(solid[:, 0, 0]).all():
        raise FaceError(f"no face in any of the {frames} frames of {film.path}; expected a face towards the camera")
    return Survey(
        *about,
        times=np.frombuffer(notes.times, dtype=np.int64),
        cuts=find_cuts(np.frombuffer(notes.changes, dtype=np.float32)[1:]),
        solid_F683=solid,
        patches=np.frombuffer(notes.patches, dtype=np.uint8).reshape(frames, PATCH, PATCH, 3),
    )


def _patch(seen: Seen) -> np.ndarray:
    """(12, 12, 3) uint8 around the mouth, which stays put in it however the head moves."""
    points = seen.window.to_crop(seen.solid_683[:, :2]).astype(np.float64)
    across = points[45] - points[36]
    down = np.array([-across[1], across[0]])
    axes = np.column_stack([across, down]) * (_PATCH_SIDE / _PATCH_PIXELS)
    corner = points[33] + _PATCH_BELOW * down - axes @ np.full(2, _PATCH_PIXELS / 2)
    matrix = np.column_stack([axes, corner])
    pixels = resample(seen.picture, matrix, _PATCH_PIXELS)
    side = _PATCH_PIXELS // PATCH
    means = pixels.reshape(PATCH, side, PATCH, side, 3).mean(axis=(1, 3))
    return np.round(means).astype(np.uint8)
