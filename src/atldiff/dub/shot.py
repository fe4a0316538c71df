"""From a survey to what is done with each frame: where the head is, where the mouth is, whether it is changed."""

from dataclasses import dataclass

import numpy as np

from atldiff.dub.covered import covered, runs
from atldiff.dub.head import Heads, face_model, fit_heads, steady
from atldiff.dub.mouth import RestingMouth
from atldiff.dub.survey import Survey
from atldiff.errors import FaceError
from atldiff.face.portrait import MIN_FACE_SIZE
from atldiff.face.topology import mouth_opening
from atldiff.ramps import smoothstep

DUBBED, NO_FACE, COVERED, TURNED = 0, 1, 2, 3
"""What becomes of a frame, and why one is left as it is; of another person there is no face."""

MOST_TURNED = np.radians(45)
"""Faces turned further from the viewer are left as they are."""

_BRIDGED_S = 0.2
"""Gaps no longer than this are bridged: a blink of the detector."""

_SHORTEST_S = 0.12
_FADE_S = 0.16
"""Faces seen for less are left alone; how long it takes to fade from an old mouth to a new one."""

_LIPS_STEADY_S = 0.06
"""Seconds to either side of a frame that its landmarks are smoothed over."""

_MARGIN_S = 5.0
"""Seconds before and after the frames that are asked for that take part in the smoothing."""

_MODEL_FRAMES = 300
"""Frames at most that the model of the face is made from, and"""

_MOST_SAMPLES = 3000
"""frames at most that the mouth at rest is learned from."""

_AT_A_TIME = 4096
"""Frames whose heads are fitted together; it bounds memory alone."""


@dataclass(frozen=True)
class Places:
    """The face in some frames.

    Attributes:
        heads: their poses.
        own_F683: landmarks as places of the face model.
        picture_F682: the same in pixels of the frames.
        rest_F683: the mouth at rest there, lips together.
        share_F: how far each frame is to be changed, 0 to 1.
    """

    heads: Heads
    own_F683: np.ndarray
    picture_F682: np.ndarray
    rest_F683: np.ndarray
    share_F: np.ndarray


