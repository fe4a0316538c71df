"""Which sound is spoken when in GRID's sentences, and what lips do there: ``python benchmarks/phonemes.py prepared``.

GRID's file names spell the sentences. A hidden Markov model, one Gaussian of speech features a phoneme, is learned
from the train clips without any alignment (flat start, Viterbi training) and aligns the validation clips. Prints, of
the true and of the predicted mouths: how often the lips meet at p, b and m, how much wider and flatter spread sounds
are than rounded ones, and how much more open vowels are than p, b and m. ``spoken.py`` shows them as pictures.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

import common  # noqa: F401
from atldiff.data.prepared import PreparedClips
from atldiff.face.similarity import remove_head_motion
from atldiff.landmarks.shapes import mouth_shapes
from atldiff.models.loading import DEFAULT_MODEL
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import Speech
from atldiff.speech.whisper import FEATURE_RATE
from atldiff.training.sound.landmarks import SHUT
from atldiff.training.sound.speech_features import SpokenClip, cache_features

SILENCE = "(rest)"
CLOSED = frozenset({"p", "b", "m"})
ROUNDED = frozenset({"uw", "w", "ow", "ao"})
SPREAD = frozenset({"iy", "ih", "s", "z", "ey"})

_WORDS = [
    {"b": "b ih n", "l": "l ey", "p": "p l ey s", "s": "s eh t"},
    {"b": "b l uw", "g": "g r iy n", "r": "r eh d", "w": "w ay t"},
    {"a": "ae t", "b": "b ay", "i": "ih n", "w": "w ih th"},
    {
        **dict(zip("abcdefgh", ("ey", "b iy", "s iy", "d iy", "iy", "eh f", "jh iy", "ey ch"), strict=True)),
        **dict(zip("ijklmnop", ("ay", "jh ey", "k ey", "eh l", "eh m", "eh n", "ow", "p iy"), strict=True)),
        **dict(zip("qrstuv", ("k y uw", "ah r", "eh s", "t iy", "y uw", "v iy"), strict=True)),
        **{"x": "eh k s", "y": "w ay", "z": "z eh d"},
    },
    {
        **{"z": "z ih r ow", "1": "w ah n", "2": "t uw", "3": "th r iy", "4": "f ao", "5": "f ay v"},
        **{"6": "s ih k s", "7": "s eh v n", "8": "ey t", "9": "n ay n"},
    },
    {"a": "ah g eh n", "n": "n aw", "p": "p l iy z", "s": "s uw n"},
]
"""Phonemes of each place of a sentence by the letter of the file name."""

_DIMENSIONS = 40
_ROUNDS = 12
_LEAST_FEATURES = 2
_FLOOR = 0.15
_AROUND_FRAMES = 1


@dataclass(frozen=True)
class Segment:
    """A phoneme from ``begin`` to ``end`` seconds."""

    phoneme: str
    begin: float
    end: float


def phonemes(key: str) -> list[str]:
    """The sounds of the sentence that a GRID clip's key ends in, silence before and after it."""
    letters = key.rsplit("/", 1)[-1]
    spoken = [sound for words, letter in zip(_WORDS, letters, strict=True) for sound in words[letter].split()]
    return [SILENCE, *spoken, SILENCE]


class Aligner:
    """One Gaussian a phoneme over principal components of speech features, each at least 40 ms long.

    Args:
        spoken: GRID clips with their features; they are learned from.
    """

    def __init__(self, spoken: Sequence[SpokenClip]) -> None:
        features = [item.variants[0].features.astype(np.float32) for item in spoken]
        joined = np.concatenate(features)
        self._mean, self._scale = joined.mean(axis=0), joined.std(axis=0) + 1e-3
        _, sizes, directions = np.linalg.svd((joined[::5] - self._mean) / self._scale, full_matrices=False)
        self._directions = directions[:_DIMENSIONS].T / (sizes[:_DIMENSIONS] / np.sqrt(len(joined[::5])))
        observed = [self._observed(item) for item in features]
        sounds = [phonemes(item.clip.info.key) for item in spoken]
        paths = [_flat_start(seen, len(states)) for seen, states in zip(observed, sounds, strict=True)]
        self._gaussians: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for _ in range(_ROUNDS):
            self._learn(observed, sounds, paths)
            paths = [self._path(seen, states) for seen, states in zip(observed, sounds, strict=True)]

    def align(self, item: SpokenClip) -> list[Segment]:
        """The phonemes of a GRID clip in order."""
        sounds = phonemes(item.clip.info.key)
        path = self._path(self._observed(item.variants[0].features.astype(np.float32)), sounds)
        edges = [0, *(np.flatnonzero(np.diff(path)) + 1), len(path)]
        return [
            Segment(sounds[path[begin]], begin / FEATURE_RATE, end / FEATURE_RATE) for begin, end in pairwise(edges)
        ]

    def _observed(self, features: np.ndarray) -> np.ndarray:
        return ((features - self._mean) / self._scale) @ self._directions

    def _learn(self, observed: list[np.ndarray], sounds: list[list[str]], paths: list[np.ndarray]) -> None:
        gathered: dict[str, list[np.ndarray]] = defaultdict(list)
        for seen, states, path in zip(observed, sounds, paths, strict=True):
            for number, sound in enumerate(states):
                gathered[sound].append(seen[path == number])
        for sound, parts in gathered.items():
            own = np.concatenate(parts)
            self._gaussians[sound] = own.mean(axis=0), own.var(axis=0) + _FLOOR

    def _path(self, observed: np.ndarray, sounds: list[str]) -> np.ndarray:
        """The likeliest phoneme of each feature by its number, (T,), by Viterbi's algorithm."""
        means, variances = (
            np.stack(parts) for parts in zip(*(self._gaussians[sound] for sound in sounds), strict=True)
        )
        fit = -0.5 * (np.square(observed[:, None] - means) / variances + np.log(variances)).sum(axis=2)
        fit = np.repeat(fit, _LEAST_FEATURES, axis=1)
        count = fit.shape[1]
        stays = np.arange(count) % _LEAST_FEATURES == _LEAST_FEATURES - 1
        best, back = np.full(count, -np.inf), np.zeros(fit.shape, dtype=bool)
        best[0] = fit[0, 0]
        for time in range(1, len(fit)):
            stayed = np.where(stays, best, -np.inf)
            moved = np.concatenate([[-np.inf], best[:-1]])
            back[time] = moved > stayed
            best = np.maximum(stayed, moved) + fit[time]
        state, path = count - 1, np.zeros(len(fit), dtype=int)
        for time in range(len(fit) - 1, -1, -1):
            path[time] = state // _LEAST_FEATURES
            state -= int(back[time, state])
        return path


