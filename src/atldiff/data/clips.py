"""Talking-face clips on disk → aligned crops, landmarks and sound that the training reads.

The source is a folder with a ``clips.csv`` whose columns are ``path, corpus, speaker, split, audio_lag_s``
(others are ignored). The prepared folder holds one ``.npz`` a clip and an ``index.csv`` of them.
"""

import csv
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from atldiff.errors import InputError
from atldiff.face.crop import CROP_SIZE, detection_window, face_crop
from atldiff.face.detection import FaceDetector
from atldiff.media import existing_file, open_media
from atldiff.speech.waveform import SAMPLE_RATE, read_waveform

MANIFEST_NAME = "clips.csv"
INDEX_NAME = "index.csv"
_INDEX_COLUMNS = ("path", "corpus", "speaker", "split", "rejected")
MAX_MISSING_SHARE = 0.1
"""A clip with a larger share of frames without a face is not used."""


@dataclass(frozen=True)
class Clip:
    """One row of ``clips.csv``; ``audio_lag_s`` is how many seconds the sound trails the picture."""

    path: Path
    corpus: str
    speaker: str
    split: str
    audio_lag_s: float


def read_manifest(source: Path) -> list[Clip]:
    """The clips that ``source/clips.csv`` lists, in its order.

    Raises:
        InputError: there is no such file, or a column is missing.
    """
    manifest = source / MANIFEST_NAME
    if not manifest.is_file():
        raise InputError(f"no {MANIFEST_NAME} in {source}; expected a folder of clips listed in a {MANIFEST_NAME}")
    with manifest.open(newline="") as stream:
        reader = csv.DictReader(stream)
        missing = {"path", "corpus", "speaker", "split"} - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{manifest} lacks the columns {sorted(missing)}; it has {reader.fieldnames}")
        return [_clip(row, manifest, number) for number, row in enumerate(reader, start=2)]


def _clip(row: dict[str, str], manifest: Path, line: int) -> Clip:
    path, lag = Path(row["path"] or ""), row.get("audio_lag_s") or "0"
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise InputError(f"{manifest}, line {line}: path is {row['path']!r}; expected a path inside the folder")
    try:
        return Clip(path, row["corpus"], row["speaker"], row["split"], float(lag))
    except ValueError as error:
        raise InputError(f"{manifest}, line {line}: audio_lag_s is {lag!r}; expected seconds") from error


def read_frames(path: Path) -> tuple[np.ndarray, float]:
    """All frames of a clip: (F, H, W, 3) uint8 and frames per second.

    Raises:
        InputError: there is no such file, or no video can be read from it.
    """
    expected = "a video of a talking face"
    with open_media(existing_file(path, expected), expected) as container:
        if not container.streams.video:
            raise InputError(f"{path} has no picture; expected {expected}")
        stream = container.streams.video[0]
        try:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        except FFmpegError as error:
            raise InputError(f"{path} cannot be decoded ({error}); expected {expected}") from error
        if not frames:
            raise InputError(f"{path} has no frame; expected {expected}")
        return np.stack(frames), float(stream.average_rate or 25)


def track_landmarks(frames: np.ndarray, detector: FaceDetector) -> np.ndarray:
    """Landmarks of the most prominent face in every frame, (F, 68, 2); NaN where none was seen."""
    landmarks = np.full((len(frames), 68, 2), np.nan, dtype=np.float32)
    first = next((faces for faces in map(detector.detect, frames[:: max(1, len(frames) // 5)]) if faces), None)
    if not first:
        return landmarks
    window = detection_window(first[0])
    for _ in range(2):
        for index, frame in enumerate(frames):
            faces = detector.detect_once(window.cut(frame))
            if faces:
                landmarks[index] = window.to_picture(max(faces, key=np.ptp))
        if np.isnan(landmarks).any(axis=(1, 2)).mean() <= MAX_MISSING_SHARE:
            break
        seen = landmarks[~np.isnan(landmarks).any(axis=(1, 2))]
        if not len(seen):
            break
        window = detection_window(np.median(seen, axis=0))
    return landmarks


def fill_gaps(landmarks: np.ndarray) -> np.ndarray:
    """Linear interpolation over the frames (first axis) that are NaN."""
    missing = np.isnan(landmarks).any(axis=(1, 2))
    if not missing.any():
        return landmarks
    filled = landmarks.copy()
    times = np.arange(len(landmarks))
    for point in np.ndindex(landmarks.shape[1:]):
        series = landmarks[(slice(None), *point)]
        filled[(missing, *point)] = np.interp(times[missing], times[~missing], series[~missing])
    return filled


def prepare_clip(source: Path, clip: Clip, destination: Path, detector: FaceDetector) -> dict[str, str]:
    """Prepare one clip and return its index row; ``rejected`` says why where it was not usable."""
    relative = clip.path.with_suffix(".npz")
    row = {"path": str(relative), "corpus": clip.corpus, "speaker": clip.speaker, "split": clip.split, "rejected": ""}
    target = destination / relative
    if target.exists():
        return row
    try:
        content = _prepared_content(source, clip, detector)
    except InputError as error:
        return row | {"rejected": str(error)}
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **content)
    temporary.replace(target)
    return row


def _prepared_content(source: Path, clip: Clip, detector: FaceDetector) -> dict[str, np.ndarray]:
    frames, fps = read_frames(source / clip.path)
    landmarks = track_landmarks(frames, detector)
    if np.isnan(landmarks).any(axis=(1, 2)).mean() > MAX_MISSING_SHARE:
        raise InputError("no face in more than a tenth of the frames")
    landmarks = fill_gaps(landmarks)
    crop = face_crop(landmarks, CROP_SIZE)
    waveform = read_waveform(source / clip.path)[round(clip.audio_lag_s * SAMPLE_RATE) :]
    return {
        "frames": np.stack([crop.cut(frame) for frame in frames]),
        "landmarks": crop.to_crop(landmarks),
        "waveform": np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16),
        "fps": np.array(fps, dtype=np.float32),
    }


_worker_detector: FaceDetector | None = None


def _prepare_in_worker(arguments: tuple[Path, Clip, Path]) -> dict[str, str]:
    global _worker_detector
    if _worker_detector is None:
        _worker_detector = FaceDetector(max_faces=1)
    source, clip, destination = arguments
    return prepare_clip(source, clip, destination, _worker_detector)


def prepare_clips(source: Path, destination: Path, workers: int = 2) -> list[dict[str, str]]:
    """Prepare every clip of ``source`` that is not prepared yet and write ``destination/index.csv``."""
    clips = read_manifest(source)
    destination.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        jobs = [(source, clip, destination) for clip in clips]
        rows = []
        for row in pool.map(_prepare_in_worker, jobs, chunksize=4):
            rows.append(row)
            if len(rows) % 100 == 0:
                print(f"prepared {len(rows)} of {len(clips)} clips", flush=True)
    temporary = destination / f"{INDEX_NAME}.tmp"
    with temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, _INDEX_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(destination / INDEX_NAME)
    return rows
