"""Prepared clips: the format that ``atldiff prepare`` writes, read at random or speaker by speaker.

A prepared folder holds ``clips.parquet``, one row a clip, and tar shards in WebDataset's layout under ``shards/``.
The index says at which byte of its shard each member of a clip lies, so that a window of frames is read
without going through the shard.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from atldiff.data.encoding import decode_landmarks, decode_sound, decode_video
from atldiff.errors import InputError
from atldiff.options import EMOTIONS

INDEX_NAME = "clips.parquet"
JSON_INDEX_NAME = "clips.json"
"""The index of packed clips: the same rows, read without pyarrow."""

SHARDS_NAME = "shards"
FINDINGS_NAME = ".parts"
"""Where the preparation keeps what it has made until the index is written."""

MEMBERS = {"landmarks": "landmarks.npz", "sound": "flac", "video": "mp4"}
"""Members of a clip in its shard and their file extensions; a fourth, ``json``, repeats the row of the index."""


@dataclass(frozen=True)
class ClipInfo:
    """One usable clip.

    Attributes:
        key: ``corpus/speaker/name``, unique.
        emotion: one of the corpus's emotions in the words of :data:`atldiff.options.EMOTIONS`; empty if not known.
        split: ``train``, ``val`` or ``test``.
        shard: file name in ``shards/``.
        frames: number of video frames.
        fps: frames per second.
        size: side of the crop in pixels.
        members: by :data:`MEMBERS`' names, (offset, size) in bytes inside the shard.
        heard: whether it has sound that belongs to its picture and is in step with it.
    """

    key: str
    corpus: str
    speaker: str
    emotion: str
    split: str
    shard: str
    frames: int
    fps: float
    size: int
    members: dict[str, tuple[int, int]] = field(repr=False)
    heard: bool = True

    @property
    def emotion_id(self) -> int | None:
        """The class number of the emotion, its place in :data:`atldiff.options.EMOTIONS`; None if not known."""
        return EMOTIONS.index(self.emotion) if self.emotion in EMOTIONS else None


class PreparedClip:
    """One clip, read from its shard when asked."""

    def __init__(self, info: ClipInfo, folder: Path) -> None:
        self.info = info
        self._folder = folder

    def landmarks(self) -> np.ndarray:
        """(F, 68, 2) float32, crop pixels.

        Raises:
            InputError: the member is missing, not readable, or of another length than the index says.
        """
        landmarks = decode_landmarks(self.member("landmarks"))
        if landmarks.shape != (self.info.frames, 68, 2):
            raise InputError(
                f"{self.info.key} in {self._shard} has landmarks of shape {landmarks.shape}; "
                f"expected {(self.info.frames, 68, 2)}"
            )
        return landmarks

    def waveform(self) -> np.ndarray:
        """(samples,) float32 at 16 kHz; sample 0 belongs to frame 0.

        Raises:
            InputError: the clip has no sound that can be used, or the member cannot be read.
        """
        if not self.info.heard:
            raise InputError(f"{self.info.key} in {self._folder} has no sound; expected a clip that is heard")
        return decode_sound(self.member("sound"))

    def frames(self, first: int = 0, count: int | None = None) -> np.ndarray:
        """(count, size, size, 3) uint8 RGB from frame ``first`` on, to the end if ``count`` is None."""
        return decode_video(self.member("video"), first, self.info.frames - first if count is None else count)

    @property
    def _shard(self) -> Path:
        return self._folder / SHARDS_NAME / self.info.shard

    def has(self, name: str) -> bool:
        """Whether the shard holds the clip's ``landmarks``, ``sound`` or ``video``; a pack leaves some out."""
        return self.info.members[name][1] > 0

    def member(self, name: str) -> bytes:
        """One of :data:`MEMBERS` as it lies in the shard.

        Raises:
            InputError: the shard cannot be read or is cut short, or the clip was packed without that member.
        """
        offset, size = self.info.members[name]
        if not size:
            raise InputError(f"{self.info.key} in {self._folder} was packed without its {name}; expected all of it")
        try:
            with self._shard.open("rb") as stream:
                stream.seek(offset)
                content = stream.read(size)
        except OSError as error:
            raise InputError(
                f"{self._shard} cannot be read ({error.strerror}); expected the shard of {self.info.key}"
            ) from error
        if len(content) != size:
            raise InputError(f"{self._shard} is cut short: {self.info.key} needs {offset + size} bytes of it")
        return content


