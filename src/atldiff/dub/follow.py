"""One face followed through a film: within a take by its place, over cuts and gaps by what it looks like."""

from dataclasses import dataclass

import numpy as np

from atldiff.dub.likeness import SAME, Looks, looks_of
from atldiff.errors import FaceError
from atldiff.face.crop import FaceCrop, detection_window
from atldiff.face.detection import FaceDetector
from atldiff.face.portrait import MIN_FACE_SIZE
from atldiff.media.planes import Planes

_SEARCH_SIDE = 1024
"""Longest side in pixels at which a whole frame is searched."""

_SEARCH_EVERY_S = 0.2
"""Seconds between two searches of the whole frame for a face that is lost."""

_CHECK_EVERY_S = 0.4
"""Seconds between two looks at whether it is still the same face."""

_LOST_AFTER_S = 0.3
"""Seconds without the face after which its window is given up."""

_OFF_CENTRE, _OTHER_SIZE = 0.12, 1.15
"""How far a face may be from the middle of its window, in sides, and of another size, before the window moves: in
one that stays put landmarks do not tremble with it."""

_FARTHEST = 0.5
_MOST_GROWTH = 1.6
"""From one frame to the next a face goes no further, in its own widths, and changes its size no more."""


@dataclass(frozen=True)
class Seen:
    """The face in one frame.

    Attributes:
        solid_683: landmarks and depths, pixels of the frame.
        picture: (256, 256, 3) uint8 around it.
        window: where that lies in the frame.
    """

    solid_683: np.ndarray
    picture: np.ndarray
    window: FaceCrop

    def looks(self) -> Looks:
        """What the face looks like."""
        return looks_of(self.picture, self.window, self.solid_683)