def _flat_start(observed: np.ndarray, states: int) -> np.ndarray:
    """Half a second of silence at either end, the sounds equally long between them."""
    quiet = FEATURE_RATE // 2
    inside = np.linspace(1, states - 1, len(observed) - 2 * quiet, endpoint=False).astype(int)
    return np.concatenate([np.zeros(quiet, dtype=int), inside, np.full(quiet, states - 1)])


def main() -> None:
    parser = argparse.ArgumentParser(description="What lips do at the sounds of GRID's sentences.")
    parser.add_argument("data", type=Path, help="folder that atldiff prepare wrote")
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL])
    arguments = parser.parse_args()
    data = PreparedClips.open(arguments.data)
    aligner = Aligner(cache_features(grid(data, "train"), data.folder))
    spoken = cache_features(grid(data, "val"), data.folder)
    rows = {"true": true_mouths(spoken)}
    for model in arguments.model:
        rows[model] = made_mouths(ATLDiffPipeline.from_pretrained(model, device="cpu"), spoken)
    print_table(rows, spoken, [aligner.align(item) for item in spoken])


def grid(data: PreparedClips, split: str) -> list:
    return [clip for clip in data.split(split, heard=True) if clip.info.corpus == "GRID"]


def true_mouths(spoken: Sequence[SpokenClip]) -> list[np.ndarray]:
    """The detected landmarks of each clip without the head's motion, (F, 68, 2)."""
    return [remove_head_motion(item.landmarks, item.landmarks[0]) for item in spoken]


def made_mouths(pipeline: ATLDiffPipeline, spoken: Sequence[SpokenClip]) -> list[np.ndarray]:
    """What the landmark part makes of each clip's sound and first frame, (F, 68, 2)."""
    return [
        pipeline.speech_landmarks(
            item.landmarks[0], Speech.from_array(item.clip.waveform(), SAMPLE_RATE), fps=item.clip.info.fps
        )
        for item in spoken
    ]


def print_table(
    rows: dict[str, list[np.ndarray]], spoken: Sequence[SpokenClip], alignments: Sequence[list[Segment]]
) -> None:
    print(f"{len(spoken)} clips of {len({item.clip.info.speaker for item in spoken})} speakers\n")
    print(
        "| | lips meet at p, b, m | width, spread − rounded | outline, spread − rounded | opening, vowels − p, b, m |"
    )
    print("| --- |" + " ---: |" * 4)
    for row, mouths in rows.items():
        met: list[bool] = []
        contrasts: dict[str, list[float]] = defaultdict(list)
        for landmarks, item, segments in zip(mouths, spoken, alignments, strict=True):
            fps, shapes = item.clip.info.fps, mouth_shapes(landmarks)
            met += [least < SHUT for least in _least_openings(shapes["opening"], segments, fps)]
            for name in ("width", "outline"):
                spread, rounded = (_mean_at(shapes[name], segments, sounds, fps) for sounds in (SPREAD, ROUNDED))
                contrasts[name].append(spread - rounded)
            closed = np.mean(_least_openings(shapes["opening"], segments, fps))
            vowels = {segment.phoneme for segment in segments if segment.phoneme[0] in "aeiou"}
            contrasts["opening"].append(_mean_at(shapes["opening"], segments, vowels, fps) - float(closed))
        cells = [f"{np.nanmedian(contrasts[name]):.3f}" for name in ("width", "outline", "opening")]
        print(f"| {row} | {np.mean(met):.0%} of {len(met)} | " + " | ".join(cells) + " |")


def _least_openings(opening: np.ndarray, segments: list[Segment], fps: float) -> list[float]:
    """Of each p, b and m the smallest opening within a frame of it."""
    found = []
    for segment in segments:
        begin, end = round(segment.begin * fps) - _AROUND_FRAMES, round(segment.end * fps) + _AROUND_FRAMES
        own = opening[max(0, begin) : end + 1]
        if segment.phoneme in CLOSED and len(own):
            found.append(float(own.min()))
    return found


def _mean_at(shape: np.ndarray, segments: list[Segment], sounds: frozenset[str] | set[str], fps: float) -> float:
    """The mean of a shape in the middle frames of some sounds; NaN where there are none."""
    middles = [(segment.begin + segment.end) / 2 * fps for segment in segments if segment.phoneme in sounds]
    places = [round(middle) for middle in middles if round(middle) < len(shape)]
    return float(shape[places].mean()) if places else float("nan")


if __name__ == "__main__":
    main()
