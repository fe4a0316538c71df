"""The data card: ``README.md`` of a prepared folder, made from its index."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from atldiff.data.sync import LagEstimate, LagTrace, estimate_lag
from atldiff.options import EMOTIONS

_FEW_CLIPS = 5

LICENCES = {
    "mead": "MEAD (Wang et al. 2020) comes under the terms of its authors: "
    "<https://wywu.github.io/projects/MEAD/MEAD.html>.",
    "crema-d": "CREMA-D (Cao et al. 2014) comes under the Open Database License 1.0, its contents under the Database "
    "Contents License 1.0: <https://github.com/CheyneyComputerScience/CREMA-D>.",
    "grid": "GRID (Cooke et al. 2006) comes under CC BY 4.0: <https://doi.org/10.5281/zenodo.3625687>.",
    "clips": "The licence of these clips is that of their source; it is not known to the program that prepared them.",
}

_FORMAT = """\
`clips.parquet` has one row a clip, also for rejected ones (`rejected` says why). `shards/` holds tar files in
WebDataset's layout with four files for each usable clip, three where its sound cannot be used (`unheard` says why):

| file | content |
| --- | --- |
| `KEY.json` | the clip's row |
| `KEY.landmarks.npz` | `landmarks`, (frames, 68, 2) float32: x, y in crop pixels, iBUG order, first pixel 0 to 1 |
| `KEY.flac` | 16 kHz, mono, 16 bit; the first sample belongs to the first frame |
| `KEY.mp4` | H.264, {size}×{size}, {fps:g} frames a second; frame k is at k/{fps:g} s |

Every clip has one square, upright crop that stays put. Its landmarks are MediaPipe's, mapped to the 68 points."""


@dataclass(frozen=True)
class CorpusLag:
    """By how many seconds the sound of a corpus trails its picture.

    Attributes:
        stated_s: what the source states, the median where clips differ; None where it states nothing.
        estimate: from lips and sound of all clips that are heard; None without any.
        clips: how many these are.
    """

    stated_s: float | None
    estimate: LagEstimate | None
    clips: int

    def of_clip(self, stated_s: float | None, trace: LagTrace) -> float | None:
        """The lag of one of its clips in seconds; None where it is not clear.

        What is stated counts first. Then comes what five clips or more agree on, then the clip's own peak, then that
        of a few clips together.

        Args:
            stated_s: the clip's lag, if the source states it.
            trace: the clip's.
        """
        if stated_s is not None:
            return stated_s
        own, shared = estimate_lag([trace]), self.estimate
        estimates = (shared, own) if self.clips >= _FEW_CLIPS else (own, shared)
        return next((round(found.lag_s, 3) for found in estimates if found and found.is_clear), None)

    def __str__(self) -> str:
        if self.stated_s is not None:
            taken = f"{self.stated_s:+.3f} s as stated"
        elif self.clips >= _FEW_CLIPS and self.estimate and self.estimate.is_clear:
            taken = f"{self.estimate.lag_s:+.3f} s"
        else:
            taken = "clip by clip"
        if self.estimate is None:
            return f"{taken}; no clip to estimate it from"
        lag = self.estimate
        return f"{taken}; estimated {lag.lag_s:+.3f} s ({lag.low_s:+.3f} to {lag.high_s:+.3f}, r = {lag.r:.2f})"


def reason_counts(rows: Iterable[dict[str, Any]], column: str) -> dict[str, int]:
    """How many clips are ``rejected`` or ``unheard`` for each kind of reason, the commonest first."""
    kinds = Counter(row[column].split(":")[0] for row in rows if row[column])
    return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def data_card(
    kind: str, size: int, fps: float, rows: list[dict[str, Any]], lags: dict[str, CorpusLag], lone_speakers: int
) -> str:
    """The card in Markdown.

    Args:
        kind: of the source tree; picks the licence.
        rows: of the index.
        lags: by corpus.
        lone_speakers: usable clips that each count as a speaker because nothing tells who speaks in them.
    """
    usable = [row for row in rows if not row["rejected"]]
    sections = [
        f"# Prepared talking-face clips: {', '.join(sorted({row['corpus'] for row in rows}))}",
        f"{len(usable)} usable clips of {len(rows)}, {hours(usable):.2f} hours, {speakers(usable)} speakers. "
        "Written by `atldiff prepare`; no speaker is in two splits unless the source itself puts it there."
        + _lone(lone_speakers),
        "## Clips\n\n" + _counts(usable),
        "## Emotions\n\n" + _emotions(usable),
        "## Lag of the sound\n\n" + "\n".join(f"- {corpus}: {lag}" for corpus, lag in lags.items()) + _moved(usable),
        "## Without sound\n\n" + _reasons(usable, "unheard"),
        "## Rejected\n\n" + _reasons(rows, "rejected"),
        "## Format\n\n" + _FORMAT.format(size=size, fps=fps),
        "## Licence\n\n" + LICENCES[kind] + " Prepared clips are copies of their source: its licence goes with them.",
    ]
    return "\n\n".join(sections) + "\n"


def hours(rows: Iterable[dict[str, Any]]) -> float:
    """Length of the clips together."""
    return sum(row["duration_s"] for row in rows) / 3600


def speakers(rows: Iterable[dict[str, Any]]) -> int:
    """How many people speak in the clips."""
    return len({(row["corpus"], row["speaker"]) for row in rows})


def _counts(usable: list[dict[str, Any]]) -> str:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in usable:
        groups.setdefault((row["corpus"], row["split"]), []).append(row)
    lines = [
        (corpus, split, len(rows), speakers(rows), f"{hours(rows):.3f}")
        for (corpus, split), rows in sorted(groups.items())
    ]
    return _table(("corpus", "split", "clips", "speakers", "hours"), lines)


def _lone(speakers: int) -> str:
    if not speakers:
        return ""
    return (
        f"\n\n**{speakers} of the speakers are single files** that lie directly in the source folder: nothing tells "
        "who speaks in them, so each counts as a speaker of its own, and a person who is in several may be in two "
        "splits. Sub-folders by speaker, or a `clips.csv`, mend that."
    )


def _moved(usable: list[dict[str, Any]]) -> str:
    """What was done about the lag, corpus by corpus."""
    usable = [row for row in usable if not row["unheard"]]
    corpora = sorted({row["corpus"] for row in usable})
    moved = sorted({row["corpus"] for row in usable if row["audio_lag_s"]})
    still = [corpus for corpus in corpora if corpus not in moved]
    said = "\n\n`audio_lag_s` says of every clip how much was taken out of its sound."
    if moved:
        said += f" The sound of {', '.join(moved)} was moved by that to meet the picture."
    if still:
        said += f" The sound of {', '.join(still)} is as it was: nothing was taken out."
    return said


def _emotions(usable: list[dict[str, Any]]) -> str:
    counts = Counter(row["emotion"] for row in usable)
    numbered = [(number, emotion, counts[emotion]) for number, emotion in enumerate(EMOTIONS)]
    return _table(("class", "emotion", "clips"), [*numbered, ("", "not known", counts[""])])


def _reasons(rows: list[dict[str, Any]], column: str) -> str:
    counts = reason_counts(rows, column)
    return _table(("reason", "clips"), counts.items()) + "\n\nThe index lists them." if counts else "None."


def _table(titles: tuple[str, ...], lines: Iterable[tuple[Any, ...]]) -> str:
    rule = tuple("---" for _ in titles)
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (titles, rule, *lines))