class FaceFollower:
    """Finds one face again in each frame.

    Args:
        detector: finds faces.
        fps: frames per second.
        number: which face of the first frame that shows one, from 1 at the left; the largest if None.
    """

    def __init__(self, detector: FaceDetector, fps: float, number: int | None = None) -> None:
        self._detector, self._fps, self._number = detector, fps, number
        self._window: FaceCrop | None = None
        self._last: np.ndarray | None = None
        self._looks: Looks | None = None
        self._missed = self._unchecked = self._doubts = 0
        self._next_search = self._frame = 0

    def see(self, planes: Planes, may_be_cut: bool) -> Seen | None:
        """The face in the next frame; None where it is not seen."""
        self._frame += 1
        if may_be_cut:
            self._forget()
        seen = self._in_window(planes)
        if seen is None and self._frame >= self._next_search:
            seen = self._search(planes)
        if seen is None:
            self._missed += 1
            if self._missed > max(1, _LOST_AFTER_S * self._fps):
                self._window = None
            return None
        self._missed = 0
        return seen if self._is_still_the_same(seen) else None

    def _forget(self) -> None:
        self._window, self._next_search = None, self._frame

    def _in_window(self, planes: Planes) -> Seen | None:
        """The face near its last place."""
        if self._window is None or self._last is None:
            return None
        found = self._look(planes, self._window)
        last, looks = self._last, self._looks
        near = [each for each in found if _is_near(each.solid_683, last)]
        if not near:
            return None
        seen = min(near, key=lambda each: _distance(each.solid_683, last))
        if len(near) > 1 and looks is not None:
            seen = min(near, key=lambda each: looks.distance(each.looks()))
        self._last = seen.solid_683
        self._window = _settled(self._window, seen.solid_683)
        return seen

    def _search(self, planes: Planes) -> Seen | None:
        """The face anywhere in the frame. Raises FaceError: not so many faces there."""
        self._next_search = self._frame + max(1, round(_SEARCH_EVERY_S * self._fps))
        small = planes.rgb(longest=_SEARCH_SIDE)
        scale = planes.width / small.shape[1]
        faces = [face * scale for face in self._detector.detect(small)]
        seen = [self._closely(planes, face) for face in faces]
        known = [each for each in seen if each is not None and _width(each.solid_683) >= MIN_FACE_SIZE]
        if not known:
            return None
        chosen = self._first_of(known) if self._looks is None else self._same_of(known)
        if chosen is not None:
            self._last, self._window, self._doubts = chosen.solid_683, chosen.window, 0
        return chosen

    def _first_of(self, seen: list[Seen]) -> Seen:
        if self._number is None:
            return max(seen, key=lambda each: _width(each.solid_683))
        if self._number > len(seen):
            found = "1 face was" if len(seen) == 1 else f"{len(seen)} faces were"
            raise FaceError(
                f"no face number {self._number}: {found} found in the first frame that shows one; "
                f"expected 1 to {len(seen)}, counted from the left"
            )
        return sorted(seen, key=lambda each: float(each.solid_683[:, 0].mean()))[self._number - 1]

    def _same_of(self, seen: list[Seen]) -> Seen | None:
        assert self._looks is not None
        distances = [self._looks.distance(each.looks()) for each in seen]
        best = int(np.argmin(distances))
        return seen[best] if distances[best] < SAME else None

    def _is_still_the_same(self, seen: Seen) -> bool:
        """Compare what is followed with what it looked like, now and then, and learn from it."""
        self._unchecked += 1
        if self._looks is not None and self._unchecked < _CHECK_EVERY_S * self._fps and not self._doubts:
            return True
        self._unchecked = 0
        looks = seen.looks()
        if self._looks is None:
            self._looks = looks
            return True
        if self._looks.distance(looks) < SAME:
            self._looks, self._doubts = self._looks.learned(looks), 0
            return True
        self._doubts += 1
        if self._doubts < 3:
            return True
        self._doubts = 0
        self._forget()
        return False

    def _closely(self, planes: Planes, face_682: np.ndarray) -> Seen | None:
        found = self._look(planes, detection_window(face_682))
        near = [each for each in found if _is_near(each.solid_683, face_682)]
        return min(near, key=lambda each: _distance(each.solid_683, face_682), default=None)

    def _look(self, planes: Planes, window: FaceCrop) -> list[Seen]:
        picture = _cut(planes, window)
        return [
            Seen(np.column_stack([window.to_picture(face[:, :2]), face[:, 2] * window.scale]), picture, window)
            for face in self._detector.detect_solid(picture)
        ]


def _cut(planes: Planes, crop: FaceCrop) -> np.ndarray:
    """(size, size, 3) uint8 RGB of a square, see :meth:`~atldiff.face.crop.FaceCrop.cut`."""
    size = float(crop.size)
    corners = crop.to_picture(np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]]))
    margin = 6 + 3 * crop.scale
    box = planes.box_around(corners.min(axis=0) - margin, corners.max(axis=0) + margin)
    return crop.within(box[0], box[1]).cut(planes.rgb(box))


def _settled(window: FaceCrop, face: np.ndarray) -> FaceCrop:
    """The window, or one around the face where it has left the middle of that."""
    around = detection_window(face[:, :2])
    side = window.scale * window.size
    way = np.abs(around.matrix @ _MIDDLE - window.matrix @ _MIDDLE).max()
    ratio = around.scale / window.scale
    if way > _OFF_CENTRE * side or not 1 / _OTHER_SIZE < ratio < _OTHER_SIZE:
        return around
    return window


_MIDDLE = np.array([128.0, 128.0, 1.0])


def _width(face: np.ndarray) -> float:
    return float(np.ptp(face[:, :2], axis=0).max())


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first[:, :2].mean(axis=0) - second[:, :2].mean(axis=0)))


def _is_near(face: np.ndarray, last: np.ndarray) -> bool:
    ratio = _width(face) / max(_width(last), 1e-6)
    return 1 / _MOST_GROWTH < ratio < _MOST_GROWTH and _distance(face, last) < _FARTHEST * _width(last)
