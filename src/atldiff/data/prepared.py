"""The prepared clips of :mod:`atldiff.data.clips`, held in memory and drawn speaker by speaker."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atldiff.data.clips import INDEX_NAME
from atldiff.errors import InputError


@dataclass(frozen=True)
class PreparedClip:
    """One clip of one speaker.

    Attributes:
        frames: (F, 128, 128, 3) uint8 crops, or None where only landmarks and sound were asked for.
        landmarks: (F, 68, 2) float32 crop pixels.
        waveform: (samples,) int16, 16 kHz mono, its lag taken out.
        fps: frames per second.
    """

    path: str
    corpus: str
    speaker: str
    frames: np.ndarray | None
    landmarks: np.ndarray
    waveform: np.ndarray
    fps: float


def load_clips(
    prepared: Path, split: str, with_frames: bool = True, most_per_speaker: int | None = None
) -> list[PreparedClip]:
    """The clips of one split (``train`` or ``val``).

    Args:
        prepared: folder written by :func:`atldiff.data.clips.prepare_clips`.
        split: as in the index.
        with_frames: whether to read the pictures too (1.5 MB a second of clip).
        most_per_speaker: keep at most so many clips a speaker, evenly spread over the index.

    Raises:
        InputError: no index, or no usable clip in the split.
    """
    index = prepared / INDEX_NAME
    if not index.is_file():
        raise InputError(f"no {INDEX_NAME} in {prepared}; expected a folder of prepared clips")
    with index.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == split and not row["rejected"]]
    if not rows:
        raise InputError(f"{index} lists no usable clip of split {split!r}")
    by_speaker: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_speaker.setdefault(row["speaker"], []).append(row)
    clips = []
    for rows in by_speaker.values():
        count = min(len(rows), most_per_speaker or len(rows))
        clips.extend(_load_clip(prepared, rows[index * len(rows) // count], with_frames) for index in range(count))
    return clips


def _load_clip(prepared: Path, row: dict[str, str], with_frames: bool) -> PreparedClip:
    with np.load(prepared / row["path"]) as arrays:
        return PreparedClip(
            path=row["path"],
            corpus=row["corpus"],
            speaker=row["speaker"],
            frames=arrays["frames"] if with_frames else None,
            landmarks=arrays["landmarks"],
            waveform=arrays["waveform"],
            fps=float(arrays["fps"]),
        )


class SpeakerSampler:
    """Draws clips so that every speaker comes up equally often, however many clips there are of each."""

    def __init__(self, clips: list[PreparedClip], shortest: int) -> None:
        self._by_speaker: dict[str, list[PreparedClip]] = {}
        for clip in clips:
            if len(clip.landmarks) >= shortest:
                self._by_speaker.setdefault(clip.speaker, []).append(clip)
        if not self._by_speaker:
            raise InputError(f"no clip has {shortest} frames; the longest has {max(len(c.landmarks) for c in clips)}")
        self._speakers = sorted(self._by_speaker)

    def draw(self, random: np.random.Generator) -> PreparedClip:
        """One clip of a speaker drawn evenly."""
        clips = self._by_speaker[self._speakers[random.integers(len(self._speakers))]]
        return clips[random.integers(len(clips))]
