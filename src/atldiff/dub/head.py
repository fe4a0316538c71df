"""Where a head is in each frame of a shot: its landmarks in depth, laid over one model of the face."""

from dataclasses import dataclass

import numpy as np

from atldiff.face.crop import face_crop
from atldiff.face.topology import LEFT_EYE, MOUTH, NOSE, RIGHT_EYE

_RIGID = (*range(27, 36), 36, 39, 42, 45)
"""Nose and eye corners: what speech hardly moves; the base of the nose is what lies nearest to the mouth."""

_ROUNDS = 4
"""Times that the frames are laid over the model and the model is taken anew from them."""

_STEADY_SECONDS = 0.12
"""Seconds to either side of a frame that its pose is smoothed over."""


@dataclass(frozen=True)
class Heads:
    """The poses of F frames: a place p of the face model lies at scale · p @ turn + shift, pixels of the picture.

    Attributes:
        scale_F: pixels of the picture to a crop pixel, the model's unit.
        turn_F33: rotations.
        shift_F3: pixels; the third, of the depth, has no meaning of its own.
    """

    scale_F: np.ndarray
    turn_F33: np.ndarray
    shift_F3: np.ndarray

    def __len__(self) -> int:
        return len(self.scale_F)

    def __getitem__(self, part: slice | np.ndarray) -> "Heads":
        return Heads(self.scale_F[part], self.turn_F33[part], self.shift_F3[part])

    def project(self, places_FK3: np.ndarray) -> np.ndarray:
        """Places of the model → (F, K, 2) pixels of the pictures."""
        moved = np.einsum("fki,fij->fkj", places_FK3, self.turn_F33)
        return (self.scale_F[:, None, None] * moved + self.shift_F3[:, None])[..., :2]

    def restore(self, solid_FK3: np.ndarray) -> np.ndarray:
        """Places in the pictures, with depths → places of the model, (F, K, 3)."""
        centred = (solid_FK3 - self.shift_F3[:, None]) / self.scale_F[:, None, None]
        return np.einsum("fkj,fij->fki", centred, self.turn_F33)

    def crops(self, centre_2: np.ndarray) -> np.ndarray:
        """(F, 2, 3) similarities from crop pixels to pixels of the pictures that go with the head in the plane.

        Args:
            centre_2: the place of the crop that is laid exactly where the head has it.
        """
        block = self.turn_F33[:, :2, :2]
        angle = np.arctan2(block[:, 0, 1] - block[:, 1, 0], block[:, 0, 0] + block[:, 1, 1])
        cosine, sine = self.scale_F * np.cos(angle), self.scale_F * np.sin(angle)
        linear = np.stack([np.stack([cosine, -sine], axis=1), np.stack([sine, cosine], axis=1)], axis=1)
        centre_3 = np.append(centre_2, 0.0)
        place = self.project(np.broadcast_to(centre_3, (len(self), 1, 3)))[:, 0]
        return np.concatenate([linear, (place - linear @ centre_2)[:, :, None]], axis=2)

    def turned(self) -> np.ndarray:
        """(F,) the angle between the face and the viewer, radians, to the side or up and down."""
        return np.arccos(np.clip(self.turn_F33[:, 2, 2], -1, 1))

    def steadied(self, fps: float) -> "Heads":
        """Without the landmarks' trembling, and without any lag."""
        shift = steady(self.shift_F3, fps)
        scale = np.exp(steady(np.log(self.scale_F), fps))
        turn = steady(self.turn_F33.reshape(-1, 9), fps).reshape(-1, 3, 3)
        left, _, right = np.linalg.svd(turn)
        return Heads(scale, left @ right, shift)


def face_model(solid_F683: np.ndarray) -> np.ndarray:
    """The mean face, (68, 3), towards the viewer, crop pixels of its own upright crop.

    Args:
        solid_F683: landmarks with depths in any frames, see
            :meth:`~atldiff.face.detection.FaceDetector.detect_solid`.
    """
    model = solid_F683[len(solid_F683) // 2].astype(np.float64)
    for _ in range(_ROUNDS):
        model = np.median(fit_heads(solid_F683, model).restore(solid_F683), axis=0)
    model = model - model[list(_RIGID)].mean(axis=0)
    across = model[LEFT_EYE].mean(axis=0) - model[RIGHT_EYE].mean(axis=0)
    first = across / np.linalg.norm(across)
    down = model[MOUTH].mean(axis=0) - model[NOSE][0]
    down = down - (down @ first) * first
    down[2] = 0.0
    second = down - (down @ first) * first
    second /= np.linalg.norm(second)
    model = model @ np.stack([first, second, np.cross(first, second)], axis=1)
    crop = face_crop(model[:, :2])
    return np.concatenate([crop.to_crop(model[:, :2]), model[:, 2:] / crop.scale], axis=1)


def fit_heads(solid_F683: np.ndarray, model_683: np.ndarray) -> Heads:
    """Where the model's nose and eye corners lie on those of the frames."""
    return fit_solids(model_683[list(_RIGID)], solid_F683[:, _RIGID])


def fit_solids(source_K3: np.ndarray, target_FK3: np.ndarray) -> Heads:
    """Least-squares similarities (Umeyama 1991) from points to those of F frames."""
    source, target = source_K3.astype(np.float64), target_FK3.astype(np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=1)
    source = source - source_mean
    spread = np.einsum("ki,fkj->fij", source, target - target_mean[:, None])
    left, sizes, right = np.linalg.svd(spread)
    signs = np.ones_like(sizes)
    signs[:, 2] = np.sign(np.linalg.det(left @ right))
    turn = left @ (signs[:, :, None] * right)
    scale = (sizes * signs).sum(axis=1) / (source**2).sum()
    shift = target_mean - scale[:, None] * (source_mean @ turn)
    return Heads(scale, turn, shift)


def steady(series_FN: np.ndarray, fps: float, seconds: float = _STEADY_SECONDS) -> np.ndarray:
    """Each value replaced by that of the parabola through what lies up to ``seconds`` to either side, (F,) or (F, N).

    Savitzky and Golay 1964; a movement is neither late nor, if it lasts longer than that, any smaller.
    """
    half = min(round(seconds * fps), (len(series_FN) - 1) // 2)
    if half < 2:
        return series_FN
    steps = np.arange(-half, half + 1)
    weights = np.linalg.pinv(np.vander(steps / half, 3))[2]
    before, after = series_FN[half:0:-1], series_FN[-2 : -half - 2 : -1]
    padded = np.concatenate([2 * series_FN[:1] - before, series_FN, 2 * series_FN[-1:] - after])
    return np.tensordot(np.lib.stride_tricks.sliding_window_view(padded, len(steps), axis=0), weights, 1)
