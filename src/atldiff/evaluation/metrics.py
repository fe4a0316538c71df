"""How near a generated talking face is to the true video: pictures, landmarks, and how the mouth moves.

Videos are (F, H, W, 3) uint8, landmarks (F, 68, 2) pixels in iBUG order; frame k of the one is set against
frame k of the other. Everything here is numpy, without state.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from atldiff.errors import InputError
from atldiff.face.topology import MOUTH, interocular_distance

PSNR_CAP = 60.0
"""The PSNR of equal pictures in dB; rounding to 8 bits alone leaves 58.9 dB, so more says nothing."""

SSIM_WINDOW = 11
"""Side in pixels of the SSIM window, and the least side of a picture whose SSIM can be taken."""

MAX_LAG = 5
"""How many frames early or late the generated mouth is looked for."""

_SSIM_SIGMA = 1.5
"""Width in pixels of the window, and"""

_SSIM_K1, _SSIM_K2 = 0.01, 0.03
"""the constants of Wang et al. 2004, equation 13."""

_MOUTH_MARGIN = 0.2
"""Of the mouth's box on every side, as a share of its width."""

_STILL = 1e-6
"""Standard deviation below which a mouth does not move, in inter-ocular distances."""

Box = tuple[int, int, int, int]
"""left, top, right, bottom in whole pixels; right and bottom are just outside."""