class Shot:
    """One speaker in a film that was surveyed.

    Args:
        survey: of the film.
        fps: frames per second.

    Attributes:
        fate_F: (F,) uint8, :data:`DUBBED` or why a frame is left as it is.
        share_F: (F,) how far each is changed, 0 to 1.
        model: (68, 3) the face from the front, crop pixels.
        mouth: the speaker's mouth at rest.
        samples: numbers of some frames that are dubbed.
        sampled_heads, sampled_F683: their poses, and landmarks as places of the model.

    Raises:
        FaceError: no frame can be dubbed.
    """

    def __init__(self, survey: Survey, fps: float) -> None:
        self._fps = fps
        self._takes = np.split(np.arange(len(survey)), survey.cuts)
        self._solid = _bridged(survey.solid_F683, self._takes, round(_BRIDGED_S * fps))
        seen = ~np.isnan(self._solid[:, 0, 0])
        some = np.flatnonzero(seen)[:: max(1, int(seen.sum()) // _MODEL_FRAMES)]
        self.model = face_model(_frontal(self._solid[some]))
        self.fate_F = self._fates(survey, seen)
        kept = self.fate_F == DUBBED
        for run in runs(kept, self._takes):
            if len(run) < _SHORTEST_S * fps and len(run) < len(survey):
                kept[run] = False
                self.fate_F[run] = NO_FACE
        if not kept.any():
            raise FaceError(self._nothing_to_dub())
        self.share_F = _faded(kept, self._takes, _FADE_S * fps)
        self.samples = np.flatnonzero(kept)[:: max(1, int(kept.sum()) // _MOST_SAMPLES)]
        self.sampled_heads = fit_heads(self._solid[self.samples], self.model)
        self.sampled_F683 = self.sampled_heads.restore(self._solid[self.samples])
        self.mouth = RestingMouth(self.sampled_F683)
        self._segments = runs(kept, self._takes)

    def at(self, frames: np.ndarray) -> Places:
        """The face in frames of these numbers, in any order, all of them dubbed."""
        parts = [self._within(segment, frames) for segment in self._segments]
        chosen = [(where, places) for where, places in parts if len(where)]
        order = np.argsort(np.concatenate([where for where, _ in chosen]), kind="stable")
        joined = [np.concatenate(each)[order] for each in zip(*(places for _, places in chosen), strict=True)]
        heads = Heads(*joined[:3])
        return Places(heads, *joined[3:], share_F=self.share_F[frames])

    def _within(self, segment: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Which of ``frames`` lie in a segment, and their poses and places."""
        where = np.flatnonzero((frames >= segment[0]) & (frames <= segment[-1]))
        if not len(where):
            return where, ()
        margin = round(_MARGIN_S * self._fps)
        first = max(int(segment[0]), int(frames[where].min()) - margin)
        last = min(int(segment[-1]), int(frames[where].max()) + margin)
        solid = self._solid[first : last + 1].astype(np.float64)
        heads = fit_heads(solid, self.model).steadied(self._fps)
        calm = steady(solid.reshape(len(solid), -1), self._fps, _LIPS_STEADY_S).reshape(solid.shape)
        own = heads.restore(calm)
        rest = self.mouth.near(own, self._fps)
        chosen = frames[where] - first
        some = heads[chosen]
        return where, (some.scale_F, some.turn_F33, some.shift_F3, own[chosen], calm[chosen, :, :2], rest[chosen])

    def _fates(self, survey: Survey, seen: np.ndarray) -> np.ndarray:
        fate = np.full(len(seen), NO_FACE, dtype=np.uint8)
        poses = np.zeros((len(seen), 3))
        for first in range(0, len(seen), _AT_A_TIME):
            which = first + np.flatnonzero(seen[first : first + _AT_A_TIME])
            solid = self._solid[which]
            heads = fit_heads(solid, self.model)
            small = np.ptp(solid[..., :2], axis=1).max(axis=1) < MIN_FACE_SIZE
            fate[which] = np.where(small, NO_FACE, np.where(heads.turned() > MOST_TURNED, TURNED, DUBBED))
            poses[which] = np.column_stack([heads.turn_F33[:, 2, :2], mouth_opening(heads.restore(solid)[..., :2])])
        hidden = covered(survey.patches, poses, self._takes, _SHORTEST_S * self._fps) & (fate == DUBBED)
        fate[hidden] = COVERED
        return fate

    def _nothing_to_dub(self) -> str:
        counts = {name: int((self.fate_F == fate).sum()) for name, fate in FATES.items()}
        listed = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return f"none of the {len(self.fate_F)} frames can be dubbed ({listed}); expected a face towards the camera"


FATES = {"without the face": NO_FACE, "with the mouth covered": COVERED, "turned by more than 45°": TURNED}


def _frontal(solid_F683: np.ndarray) -> np.ndarray:
    """The half of the frames in which the face is seen most from the front."""
    if len(solid_F683) < 8:
        return solid_F683
    depth = np.abs(solid_F683[:, 45, 2] - solid_F683[:, 36, 2])
    width = np.linalg.norm(solid_F683[:, 45, :2] - solid_F683[:, 36, :2], axis=1)
    aside = depth / np.maximum(width, 1e-6)
    return solid_F683[aside <= np.median(aside)]


def _bridged(solid_F683: np.ndarray, takes: list[np.ndarray], longest: int) -> np.ndarray:
    """Short gaps within a take filled by straight lines."""
    filled = solid_F683.copy()
    for take in takes:
        missing = np.isnan(filled[take, 0, 0])
        for gap in runs(missing, [np.arange(len(take))]):
            before, after = gap[0] - 1, gap[-1] + 1
            if before < 0 or after >= len(take) or len(gap) > longest:
                continue
            share = ((gap - before) / (after - before))[:, None, None]
            first, last = filled[take[before]], filled[take[after]]
            filled[take[gap]] = first + share * (last - first)
    return filled


def _faded(kept: np.ndarray, takes: list[np.ndarray], frames: float) -> np.ndarray:
    """(F,) 1 where a frame is changed, 0 where it is not, rising softly from one to the other within a take."""
    share = np.zeros(len(kept))
    for run in runs(kept, takes):
        away = np.full(len(run), np.inf)
        if run[0] > 0 and not any(run[0] == take[0] for take in takes if len(take)):
            away = np.minimum(away, np.arange(1, len(run) + 1))
        if not any(run[-1] == take[-1] for take in takes if len(take)):
            away = np.minimum(away, np.arange(len(run), 0, -1))
        share[run] = smoothstep(away / (frames + 1))
    return share
