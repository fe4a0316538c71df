"""One video judged against the true one: landmarks seen in the finished pictures, and every metric from them."""

from dataclasses import dataclass

import numpy as np

from atldiff.data.tracking import MAX_MISSING_SHARE, fill_gaps, missing_share
from atldiff.errors import InputError
from atldiff.evaluation import metrics
from atldiff.evaluation.identity import IdentityMeter
from atldiff.evaluation.shapes import judge_shapes, seconds_of_mouth
from atldiff.face.crop import DETECTION_SIZE, resized
from atldiff.face.detection import FaceDetector
from atldiff.face.topology import MOUTH, mouth_opening
from atldiff.landmarks.shapes import SHAPES

IDENTITY_SAMPLES = 8
"""Frames of a clip, evenly spaced, whose identity is measured."""

_LEAST_FRAMES = 4
_PUBLISHED_CROP_SIZE = 256
_LANDMARKS_UNSEEN = (
    dict.fromkeys(("m_ld", "f_ld", "lvd", "ld_as_published", "lvd_as_published", "lag", "gain"), float("nan"))
    | {f"{shape}_{figure}": float("nan") for shape in SHAPES for figure in ("gain", "p95")}
    | {f"{shape}_r": 0.0 for shape in SHAPES}
    | {"r_at_zero": 0.0, "r_best": 0.0}
)
"""What is said of a video in which no face was seen."""


@dataclass(frozen=True)
class Judgement:
    """What was measured on one video.

    Attributes:
        values: by metric, NaN where it cannot be measured.
        openings: (F - 1,) mouth openings of frame 1 and those after it; empty where no face was seen.
        seconds: (N, D) of :func:`~atldiff.evaluation.shapes.seconds_of_mouth`; none where no face was seen.
    """

    values: dict[str, float]
    openings: np.ndarray
    seconds: np.ndarray


def detect_landmarks(frames: np.ndarray, detector: FaceDetector) -> np.ndarray:
    """Landmarks seen in crops enlarged to 256 pixels: (F, 68, 2) float32 crop pixels, NaN where no face is.

    A frame that equals the one before it is not looked at again.

    Args:
        frames: (F, size, size, 3) uint8.
        detector: reads the landmarks.
    """
    scale = frames.shape[1] / DETECTION_SIZE
    landmarks = np.full((len(frames), 68, 2), np.nan, dtype=np.float32)
    for index, frame in enumerate(frames):
        if index and np.array_equal(frame, frames[index - 1]):
            landmarks[index] = landmarks[index - 1]
            continue
        faces = detector.detect_once(resized(frame, DETECTION_SIZE))
        if faces:
            landmarks[index] = max(faces, key=np.ptp) * scale
    return landmarks


