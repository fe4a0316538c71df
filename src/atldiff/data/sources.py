"""The clips of a source tree: MEAD, CREMA-D and GRID as they are distributed, or any folder of talking videos.

:mod:`atldiff.data.layouts` says what each kind of tree looks like, :mod:`atldiff.data.splits` who is in which split.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

from atldiff.data.layouts import (
    MANIFEST_NAME,
    VIEWS,
    crema_d_clips,
    folder_clips,
    grid_clips,
    list_files,
    mead_clips,
)
from atldiff.data.media_source import MediaSource, SourceClip
from atldiff.data.splits import SPLITS, Speaker, assign_splits
from atldiff.errors import InputError

__all__ = ["KINDS", "VIEWS", "MediaSource", "SourceClip", "list_clips"]

_EXPECTED = {
    "mead": "M003/video/front/angry/level_1/001.mp4 with M003/audio/angry/level_1/001.m4a, or the same in tar files",
    "crema-d": "VideoFlash/1001_DFA_ANG_XX.flv with AudioWAV/1001_DFA_ANG_XX.wav",
    "grid": "s1/bbaf2n.mpg, s1/video/bbaf2n.mpg or s1/video/mpg_6000/bbaf2n.mpg",
    "clips": f"videos, each speaker's in a sub-folder, or a {MANIFEST_NAME} that lists them",
}
KINDS = tuple(_EXPECTED)

_GOLDEN_RATIO = (5**0.5 - 1) / 2
_LFS_POINTER = b"version https://git-lfs"
_LFS_POINTER_BYTES = 1024

_log = logging.getLogger("atldiff")


def list_clips(kind: str, source: Path, *, view: str = "front", limit: int | None = None) -> list[SourceClip]:
    """The clips of a tree, by key; nothing is opened but tar files' headers and ``clips.csv``.

    The same tree gives the same list on every machine. A speaker that a ``clips.csv`` puts in two splits is named in
    a warning, and so are videos that do not fit the layout.

    Args:
        kind: one of :data:`KINDS`.
        source: the tree's folder.
        view: MEAD's camera, one of :data:`VIEWS`; the other kinds have one view.
        limit: at most so many clips, taken turn by turn from the speakers and these turn by turn from the splits;
            of one speaker they are spread evenly over its clips. A higher limit adds clips to those of a lower one.

    Raises:
        InputError: the tree is not there, cannot be read, has no clip of that kind, or a mistake in its
            ``clips.csv``; an unknown kind or view; a limit below 1.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind of data {kind!r}; expected one of {', '.join(KINDS)}")
    if view not in VIEWS or (view != "front" and kind != "mead"):
        raise InputError(f"view is {view!r} for {kind}; expected front, or for mead one of {', '.join(VIEWS)}")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; expected at least 1 clip")
    try:
        if not source.is_dir():
            raise InputError(f"{source} is {'a file' if source.exists() else 'not there'}; expected a folder")
        clips = _find(kind, source, view)
        if not clips:
            raise InputError(f"no clips in {source}; expected {_EXPECTED[kind]}; it has {_summary(source)}")
        clips = _with_splits(_with_unique_keys(clips, source))
        if limit is not None:
            clips = _turn_by_turn(clips, limit)
        _refuse_lfs_pointers(clips)
    except OSError as error:
        raise InputError(f"{error.filename or source} cannot be read ({error.strerror})") from error
    return sorted(clips, key=lambda clip: clip.key)


def _find(kind: str, source: Path, view: str) -> list[SourceClip]:
    if kind == "mead":
        return mead_clips(source, view)
    return {"crema-d": crema_d_clips, "grid": grid_clips, "clips": folder_clips}[kind](source)


def _summary(source: Path) -> str:
    files = list_files(source)
    return f"{len(files)} files, for example {files[0]}" if files else "no files"


def _with_unique_keys(clips: Sequence[SourceClip], source: Path) -> list[SourceClip]:
    """Of clips whose keys differ in nothing but case, every key gets a hash of where its picture lies."""
    taken = Counter(clip.key.casefold() for clip in clips)
    return [
        replace(clip, key=f"{clip.key}{_distinction(clip, source)}") if taken[clip.key.casefold()] > 1 else clip
        for clip in clips
    ]


def _distinction(clip: SourceClip, source: Path) -> str:
    return f"-{hashlib.sha256(clip.picture.inside(source).encode()).hexdigest()[:8]}"


def namesakes(clips: Sequence[SourceClip], source: Path) -> dict[str, list[SourceClip]]:
    """The clips of :func:`list_clips` that would have the same key but for a hash, by that key in lower case."""
    same: dict[str, list[SourceClip]] = defaultdict(list)
    for clip in clips:
        if clip.key.endswith(ending := _distinction(clip, source)):
            same[clip.key.removesuffix(ending).casefold()].append(clip)
    return same


def _with_splits(clips: list[SourceClip]) -> list[SourceClip]:
    stated: dict[Speaker, set[str]] = defaultdict(set)
    for clip in clips:
        stated[clip.corpus, clip.speaker].add(clip.split)
    if clips[0].split:
        torn = sorted("/".join(speaker) for speaker, splits in stated.items() if len(splits) > 1)
        if torn:
            _log.warning("splits are not speaker-disjoint: %s are in more than one", ", ".join(torn))
        return clips
    splits = assign_splits(stated)
    if len(splits) == 1:
        _log.warning("one speaker, %s: all clips are in train, none is left to validate with", clips[0].speaker)
    return [replace(clip, split=splits[clip.corpus, clip.speaker]) for clip in clips]


def _turn_by_turn(clips: list[SourceClip], limit: int) -> list[SourceClip]:
    groups: dict[str, dict[Speaker, list[SourceClip]]] = {split: defaultdict(list) for split in SPLITS}
    for clip in sorted(clips, key=lambda clip: clip.key):
        groups[clip.split][clip.corpus, clip.speaker].append(clip)
    by_split = [[speakers[name] for name in sorted(speakers)] for speakers in groups.values()]
    turns = [group for group in chain.from_iterable(zip_longest(*by_split)) if group]
    counts = [0] * len(turns)
    left = min(limit, len(clips))
    while left:
        for index, group in enumerate(turns):
            if left and counts[index] < len(group):
                counts[index] += 1
                left -= 1
    return [clip for group, count in zip(turns, counts, strict=True) for clip in _spread(group)[:count]]


def _spread(clips: list[SourceClip]) -> list[SourceClip]:
    """The clips in an order of which every beginning is spread evenly over them: multiples of the golden ratio."""
    return [clips[index] for index in sorted(range(len(clips)), key=lambda index: index * _GOLDEN_RATIO % 1)]


def _refuse_lfs_pointers(clips: list[SourceClip]) -> None:
    """A clone without Git LFS (CREMA-D is distributed so) holds small text files in place of the media."""
    for path in sorted({media.path for clip in clips for media in (clip.picture, clip.sound)}):
        if path.is_file() and path.stat().st_size < _LFS_POINTER_BYTES and path.read_bytes().startswith(_LFS_POINTER):
            raise InputError(
                f"{path} is a Git LFS pointer; expected the media itself: run `git lfs pull` in the clone"
            )
