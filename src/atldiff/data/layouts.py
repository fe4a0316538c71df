"""The four kinds of source tree and the clips in them, found by the names of files and folders alone.

Nothing here opens a picture or a sound. Every function takes the tree's folder and gives the clips in no particular
order; their split is empty where the tree does not state one, and two of them may have the same key.
"""

import csv
import logging
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from atldiff.data.media_source import MediaSource, SourceClip, tar_members
from atldiff.data.splits import SPLITS
from atldiff.errors import InputError
from atldiff.options import EMOTIONS

MANIFEST_NAME = "clips.csv"
MANIFEST_COLUMNS = ("path", "corpus", "speaker", "emotion", "split", "audio_lag_s")
LARGEST_LAG_S = 1.0
VIEWS = ("front", "left_30", "left_60", "right_30", "right_60", "top", "down")
"""MEAD's cameras."""

_VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"}
)
_SOUND_SUFFIXES = frozenset({".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"})
_log = logging.getLogger("atldiff")


def list_files(folder: Path) -> list[PurePosixPath]:
    """Every file under ``folder`` as a path inside it, sorted; links are followed, hidden files and folders are not.

    Raises:
        OSError: a folder cannot be read.
    """
    files: list[PurePosixPath] = []
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        inside = PurePosixPath(Path(root).relative_to(folder).as_posix())
        files += [inside / name for name in names if not name.startswith(".")]
    return sorted(files)


def _raise(error: OSError) -> None:
    raise error


def safe_key(*parts: str) -> str:
    """``corpus/speaker/name`` with ``_`` for every character that is not an ASCII letter, a digit, ``_`` or ``-``."""
    return "/".join(re.sub(r"[^A-Za-z0-9_-]", "_", part) or "_" for part in parts)


def _is_video(path: PurePosixPath) -> bool:
    return path.suffix.lower() in _VIDEO_SUFFIXES


def _is_sound(path: PurePosixPath) -> bool:
    return path.suffix.lower() in _SOUND_SUFFIXES


def _warn_of(paths: list[PurePosixPath], what: str) -> None:
    if paths:
        _log.warning("%d %s, for example %s", len(paths), what, paths[0])


_MEAD_TAKE = rf"(?P<emotion>{'|'.join(EMOTIONS)})/(?P<level>level_\d)/(?P<name>[^/]+)"
_MEAD_VIDEO = re.compile(rf"(?:.*/)?(?P<speaker>[^/]+)/video/(?P<view>{'|'.join(VIEWS)})/{_MEAD_TAKE}")
_MEAD_SOUND = re.compile(rf"(?:.*/)?(?P<speaker>[^/]+)/audio/{_MEAD_TAKE}")
_MEAD_TAR = re.compile(r"(?:(?P<speaker>.+)_)?(?P<kind>video|audio)\.tar")


def mead_clips(source: Path, view: str) -> list[SourceClip]:
    """MEAD (Wang et al. 2020): ``M003/video/front/angry/level_1/001.mp4``, ``M003/audio/angry/level_1/001.m4a``.

    ``source`` holds the actors' folders, at any depth, or is one actor's. Instead of the folders ``video`` and
    ``audio`` there may be ``video.tar`` and ``audio.tar``, or ``M003_video.tar`` and ``M003_audio.tar``; whatever
    folders lead to the view (the emotion, for sound) in a tar file do not matter. Where a take is both unpacked and
    in a tar file, the unpacked one is used. A video without a sound file keeps the sound in the video itself; if
    there is none, preparing says so and rejects the clip.
    """
    videos: dict[tuple[str, ...], MediaSource] = {}
    sounds: dict[tuple[str, ...], MediaSource] = {}
    unknown: list[PurePosixPath] = []
    views = set()
    for path, media in _mead_files(source):
        stem = str(path.with_suffix(""))
        if _is_video(path) and (match := _MEAD_VIDEO.fullmatch(stem)):
            views.add(match["view"])
            if match["view"] == view:
                videos.setdefault(match.group("speaker", "emotion", "level", "name"), media)
        elif _is_sound(path) and (match := _MEAD_SOUND.fullmatch(stem)):
            sounds.setdefault(match.group("speaker", "emotion", "level", "name"), media)
        elif _is_video(path):
            unknown.append(path)
    _warn_of(unknown, "videos are not where MEAD has its videos and are left out")
    if views and not videos:
        raise InputError(f"no clips of the view {view!r} in {source}; it has the views {sorted(views)}")
    silent = [PurePosixPath(str(media)) for take, media in sorted(videos.items()) if take not in sounds]
    _warn_of(silent, "videos have no file in audio/; the sound in the video itself is used")
    return [
        SourceClip(
            key=safe_key("MEAD", take[0], "-".join((view, *take[1:]))),
            corpus="MEAD",
            speaker=take[0],
            emotion=take[1],
            level=take[2],
            split="",
            picture=video,
            sound=sounds.get(take, video),
            audio_lag_s=None,
        )
        for take, video in videos.items()
    ]


