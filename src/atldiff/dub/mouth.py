"""The new landmarks of a shot: the frame's own head and eyes, and a mouth that says something else.

What the old speech did to the face is taken off first: mouth and jaw are put at rest, as the speaker's own are where
they are silent, in the pose of each frame. What the new speech does is added to that.
"""

import numpy as np

from atldiff.face.topology import MOUTH, mouth_opening
from atldiff.motion.living import keep_lips_apart
from atldiff.motion.rest import closing_displacement

_JAW_SHARE = np.array([0, 0, 0, 0.2, 0.5, 0.8, 1, 1, 1, 1, 1, 0.8, 0.5, 0.2, 0, 0, 0])
"""How much of each jaw point follows the new speech: near the ears a jaw hardly moves, and is seen badly."""

_REST_QUANTILE = 0.25
_REST_SOFTNESS = 0.02
"""Frames whose opening, in eye distances, is below that quantile show the mouth at rest; how far above it others
still count."""

_NEAR_SECONDS = 1.5
_GLOBAL_WEIGHT = 2.0
"""The rest near a frame is a mean over so many seconds; the whole clip's counts as so many frames of it."""


class RestingMouth:
    """One speaker's mouth at rest, learned from a clip.

    Args:
        places_F683: landmarks of the clip's frames as places of the face model, crop pixels.

    Attributes:
        model: (68, 3) the face with its mouth at rest.
        identity: (68, 2) float32, the same from the front; what the landmark part takes for the portrait's.
    """

    def __init__(self, places_F683: np.ndarray) -> None:
        opening = mouth_opening(places_F683[..., :2])
        self._most_open = float(np.quantile(opening, _REST_QUANTILE))
        self.model = np.average(places_F683, axis=0, weights=self._weight(opening))
        self.identity = self.model[:, :2].astype(np.float32)

    def near(self, places_F683: np.ndarray, fps: float) -> np.ndarray:
        """The mouth at rest, lips together, as the frames around each of consecutive frames have it: (F, 68, 3).

        A face that is turned, or smiles, rests otherwise.
        """
        frames = len(places_F683)
        sigma = max(_NEAR_SECONDS * fps, 1.0)
        reach = min(round(3 * sigma), frames - 1)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        shown = self._weight(mouth_opening(places_F683[..., :2]))
        weight = _smeared(shown, kernel)
        total = _smeared((shown[:, None, None] * places_F683).reshape(frames, -1), kernel)
        flat = (total + _GLOBAL_WEIGHT * self.model.reshape(-1)) / (weight + _GLOBAL_WEIGHT)[:, None]
        rest = flat.reshape(-1, 68, 3)
        rest[..., :2] += np.stack([closing_displacement(each) for each in rest[..., :2]])
        return rest

    def _weight(self, opening_F: np.ndarray) -> np.ndarray:
        """(F,) how far each frame shows the mouth at rest."""
        over = np.maximum(opening_F - self._most_open, 0)
        return np.exp(-0.5 * (over / _REST_SOFTNESS) ** 2)


def new_landmarks(own_F683: np.ndarray, rest_F683: np.ndarray, moved_F682: np.ndarray) -> np.ndarray:
    """Places of the face model, (F, 68, 3), of frames that say something else.

    Args:
        own_F683: those of the frames as they are.
        rest_F683: the same frames at rest, lips together.
        moved_F682: what the new speech moves, from there on.
    """
    target = own_F683.copy()
    spoken = rest_F683.copy()
    spoken[..., :2] += moved_F682
    target[:, MOUTH] = spoken[:, MOUTH]
    jaw = slice(0, len(_JAW_SHARE))
    target[:, jaw] += _JAW_SHARE[:, None] * (spoken[:, jaw] - own_F683[:, jaw])
    target[..., :2] = keep_lips_apart(target[..., :2])
    return target


def spoken_displacements(landmarks_F682: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """What speech moves, from the identity's mouth with its lips together: (F, 68, 2)."""
    return landmarks_F682 - (identity + closing_displacement(identity))


def _smeared(series_FN: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Sums over the neighbours, by the kernel's weights, through the Fourier transform."""
    frames, reach = len(series_FN), len(kernel) // 2
    size = frames + len(kernel)
    spectrum = np.fft.rfft(series_FN, size, axis=0)
    profile = np.fft.rfft(kernel, size)
    whole = np.fft.irfft(spectrum * profile.reshape(-1, *[1] * (series_FN.ndim - 1)), size, axis=0)
    return whole[reach : reach + frames]