class Judge:
    """Scores videos of one clip against its true video, whose own measurements are taken once.

    Args:
        true_frames: (F, S, S, 3) uint8; the first one is the portrait.
        detector: reads landmarks.
        meter: measures identity.
        fps: frames per second.

    Raises:
        InputError: no face is seen in more than a tenth of the true crops, or in the first one; or fewer than
            four frames.
    """

    def __init__(
        self, true_frames: np.ndarray, detector: FaceDetector, meter: IdentityMeter, fps: float = 25.0
    ) -> None:
        if len(true_frames) < _LEAST_FRAMES:
            raise InputError(f"expected {_LEAST_FRAMES} frames or more with sound, got {len(true_frames)}")
        landmarks = detect_landmarks(true_frames, detector)
        missing = missing_share(landmarks)
        if np.isnan(landmarks[0]).any() or missing > MAX_MISSING_SHARE:
            raise InputError(
                f"no face is seen in {missing:.0%} of the true frames; "
                f"expected one in the first frame and in {1 - MAX_MISSING_SHARE:.0%} of them"
            )
        self._frames = true_frames
        self._landmarks = fill_gaps(landmarks)
        self._box = metrics.mouth_box(self._landmarks, true_frames.shape[1])
        self._detector = detector
        self._meter = meter
        self._fps = fps

    @property
    def true_openings(self) -> np.ndarray:
        """(F - 1,) mouth openings of the true video, frame 1 and those after it."""
        return mouth_opening(self._landmarks[1:])

    @property
    def true_seconds(self) -> np.ndarray:
        """The true video's :attr:`Judgement.seconds`."""
        return self._seconds(self._landmarks[1:])

    def _seconds(self, landmarks: np.ndarray) -> np.ndarray:
        return seconds_of_mouth(landmarks, self._landmarks[0], self._fps)

    def common(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The frames that are scored, those of ``frames`` and the true ones: all that both have but the first.

        Raises:
            InputError: frames of another size, or too few.
        """
        count = min(len(frames), len(self._frames))
        if frames.shape[1:] != self._frames.shape[1:] or count < _LEAST_FRAMES:
            raise InputError(
                f"expected frames like the true {self._frames.shape}, {_LEAST_FRAMES} or more; got {frames.shape}"
            )
        return frames[1:count], self._frames[1:count]

    def score(self, frames: np.ndarray) -> Judgement:
        """The metrics of one video over the frames that both have but for the first.

        ``frames_missing`` is how many frames fewer than the true video it has, ``faces_missing`` the share of
        its frames in which no face was seen: their landmarks are interpolated; with no face at all, what
        needs landmarks is NaN and the mouth correlates with nothing.

        Args:
            frames: (F', S, S, 3) uint8.

        Raises:
            InputError: frames of another size, or too few.
        """
        own, true = self.common(frames)
        own_mouth, true_mouth = metrics.cut_box(own, self._box), metrics.cut_box(true, self._box)
        landmarks = detect_landmarks(own, self._detector)
        seen = fill_gaps(landmarks) if missing_share(landmarks) < 1 else None
        landmark_values = _LANDMARKS_UNSEEN if seen is None else self._landmark_scores(seen)
        values = {
            "psnr": metrics.psnr(own, true),
            "psnr_mouth": metrics.psnr(own_mouth, true_mouth),
            "ssim": metrics.ssim(own, true),
            "ssim_mouth": metrics.ssim(own_mouth, true_mouth),
            **landmark_values,
            **self._identity_scores(own, landmarks),
            "flicker_ratio": _ratio(metrics.flicker(own, self._box), metrics.flicker(true, self._box)),
            "faces_missing": missing_share(landmarks),
            "frames_missing": float(len(self._frames) - len(frames)),
        }
        if seen is None:
            return Judgement(values, np.empty(0), np.empty((0, 0)))
        return Judgement(values, mouth_opening(seen), self._seconds(seen))

    def _landmark_scores(self, own: np.ndarray) -> dict[str, float]:
        true = self._landmarks[1 : len(own) + 1]
        published = _PUBLISHED_CROP_SIZE / self._frames.shape[1]
        openings, true_openings = mouth_opening(own), mouth_opening(true)
        correlation = metrics.mouth_correlation(openings, true_openings)
        return {
            "m_ld": metrics.landmark_distance(own, true, MOUTH),
            "f_ld": metrics.landmark_distance(own, true),
            "lvd": metrics.landmark_velocity_distance(own, true),
            "ld_as_published": metrics.landmark_distance_as_published(own * published, true * published),
            "lvd_as_published": metrics.landmark_velocity_distance_as_published(own * published, true * published),
            "r_at_zero": correlation.r_at_zero,
            "r_best": correlation.r_best,
            "lag": float(correlation.lag) if correlation.r_best else float("nan"),
            "gain": metrics.gain(openings, true_openings),
            **judge_shapes(own, true),
        }

    def _identity_scores(self, frames: np.ndarray, landmarks: np.ndarray) -> dict[str, float]:
        seen = np.flatnonzero(~np.isnan(landmarks).any(axis=(1, 2)))
        if not len(seen):
            return {"identity_median": float("nan"), "identity_max": float("nan")}
        sampled = seen[np.unique(np.linspace(0, len(seen) - 1, IDENTITY_SAMPLES).round().astype(int))]
        enlargement = DETECTION_SIZE / self._frames.shape[1]
        distances = self._meter.distances(
            resized(self._frames[0], DETECTION_SIZE),
            self._landmarks[0] * enlargement,
            np.stack([resized(frames[index], DETECTION_SIZE) for index in sampled]),
            landmarks[sampled] * enlargement,
        )
        return {"identity_median": float(np.median(distances)), "identity_max": float(distances.max())}


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else float("nan")