def _mead_files(source: Path) -> Iterator[tuple[PurePosixPath, MediaSource]]:
    """Plain files, then members of tar files, with the path that they have (would have, unpacked)."""
    root = PurePosixPath(source.resolve().name)
    tars = []
    for file in list_files(source):
        if _MEAD_TAR.fullmatch(file.name):
            tars.append(file)
        else:
            yield root / file, MediaSource(source / file)
    for file in tars:
        match = _MEAD_TAR.fullmatch(file.name)
        assert match
        folder = (root / file).parent / (match["speaker"] or "") / match["kind"]
        depth = 4 if match["kind"] == "video" else 3
        for member in tar_members(source / file):
            path = PurePosixPath(member)
            if not path.name.startswith("."):
                yield folder.joinpath(*path.parts[-depth:]), MediaSource(source / file, member)


_CREMA_D_NAME = re.compile(r"(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<level>XX?|LO|MD|HI)")
_CREMA_D_EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgusted",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
_CREMA_D_SENTENCES = {
    "DFA": "don't forget a jacket",
    "IEO": "it's eleven o'clock",
    "IOM": "I'm on my way to the meeting",
    "ITH": "I think I have a doctor's appointment",
    "ITS": "I think I've seen this before",
    "IWL": "I would like a new alarm clock",
    "IWW": "I wonder what this is about",
    "MTI": "maybe tomorrow it will be cold",
    "TAI": "the airplane is almost full",
    "TIE": "that is exactly what happened",
    "TSI": "the surface is slick",
    "WSI": "we'll stop in a couple of minutes",
}


def crema_d_clips(source: Path) -> list[SourceClip]:
    """CREMA-D (Cao et al. 2014): ``VideoFlash/1001_DFA_ANG_XX.flv`` with ``AudioWAV/….wav`` or ``AudioMP3/….mp3``.

    A name is actor, sentence, emotion and level; the folders may be named otherwise. A clip takes the first sound
    there is: WAV, MP3, the video's own.
    """
    videos: dict[str, PurePosixPath] = {}
    sounds: dict[str, PurePosixPath] = {}
    unknown = []
    files = list_files(source)
    for file in sorted(files, key=lambda file: (file.suffix.lower() not in (".flv", ".wav"), file)):
        match = _CREMA_D_NAME.fullmatch(file.stem)
        if match and match["emotion"] in _CREMA_D_EMOTIONS:
            if _is_video(file):
                videos.setdefault(file.stem, file)
            elif _is_sound(file):
                sounds.setdefault(file.stem, file)
        elif _is_video(file):
            unknown.append(file)
    _warn_of(unknown, "videos are not named as in CREMA-D and are left out")
    clips = []
    for name, video in videos.items():
        speaker, sentence, emotion, level = name.split("_")
        clips.append(
            SourceClip(
                key=safe_key("CREMA-D", speaker, name),
                corpus="CREMA-D",
                speaker=speaker,
                emotion=_CREMA_D_EMOTIONS[emotion],
                level=level,
                split="",
                picture=MediaSource(source / video),
                sound=MediaSource(source / sounds.get(name, video)),
                audio_lag_s=None,
                text=_CREMA_D_SENTENCES.get(sentence, ""),
            )
        )
    return clips