class PreparedClips:
    """The clips of a prepared folder.

    Attributes:
        folder: where they lie.
        clips: the usable ones, by key.
        rejected: (key, reason) of those that were not usable, by key.
    """

    def __init__(self, folder: Path, clips: list[PreparedClip], rejected: list[tuple[str, str]]) -> None:
        self.folder, self.clips, self.rejected = folder, clips, rejected

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Read the index of a folder that ``atldiff prepare`` or ``train --pack`` wrote, or of a folder of such.

        Raises:
            InputError: there is no index, it is not one of prepared clips, or the preparation is not finished.
        """
        folder = Path(folder)
        rows = read_rows(folder)
        try:
            usable = [PreparedClip(clip_info(row), folder) for row in rows if not row["rejected"]]
            rejected = [(row["key"], row["rejected"]) for row in rows if row["rejected"]]
        except (KeyError, TypeError) as error:
            raise InputError(f"the index in {folder} is not one of prepared clips: {error!r}") from error
        return cls(folder, usable, rejected)

    def split(self, name: str, most_per_speaker: int | None = None, heard: bool = False) -> list[PreparedClip]:
        """The clips of one split, at most so many of each speaker, evenly spread over the index.

        Args:
            heard: leave out those without sound that can be used.

        Raises:
            InputError: there is none.
        """
        by_speaker: dict[tuple[str, str], list[PreparedClip]] = {}
        for clip in self.clips:
            if clip.info.split == name and (clip.info.heard or not heard):
                by_speaker.setdefault((clip.info.corpus, clip.info.speaker), []).append(clip)
        if not by_speaker:
            splits = sorted({clip.info.split for clip in self.clips if clip.info.heard or not heard})
            kind = "clip with sound" if heard else "usable clip"
            raise InputError(f"{self.folder} has no {kind} of split {name!r}; it has such clips of {splits}")
        chosen = []
        for clips in by_speaker.values():
            count = min(len(clips), most_per_speaker or len(clips))
            chosen += [clips[index * len(clips) // count] for index in range(count)]
        return chosen


class SpeakerSampler:
    """Draws clips so that every speaker comes up equally often, however many clips there are of each.

    Raises:
        InputError: no clip is long enough.
    """

    def __init__(self, clips: Sequence[PreparedClip], shortest: int) -> None:
        self._by_speaker: dict[tuple[str, str], list[PreparedClip]] = {}
        for clip in clips:
            if clip.info.frames >= shortest:
                self._by_speaker.setdefault((clip.info.corpus, clip.info.speaker), []).append(clip)
        if not self._by_speaker:
            longest = max((clip.info.frames for clip in clips), default=0)
            raise InputError(f"no clip has {shortest} frames; the longest has {longest}")
        self._speakers = sorted(self._by_speaker)

    def draw(self, random: np.random.Generator) -> PreparedClip:
        """One clip of a speaker drawn evenly."""
        clips = self._by_speaker[self._speakers[random.integers(len(self._speakers))]]
        return clips[random.integers(len(clips))]


def require_pyarrow() -> None:
    """Raises InputError where pyarrow, which reads and writes the index, is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(
            'prepared clips need pyarrow, which is not installed; install it with: pip install ".[train]"'
        ) from error


def index_folders(folder: Path) -> list[Path]:
    """``folder`` itself where it holds an index; otherwise those of its sub-folders that do, by name.

    Raises:
        InputError: one of them was begun and not finished.
    """
    candidates = [folder] if _is_begun(folder) or not folder.is_dir() else sorted(folder.iterdir())
    begun = [candidate for candidate in candidates if _is_begun(candidate)]
    for candidate in begun:
        if not _has_index(candidate):
            raise InputError(
                f"{candidate} is not finished: it holds clips and no {INDEX_NAME}; finish it with the command that "
                "it was begun with, or move it elsewhere"
            )
    return begun


def _is_begun(folder: Path) -> bool:
    return _has_index(folder) or any((folder / name).is_dir() for name in (FINDINGS_NAME, SHARDS_NAME))


def _has_index(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (INDEX_NAME, JSON_INDEX_NAME))


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of the index of a prepared folder, of packed clips, or of several such folders in one, by key.

    Raises:
        InputError: there is none, it cannot be read, a folder is not finished, pyarrow is needed and not installed,
            or two of the folders hold clips of the same key.
    """
    folders = index_folders(folder)
    if not folders:
        raise InputError(
            f"{folder} is not a folder of prepared clips: it has no {INDEX_NAME}; "
            f"make one with: atldiff prepare clips {folder} PREPARED"
        )
    if folders == [folder]:
        return sorted(_rows_of(folder), key=lambda row: row["key"])
    rows: dict[str, dict[str, Any]] = {}
    for part in folders:
        for row in _rows_of(part):
            if row["key"] in rows:
                raise InputError(
                    f"{part} has the clip {row['key']} a second time; expected each in one folder of {folder}"
                )
            rows[row["key"]] = row | {"shard": str((part / SHARDS_NAME / row["shard"]).resolve())}
    return [rows[key] for key in sorted(rows)]


def _rows_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / JSON_INDEX_NAME
    if not path.is_file():
        return read_index(folder).to_pylist()
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected the index of packed clips") from error


def read_index(folder: Path) -> Any:
    """The index of a prepared folder as a ``pyarrow.Table``.

    Raises:
        InputError: there is none, it cannot be read, or pyarrow is not installed.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        raise InputError(f"no {INDEX_NAME} in {folder}; expected a folder that `atldiff prepare` wrote")
    require_pyarrow()
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        return read_table(path)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected a Parquet index") from error


def clip_info(row: dict[str, Any]) -> ClipInfo:
    """What a row of the index, of a usable clip, says."""
    return ClipInfo(
        key=row["key"],
        corpus=row["corpus"],
        speaker=row["speaker"],
        emotion=row["emotion"],
        split=row["split"],
        shard=row["shard"],
        frames=row["frames"],
        fps=row["fps"],
        size=row["size"],
        members={name: (row[f"{name}_offset"], row[f"{name}_size"]) for name in MEMBERS},
        heard=not row.get("unheard"),
    )
