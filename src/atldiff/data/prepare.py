"""A source tree → a folder of prepared clips. First every clip by itself, side by side, then all together.

The first phase leaves its findings of each clip under ``.parts``, so that a killed run goes on where it was; the
second settles the lag of each clip and writes shards, index and card, always the same bytes for the same clips.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atldiff.data.card import CorpusLag, data_card, hours, reason_counts, speakers
from atldiff.data.encoding import encode_landmarks, encode_sound
from atldiff.data.findings import (
    Findings,
    WantedClip,
    as_waveform,
    is_made,
    kept_findings,
    read_findings,
    read_sound,
    stated_row,
)
from atldiff.data.index import open_index, write_index
from atldiff.data.prepared import INDEX_NAME, MEMBERS, SHARDS_NAME, require_pyarrow
from atldiff.data.quality import UNCLEAR_LAG, UNREADABLE, UNRELATED_LIPS, sound_verdict
from atldiff.data.shards import write_shards
from atldiff.data.sources import list_clips, namesakes
from atldiff.data.sync import LAGS, LagEstimate, estimate_lag, lips_unrelated, sync_correlation
from atldiff.data.workers import make_all_findings
from atldiff.data.workplace import CARD_NAME, check_settings, remove_leftovers, workplace
from atldiff.errors import InputError, OutputError
from atldiff.face.crop import PICTURE_SIZE
from atldiff.media.files import frame_rate
from atldiff.processes.workers import processors
from atldiff.results import Progress
from atldiff.speech import SAMPLE_RATE
from atldiff.storage.files import write_atomically

DEFAULT_FPS = 25.0
PUBLISHED_KINDS = ("mead", "crema-d", "grid")
"""Trees whose sound was recorded with the picture."""

SIZES = range(32, 1025, 16)

_METHOD = 2
"""Of how lags are found; folders that were prepared by another one are gone through again."""


@dataclass(frozen=True)
class PrepareReport:
    """What a prepared folder holds.

    Attributes:
        processed: clips that this run worked on; None where the folder was complete already and nothing was done.
        clips: all of them, usable or not.
        rejected: how many for each kind of reason.
        unheard: how many of the usable ones have no sound that can be used, for each kind of reason.
        hours, speakers: of the usable ones.
        lone_speakers: how many of the speakers are single files, of which nothing tells who speaks in them.
        lags: by corpus.
    """

    folder: Path
    processed: int | None
    clips: int
    usable: int
    rejected: dict[str, int]
    unheard: dict[str, int]
    hours: float
    speakers: int
    lone_speakers: int
    lags: dict[str, CorpusLag]


def prepare(
    kind: str,
    source: str | Path,
    destination: str | Path,
    *,
    workers: int | None = None,
    size: int = PICTURE_SIZE,
    fps: float = DEFAULT_FPS,
    limit: int | None = None,
    view: str = "front",
    progress: Progress | None = None,
) -> PrepareReport:
    """Prepare the clips of a tree as ``docs/data.md`` describes; run again, it goes on, and adds what is new.

    Args:
        kind: of tree, one of :data:`atldiff.data.sources.KINDS`.
        destination: a new or empty folder, or one that was begun with the same kind, size, fps and view.
        workers: processes; one for each processor if None. The result does not depend on it.
        size: side of the crops in pixels, a multiple of 16.
        fps: frames per second of the crops.
        limit: at most so many clips.
        view: MEAD's camera.
        progress: called with (clips done, all clips).

    Raises:
        InputError: there are no such clips, ``destination`` lies in ``source``, other settings than before, or clips
            that ``destination`` holds are no longer listed; a worker process died.
        OutputError: something cannot be written; what is done is kept.
    """
    require_pyarrow()
    source, destination = Path(source), Path(destination)
    workers = _checked_workers(workers)
    if size not in SIZES:
        raise InputError(f"size is {size}; expected a multiple of 16 from {SIZES.start} to {SIZES.stop - 1}")
    rate = frame_rate(fps)
    if destination.resolve().is_relative_to(source.resolve()):
        raise InputError(
            f"{destination} is the source folder {source} or lies in it; expected a folder outside of it"
        )
    settings = {"kind": kind, "size": size, "fps": float(rate), "view": view}
    clips = list_clips(kind, source, view=view, limit=limit)
    rows, record = open_index(destination) if (destination / INDEX_NAME).is_file() else ([], None)
    check_settings(destination, settings, record)
    lost = _lost(rows, destination)
    known = {(row["key"], row["source"]): row for row in rows if row["key"] not in lost and _is_reusable(row)}
    wanted_clips = [
        WantedClip(clip, source, destination, size, rate, known.get((clip.key, clip.picture.inside(source))))
        for clip in clips
    ]
    _refuse_shrinking(wanted_clips, {row["key"] for row in rows} | kept_findings(destination), destination)
    listing = _digest(wanted_clips)
    if record is not None and record["listing"] == listing and not lost and _is_complete(destination):
        remove_leftovers(destination)
        return _report(wanted_clips, None, rows, _lags(record))
    try:
        with workplace(destination, settings):
            processed = _make_missing(wanted_clips, workers, progress)
            rows, lags = _write(wanted_clips, {"settings": settings, "listing": listing})
    except OSError as error:
        raise OutputError(
            f"cannot write to {destination}: {error.strerror or error}; what is made is kept"
        ) from error
    return _report(wanted_clips, processed, rows, lags)


def _checked_workers(workers: int | None) -> int:
    if workers is None:
        return processors()
    if workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    return workers


def _is_reusable(row: dict[str, Any]) -> bool:
    """Whether what the index says of the clip may be kept when others join it."""
    return not row["rejected"].startswith((UNREADABLE, *_OLD_REJECTIONS))


_OLD_REJECTIONS = ("silent", "lips unrelated")
"""Reasons for which whole clips were rejected by earlier versions; now it is their sound alone that is not used."""


def _lost(rows: Sequence[dict[str, Any]], destination: Path) -> set[str]:
    """The keys of usable clips whose shard is not there or ends before them."""
    sizes = {path.name: path.stat().st_size for path in (destination / SHARDS_NAME).glob("*")}
    return {
        row["key"]
        for row in rows
        if not row["rejected"]
        and sizes.get(row["shard"], 0) < max(row[f"{member}_offset"] + row[f"{member}_size"] for member in MEMBERS)
    }


def _refuse_shrinking(wanted_clips: Sequence[WantedClip], held: set[str], destination: Path) -> None:
    gone = sorted(held - {wanted.clip.key for wanted in wanted_clips})
    same = namesakes([wanted.clip for wanted in wanted_clips], wanted_clips[0].source) if gone else {}
    for key in gone:
        if alike := same.get(key.casefold()):
            pictures = " and ".join(str(clip.picture) for clip in alike)
            raise InputError(
                f"{destination} holds the clip {key}, and now that would be the name of {pictures}; expected names "
                "that differ in more than suffix, case and special characters"
            )
    if gone:
        raise InputError(
            f"{destination} holds {len(gone)} clips that are not among the {len(wanted_clips)} to prepare, "
            f"for example {gone[0]}; expected all of them and perhaps more, or another folder"
        )


def _digest(wanted_clips: Sequence[WantedClip]) -> str:
    """Of everything that is stated about the clips: equal where there is nothing new to prepare."""
    stated = [
        (stated_row(wanted), wanted.clip.sound.inside(wanted.source), wanted.clip.audio_lag_s)
        for wanted in wanted_clips
    ]
    return hashlib.sha256(json.dumps([_METHOD, stated]).encode()).hexdigest()


def _is_complete(destination: Path) -> bool:
    return not kept_findings(destination) and (destination / CARD_NAME).is_file()


def _make_missing(wanted_clips: Sequence[WantedClip], workers: int, progress: Progress | None) -> int:
    missing = [wanted for wanted in wanted_clips if not is_made(wanted)]
    before = len(wanted_clips) - len(missing)
    for number, _ in enumerate(make_all_findings(missing, workers), start=1):
        if progress is not None:
            progress(before + number, len(wanted_clips))
    return sum(wanted.known is None for wanted in missing)


def _write(
    wanted_clips: Sequence[WantedClip], record: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, CorpusLag]]:
    """Everything that is made of all findings together; the index comes last but for the card."""
    destination = wanted_clips[0].destination
    heads = [read_findings(wanted.findings_path, row_only=True) for wanted in wanted_clips]
    lags = _corpus_lags(wanted_clips, heads)
    is_corpus = record["settings"]["kind"] in PUBLISHED_KINDS
    judged = [
        (wanted, _judged(wanted, head, lags, is_corpus)) for wanted, head in zip(wanted_clips, heads, strict=True)
    ]
    usable = [(wanted, row) for wanted, row in judged if not row["rejected"]]
    (destination / INDEX_NAME).unlink(missing_ok=True)
    located = write_shards(destination, _members(sorted(usable, key=lambda pair: (pair[1]["split"], pair[1]["key"]))))
    rows = sorted([*located, *(row for _, row in judged if row["rejected"])], key=lambda row: row["key"])
    kept = {corpus: dataclasses.asdict(lag) for corpus, lag in lags.items()}
    write_index(destination, rows, record | {"lags": kept})
    settings = record["settings"]
    card = data_card(
        settings["kind"], settings["size"], settings["fps"], rows, lags, _lone_speakers(wanted_clips, rows)
    )
    write_atomically(destination / CARD_NAME, card.encode())
    return rows, lags


def _lags(record: dict[str, Any]) -> dict[str, CorpusLag]:
    return {
        corpus: CorpusLag(lag["stated_s"], lag["estimate"] and LagEstimate(**lag["estimate"]), lag["clips"])
        for corpus, lag in record["lags"].items()
    }


def _corpus_lags(wanted_clips: Sequence[WantedClip], heads: Sequence[Findings]) -> dict[str, CorpusLag]:
    lags = {}
    for corpus in sorted({wanted.clip.corpus for wanted in wanted_clips}):
        members = [
            (wanted, head) for wanted, head in zip(wanted_clips, heads, strict=True) if wanted.clip.corpus == corpus
        ]
        stated = [wanted.clip.audio_lag_s for wanted, _ in members if wanted.clip.audio_lag_s is not None]
        traces = [head.lag for _, head in members if head.lag is not None]
        estimate = estimate_lag(traces) if traces else None
        lags[corpus] = CorpusLag(float(np.median(stated)) if stated else None, estimate, len(traces))
    return lags


def _judged(wanted: WantedClip, head: Findings, lags: dict[str, CorpusLag], is_corpus: bool) -> dict[str, Any]:
    """The clip's row but for its place in the shards: its lag, and whether its lips go with its sound.

    Where the lag is not clear, a published corpus is taken to be in time, and any other clip is not heard.
    """
    row = stated_row(wanted) | {name: head.row[name] for name in ("rejected", "unheard", "frames", "duration_s")}
    if head.lag is None or head.sync is None:
        return row
    lag_s = lags[wanted.clip.corpus].of_clip(wanted.clip.audio_lag_s, head.lag)
    if lag_s is None and is_corpus:
        lag_s = 0.0
    if lag_s is None:
        found = estimate_lag([head.lag])
        return row | {"unheard": f"{UNCLEAR_LAG}: {found.low_s:+.2f} to {found.high_s:+.2f} s, r = {found.r:.2f}"}
    row |= {"audio_lag_s": lag_s}
    if silence := sound_verdict(as_waveform(_aligned(read_sound(wanted.findings_path), wanted, row))):
        return row | {"unheard": silence}
    if not LAGS[0] <= lag_s <= LAGS[-1]:
        return row
    row |= {"sync_r": round(sync_correlation(head.sync, lag_s), 4)}
    if lips_unrelated(head.sync, lag_s):
        row |= {"unheard": f"{UNRELATED_LIPS}: r = {row['sync_r']:.2f}"}
    return row


def _members(
    clips: Sequence[tuple[WantedClip, dict[str, Any]]],
) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
    for wanted, row in clips:
        found = read_findings(wanted.findings_path)
        yield (
            row,
            {
                "landmarks": encode_landmarks(found.landmarks),
                "sound": b"" if row["unheard"] else encode_sound(as_waveform(_aligned(found.sound, wanted, row))),
                "video": found.video,
            },
        )


def _aligned(sound: np.ndarray, wanted: WantedClip, row: dict[str, Any]) -> np.ndarray:
    """(n,) → (samples,) as long as the picture: the lag is dropped from the start, or put before it as silence."""
    shift, samples = round(row["audio_lag_s"] * SAMPLE_RATE), round(row["frames"] * SAMPLE_RATE / wanted.fps)
    whole = np.zeros(samples, sound.dtype)
    piece = sound[max(0, shift) :][: max(0, samples - max(0, -shift))]
    whole[max(0, -shift) :][: len(piece)] = piece
    return whole


def _lone_speakers(wanted_clips: Sequence[WantedClip], rows: Sequence[dict[str, Any]]) -> int:
    lone = {wanted.clip.key for wanted in wanted_clips if wanted.clip.lone}
    return sum(row["key"] in lone and not row["rejected"] for row in rows)


def _report(
    wanted_clips: Sequence[WantedClip],
    processed: int | None,
    rows: Sequence[dict[str, Any]],
    lags: dict[str, CorpusLag],
) -> PrepareReport:
    usable = [row for row in rows if not row["rejected"]]
    return PrepareReport(
        folder=wanted_clips[0].destination,
        processed=processed,
        clips=len(rows),
        usable=len(usable),
        rejected=reason_counts(rows, "rejected"),
        unheard=reason_counts(usable, "unheard"),
        hours=hours(usable),
        speakers=speakers(usable),
        lone_speakers=_lone_speakers(wanted_clips, rows),
        lags=lags,
    )