_GRID_SPEAKER = re.compile(r"(?P<speaker>s\d{1,2})(?:[._].*)?")
_GRID_SENTENCE = re.compile(r"(?:.*_)?(?P<code>[bpls][bgrw][abiw][a-z][1-9z][anps])")
_GRID_WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {},
    {"z": "zero", "1": "one", "2": "two", "3": "three", "4": "four"}
    | {"5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine"},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)


def grid_clips(source: Path) -> list[SourceClip]:
    """GRID (Cooke et al. 2006): ``s1/bbaf2n.mpg``, ``s1/video/bbaf2n.mpg``, ``s1/video/mpg_6000/bbaf2n.mpg``.

    The speaker is the innermost folder named ``s1`` … ``s34`` (or so beginning: ``s1.mpg_6000.part1``); ``source``
    may be such a folder itself. Of a sentence that is there more than once the high-quality video
    (``mpg_6000``) is used. The sound is the raw recording where there is one (a WAV file in a folder that names
    50 kHz: ``s1_50kHz``), else the video's own. The 25 kHz recordings are cut to the spoken part, so they do not run
    with the picture and are never used. The alignments (``align/bbaf2n.align``) are not read: their words are the
    ones that the file name spells.
    """
    root = source.resolve().name
    videos: dict[tuple[str, str], PurePosixPath] = {}
    sounds: dict[tuple[str, str], PurePosixPath] = {}
    unknown, cut = [], []
    files = list_files(source)
    for file in sorted(files, key=lambda file: ("mpg_6000" not in str(file), file.suffix.lower() != ".mpg", file)):
        take = _grid_take(root, file)
        if _is_video(file):
            if take:
                videos.setdefault(take, file)
            else:
                unknown.append(file)
        elif take and file.suffix.lower() == ".wav":
            if "50k" in str(file).lower():
                sounds.setdefault(take, file)
            else:
                cut.append(file)
    _warn_of(unknown, "videos lie in no folder of a speaker (s1 … s34) and are left out")
    _warn_of(cut, "recordings are cut to the spoken part and are not used")
    return [
        SourceClip(
            key=safe_key("GRID", *take),
            corpus="GRID",
            speaker=take[0],
            emotion="",
            level="",
            split="",
            picture=MediaSource(source / video),
            sound=MediaSource(source / sounds.get(take, video)),
            audio_lag_s=None,
            text=_grid_text(take[1]),
        )
        for take, video in videos.items()
    ]


def _grid_take(root: str, file: PurePosixPath) -> tuple[str, str] | None:
    """Speaker and sentence code (or file name without suffix where it is none)."""
    folders = (root, *file.parts[:-1])
    speaker = next(
        (match["speaker"] for folder in reversed(folders) if (match := _GRID_SPEAKER.fullmatch(folder))), None
    )
    sentence = _GRID_SENTENCE.fullmatch(file.stem)
    return (speaker, sentence["code"] if sentence else file.stem) if speaker else None


def _grid_text(name: str) -> str:
    if not _GRID_SENTENCE.fullmatch(name):
        return ""
    return " ".join(words.get(letter, letter) for words, letter in zip(_GRID_WORDS, name, strict=True))


def folder_clips(source: Path) -> list[SourceClip]:
    """Any folder of videos with sound, at any depth, or the clips that its ``clips.csv`` lists.

    Without ``clips.csv`` the corpus is the folder's name and the speaker the first sub-folder. Nothing tells who
    speaks in files that lie directly in the folder, so each is taken for another speaker (a warning, the report and
    the card say so): if one person is in several of them, sort them into sub-folders or write a ``clips.csv``, or
    else that person may be in two splits.

    Columns of ``clips.csv``: ``path`` inside the folder; all others may be missing or empty. ``corpus`` and
    ``speaker``: as without the file. ``emotion``: one of :data:`atldiff.options.EMOTIONS`. ``split``: ``train``,
    ``val`` or ``test``, in every row or in none, and taken as stated even if that puts a speaker in two splits.
    ``audio_lag_s``: how many seconds the sound trails the picture, at most 1 either way; estimated where it is empty.
    Other columns are left out with a warning. A listed file that does not exist is a clip all the same, so that
    preparing rejects it with the reason.

    Raises:
        InputError: ``clips.csv`` cannot be read, or a row has a mistake; the text gives the line.
    """
    manifest = source / MANIFEST_NAME
    if manifest.is_file():
        clips = _listed_clips(source, manifest)
    else:
        clips = [_folder_clip(source, file, {}) for file in list_files(source) if _is_video(file)]
    lone = [PurePosixPath(clip.picture.inside(source)) for clip in clips if clip.lone]
    if len(lone) > 1:
        _warn_of(lone, f"clips lie directly in {source} and are each taken for another speaker")
    return clips


