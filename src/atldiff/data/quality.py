"""What makes a clip, or its sound alone, unusable, and how that is told: ``kind: details``.

The thresholds were set on 2,630 clips of GRID and of broadcast news, none of which has a cut: in them the cut verdict
falls on three, whose first half second is broken. Of clips that were joined from two, it finds 94 % where both show
the same person in the same place, and 99 % of the others.
"""

from collections.abc import Iterable

import numpy as np

from atldiff.data.tracking import MAX_MISSING_SHARE, Footage, missing_share
from atldiff.face.detection import FaceDetector
from atldiff.face.topology import interocular_distance
from atldiff.media.cuts import find_cuts
from atldiff.speech import SAMPLE_RATE

UNREADABLE = "cannot be read"
SILENT = "silent"
UNRELATED_LIPS = "lips unrelated to the sound"
UNCLEAR_LAG = "lag not clear"

SHORTEST_FRAMES = 8
SMALLEST_FACE = 16.0
"""Least distance of the outer eye corners in the source, pixels; a face 100 pixels wide has about 50."""

LEAST_LEVEL_DB = -60.0
"""The loudest 50 ms of a clip that is not silent are at least so loud, in dB of full scale."""

_LEVEL_SAMPLES = SAMPLE_RATE // 20
"""Samples of the 50 ms that are measured."""

_QUIETEST = 2.0**-15
"""One step of 16 bit: less counts as that."""

_COMPARABLE = 0.5
"""A second face is one of at least this share of the first one's size."""

_SAMPLED_FRAMES = 10
"""Frames of a clip that are searched for a second face."""

_CELLS = 16
"""Cells a side of a thumbnail."""


def length_verdict(frames: int) -> str:
    """Why a clip of so many frames is unusable; empty if it is not."""
    if frames >= SHORTEST_FRAMES:
        return ""
    return f"too short: {frames} frames, expected at least {SHORTEST_FRAMES}"


def sound_verdict(waveform: np.ndarray) -> str:
    """Why the sound (samples,) in [-1, 1] at 16 kHz is unusable: nowhere louder than a recording of nothing."""
    pieces = np.array_split(waveform, max(1, len(waveform) // _LEVEL_SAMPLES))
    level = 20 * np.log10(max(_QUIETEST, *(piece.std() for piece in pieces)))
    if level >= LEAST_LEVEL_DB:
        return ""
    return f"{SILENT}: {level:.0f} dB of full scale where it is loudest, expected at least {LEAST_LEVEL_DB:.0f}"


def face_verdict(landmarks: np.ndarray) -> str:
    """Why the track (F, 68, 2) of source pixels, NaN where no face was seen, is unusable."""
    missing = missing_share(landmarks)
    if missing > MAX_MISSING_SHARE:
        return f"no face: in {round(missing * len(landmarks))} of {len(landmarks)} frames"
    distance = float(np.nanmedian(interocular_distance(landmarks)))
    if distance < SMALLEST_FACE:
        return f"face too small: {distance:.1f} pixels between the eyes, expected at least {SMALLEST_FACE:g}"
    return ""


def crowd_verdict(footage: Footage, detector: FaceDetector) -> str:
    """Why the number of faces makes a clip unusable: a second one of comparable size in a tenth of some frames."""
    samples = footage[:: max(1, len(footage) // _SAMPLED_FRAMES)]
    crowded = sum(_has_second_face(detector.detect_once(frame) or detector.detect(frame)) for frame in samples)
    if crowded <= len(samples) * MAX_MISSING_SHARE:
        return ""
    return f"more than one face: in {crowded} of {len(samples)} frames looked at"


def _has_second_face(faces: list[np.ndarray]) -> bool:
    if len(faces) < 2:
        return False
    first, *others = sorted(faces, key=_extent, reverse=True)
    return any(
        _extent(face) > _COMPARABLE * _extent(first)
        and np.linalg.norm(face.mean(axis=0) - first.mean(axis=0)) > _extent(first) / 2
        for face in others
    )


def _extent(face: np.ndarray) -> float:
    return float(np.ptp(face, axis=0).max())


def thumbnail(crop: np.ndarray) -> np.ndarray:
    """(size, size, 3) uint8 crop → (16, 16) float32 mean grey levels; ``size`` is a multiple of 16."""
    cell = crop.shape[0] // _CELLS
    return crop.reshape(_CELLS, cell, _CELLS, cell, 3).mean(axis=(1, 3, 4), dtype=np.float32)


def cut_verdict(thumbnails: Iterable[np.ndarray], fps: float) -> str:
    """Why the crops' thumbnails show that the clip is no single take: one change far above those before and after.

    Fast movement changes the picture as much as a cut does, but over several frames.
    """
    changes = np.abs(np.diff(np.stack(list(thumbnails)), axis=0)).mean(axis=(1, 2))
    cuts = find_cuts(changes)
    if not len(cuts):
        return ""
    return f"a cut: the picture jumps at {cuts[0] / fps:.2f} s"