def _check_same_shape(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape != second.shape or not first.size:
        raise InputError(
            f"expected two arrays of one shape, with something in them; got {first.shape}, {second.shape}"
        )


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB: the mean over frames of each frame's PSNR, each 60 dB at most.

    Args:
        first, second: (F, H, W, C) uint8.

    Raises:
        InputError: the shapes differ, or are empty.
    """
    _check_same_shape(first, second)
    error = (first.astype(np.float32) - second.astype(np.float32)) ** 2
    mean_squared = error.reshape(len(error), -1).mean(axis=1, dtype=np.float64)
    least = 255.0**2 / 10 ** (PSNR_CAP / 10)
    return float(np.mean(10 * np.log10(255.0**2 / np.maximum(mean_squared, least))))


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004, eq. 13), mean over frames, colour channels and window places.

    The window is their Gaussian of 11×11 pixels, σ = 1.5; only windows that lie whole in the picture count.

    Args:
        first, second: (F, H, W, C) uint8, H and W at least 11.

    Raises:
        InputError: the shapes differ, or the pictures are smaller than the window.
    """
    _check_same_shape(first, second)
    height, width = first.shape[1:3]
    if min(height, width) < SSIM_WINDOW:
        raise InputError(f"expected pictures of {SSIM_WINDOW} pixels a side or more for SSIM, got {width}×{height}")
    down, across = _gaussian_matrix(height), _gaussian_matrix(width).T

    def blur(planes: np.ndarray) -> np.ndarray:
        return down @ planes @ across

    return float(np.mean([_ssim_frame(a, b, blur) for a, b in zip(first, second, strict=True)]))


def _ssim_frame(first_HWC: np.ndarray, second_HWC: np.ndarray, blur: Callable[[np.ndarray], np.ndarray]) -> float:
    first, second = (np.moveaxis(frame, -1, 0).astype(np.float64) for frame in (first_HWC, second_HWC))
    mean_first, mean_second = blur(first), blur(second)
    variance_first = blur(first**2) - mean_first**2
    variance_second = blur(second**2) - mean_second**2
    covariance = blur(first * second) - mean_first * mean_second
    c1, c2 = (_SSIM_K1 * 255) ** 2, (_SSIM_K2 * 255) ** 2
    similarity = (2 * mean_first * mean_second + c1) * (2 * covariance + c2)
    similarity /= (mean_first**2 + mean_second**2 + c1) * (variance_first + variance_second + c2)
    return float(similarity.mean())


def _gaussian_matrix(side: int) -> np.ndarray:
    """(side - 10, side): row i holds the window's weights for the place that starts at pixel i."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    matrix = np.zeros((side - SSIM_WINDOW + 1, side))
    for start, row in enumerate(matrix):
        row[start : start + SSIM_WINDOW] = weights / weights.sum()
    return matrix


def mouth_box(landmarks: np.ndarray, size: int) -> Box:
    """One fixed box for a clip: around every mouth point of every frame, with a margin.

    The margin is a fifth of that span's width, on all four sides. The box is kept inside the picture and is
    never smaller than the SSIM window.

    Args:
        landmarks: (F, 68, 2) of the true video, pixels.
        size: side of the square picture in pixels.

    Raises:
        InputError: a landmark is NaN.
    """
    mouth = landmarks[:, MOUTH].reshape(-1, 2).astype(np.float64)
    if not np.isfinite(mouth).all():
        raise InputError("expected landmarks in every frame, got NaN; fill the gaps first")
    low, high = mouth.min(axis=0), mouth.max(axis=0)
    margin = _MOUTH_MARGIN * (high[0] - low[0])
    last_start = size - SSIM_WINDOW
    left, top = (int(np.clip(np.floor(value), 0, last_start)) for value in low - margin)
    right = int(np.clip(np.ceil(high[0] + margin), left + SSIM_WINDOW, size))
    bottom = int(np.clip(np.ceil(high[1] + margin), top + SSIM_WINDOW, size))
    return left, top, right, bottom


def cut_box(frames: np.ndarray, box: Box) -> np.ndarray:
    """(F, H, W, C) → the part of every frame that lies in ``box``."""
    left, top, right, bottom = box
    return frames[:, top:bottom, left:right]


def landmark_distance(generated: np.ndarray, true: np.ndarray, points: slice = slice(None)) -> float:
    """Mean distance of landmarks over frames and points, over the true inter-ocular distance of each frame.

    With all points this is F-LD, with ``points=MOUTH`` M-LD.

    Args:
        generated, true: (F, 68, 2) pixels.
        points: which of the 68 count.
    """
    _check_same_shape(generated, true)
    distance = np.linalg.norm(generated[:, points] - true[:, points], axis=-1)
    return float(np.mean(distance / interocular_distance(true)[:, None]))


def landmark_velocity_distance(generated: np.ndarray, true: np.ndarray, points: slice = slice(None)) -> float:
    """LVD: mean distance of the landmarks' frame-to-frame steps, in inter-ocular distances per frame.

    Args:
        generated, true: (F, 68, 2) pixels, F at least 2.
        points: which of the 68 count.
    """
    _check_same_shape(generated, true)
    step = np.diff(generated[:, points], axis=0) - np.diff(true[:, points], axis=0)
    distance = np.linalg.norm(step, axis=-1)
    return float(np.mean(distance / interocular_distance(true)[1:, None]))


def landmark_distance_as_published(generated: np.ndarray, true: np.ndarray) -> float:
    """The published landmark distance: one Frobenius norm over the whole sequence, growing with its length.

    Args:
        generated, true: (F, 68, 2) in pixels of a 256×256 crop; the value is in the same pixels.
    """
    _check_same_shape(generated, true)
    return float(np.linalg.norm(generated.astype(np.float64) - true))


def landmark_velocity_distance_as_published(generated: np.ndarray, true: np.ndarray) -> float:
    """The published "velocity" distance: differences along the landmark axis, then one Frobenius norm.

    It holds no velocity; it is here only to be set beside published numbers.

    Args:
        generated, true: (F, 68, 2) in pixels of a 256×256 crop; the value is in the same pixels.
    """
    _check_same_shape(generated, true)
    return float(np.linalg.norm(np.diff(generated.astype(np.float64) - true, axis=1)))


@dataclass(frozen=True)
class MouthCorrelation:
    """How the generated mouth's opening follows the true one.

    Attributes:
        r_at_zero: Pearson correlation over frames, frame against frame.
        r_best: the greatest correlation at any lag looked at.
        lag: frames by which the generated mouth is late where the correlation is greatest (early: negative).
    """

    r_at_zero: float
    r_best: float
    lag: int


def mouth_correlation(generated: np.ndarray, true: np.ndarray, max_lag: int = MAX_LAG) -> MouthCorrelation:
    """Correlation of two series of mouth openings, at lag 0 and at the best lag within ±``max_lag`` frames.

    A constant series correlates with nothing: r = 0. A lag must leave half of the frames to compare; of equal
    correlations the smallest lag wins.

    Args:
        generated, true: (F,) mouth openings.
        max_lag: the greatest lag in frames.
    """
    _check_same_shape(generated, true)
    reach = min(max_lag, len(true) // 2)
    by_lag = {lag: _correlation_at(generated, true, lag) for lag in sorted(range(-reach, reach + 1), key=abs)}
    best = max(by_lag, key=lambda lag: by_lag[lag])
    return MouthCorrelation(by_lag[0], by_lag[best], best)


def _correlation_at(generated: np.ndarray, true: np.ndarray, lag: int) -> float:
    frames = len(true) - abs(lag)
    late = generated[max(lag, 0) :][:frames].astype(np.float64)
    early = true[max(-lag, 0) :][:frames].astype(np.float64)
    deviation = late.std() * early.std()
    if late.std() < _STILL or early.std() < _STILL:
        return 0.0
    return float(np.mean((late - late.mean()) * (early - early.mean())) / deviation)


def gain(generated: np.ndarray, true: np.ndarray) -> float:
    """How much the mouth moves: standard deviation of (F,) openings over the true one's; NaN if that is 0."""
    _check_same_shape(generated, true)
    deviation = true.astype(np.float64).std()
    return float(generated.astype(np.float64).std() / deviation) if deviation >= _STILL else float("nan")


def flicker(frames: np.ndarray, box: Box) -> float:
    """Mean absolute second temporal difference outside ``box``, in grey levels (0 to 255) per frame².

    Args:
        frames: (F, H, W, C) uint8; NaN comes back for fewer than three frames.
        box: the mouth, which is meant to move.
    """
    if len(frames) < 3:
        return float("nan")
    outside = np.ones(frames.shape[1:3], dtype=bool)
    left, top, right, bottom = box
    outside[top:bottom, left:right] = False
    total = 0.0
    for before, now, after in zip(frames, frames[1:], frames[2:], strict=False):
        second = after.astype(np.int16) - 2 * now.astype(np.int16) + before
        total += float(np.abs(second[outside]).mean())
    return total / (len(frames) - 2)