def _listed_clips(source: Path, manifest: Path) -> list[SourceClip]:
    rows = _read_rows(manifest)
    lines: dict[PurePosixPath, int] = {}
    clips = []
    for line, row in rows:
        try:
            path = _listed_path(row)
            if path in lines:
                raise InputError(f"{str(path)!r} is listed in line {lines[path]} too; expected one row a clip")
            if bool(row["split"]) != bool(rows[0][1]["split"]):
                raise InputError(f"split is {row['split']!r}; expected a split in every row or in none")
            clips.append(_folder_clip(source, path, row))
        except InputError as error:
            raise InputError(f"{manifest}, line {line}: {error}") from error
        lines[path] = line
    return clips


def _read_rows(manifest: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and the known columns of every row; a column that is missing is empty."""
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or ())
            rows = [
                (reader.line_num, {name: (row.get(name) or "").strip() for name in MANIFEST_COLUMNS})
                for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{manifest} cannot be read ({error}); expected comma-separated values in UTF-8") from error
    if "path" not in columns:
        raise InputError(f"{manifest} lacks the column 'path'; it has {columns}")
    if not rows:
        raise InputError(f"{manifest} has a header and no rows; expected one row a clip")
    if unknown := [name for name in columns if name not in MANIFEST_COLUMNS]:
        known = ", ".join(MANIFEST_COLUMNS)
        _log.warning("%s: columns that are not used: %s; those that are: %s", manifest, ", ".join(unknown), known)
    return rows


def _listed_path(row: dict[str, str]) -> PurePosixPath:
    path = PurePosixPath(row["path"])
    if path.is_absolute() or ".." in path.parts or not path.name or "\0" in row["path"]:
        raise InputError(f"path is {row['path']!r}; expected a path inside the folder")
    return path


def _folder_clip(source: Path, path: PurePosixPath, row: dict[str, str]) -> SourceClip:
    corpus = row.get("corpus") or source.resolve().name
    speaker = row.get("speaker") or path.with_suffix("").parts[0]
    emotion, split, lag = row.get("emotion", ""), row.get("split", ""), row.get("audio_lag_s", "")
    if emotion and emotion not in EMOTIONS:
        raise InputError(f"emotion is {emotion!r}; expected nothing or one of {', '.join(EMOTIONS)}")
    if split and split not in SPLITS:
        raise InputError(f"split is {split!r}; expected nothing or one of {', '.join(SPLITS)}")
    media = MediaSource(source / path)
    return SourceClip(
        key=safe_key(corpus, speaker, _name_below(speaker, path)),
        corpus=corpus,
        speaker=speaker,
        emotion=emotion,
        level="",
        split=split,
        picture=media,
        sound=media,
        audio_lag_s=_seconds(lag) if lag else None,
        lone=not row.get("speaker") and len(path.parts) == 1,
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not abs(seconds) <= LARGEST_LAG_S:
        raise InputError(f"audio_lag_s is {text!r}; expected seconds from {-LARGEST_LAG_S:g} to {LARGEST_LAG_S:g}")
    return seconds


def _name_below(speaker: str, path: PurePosixPath) -> str:
    """The path without its suffix, from below the speaker's folder on where there is one, with ``-`` for ``/``."""
    parts = path.with_suffix("").parts
    start = parts.index(speaker) + 1 if speaker in parts[:-1] else 0
    return "-".join(parts[start:])
