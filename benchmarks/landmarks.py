"""Judge the landmark part on prepared clips: ``python benchmarks/landmarks.py DATA [--model DIR]``.

DATA is a folder that ``atldiff prepare`` wrote. Prints one table a corpus, the speakers that are also trained on
apart, with two linear baselines learned from the same train clips, and how fast the landmark part is on one core.
``--json`` keeps every figure, ``--plots`` one picture a corpus.
"""

import argparse
import dataclasses
import json
import math
import os
import re
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from atldiff.cli.common import ProgressBar
from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.evaluation.scores import Groups, MouthCurves, Score, Statistic, grouped
from atldiff.evaluation.tables import INTERVALS
from atldiff.landmarks.shapes import SHAPES
from atldiff.models.loading import DEFAULT_MODEL
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.whisper import FEATURE_RATE, WhisperEncoder
from atldiff.storage.files import write_atomically
from atldiff.training.sound.speech_features import encode_speech
from judged_landmarks import (
    LOOK_AHEAD_S,
    ROWS,
    Baseline,
    evaluate_landmarks,
    middle_curves,
    opening_figure,
    real_time_factors,
)
from ridge import MEL, MOST_PER_SPEAKER, SpeechFeatures, fit_ridge

TIMED_SECONDS = 60
SHAPE_FIGURES = ("r", "gain", "p95")
COLUMNS = (
    ("r at lag 0 ↑", "r_at_zero", 2),
    ("best r ↑", "r_best", 2),
    ("lag, frames", "lag", 1),
    ("gain", "gain", 2),
    ("M-LD ↓", "m_ld", 4),
    ("M-LD / static ↓", "m_ld_ratio", 2),
    ("mouth LVD ↓", "lvd", 4),
)


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    data = PreparedClips.open(arguments.data)
    clips = data.split(arguments.split, arguments.per_speaker, heard=True)
    pipeline = ATLDiffPipeline.from_pretrained(arguments.model, device="cpu")
    baselines = learn_baselines(data)
    with ProgressBar("clip", quiet=False) as progress:
        scores, curves, distances = evaluate_landmarks(pipeline, data, clips, baselines, arguments.seed, progress)
    groups = grouped(scores, lambda score: score.group, arguments.seed)
    timing = time_landmarks(pipeline, clips)
    print_tables(groups, scores, [*ROWS, *baselines])
    print_shapes(groups, distances)
    for name, factors in timing.items():
        print(
            f"Real-time factor, {name}: {factors['alone']:.3f} alone, {factors['with_encoder']:.3f} with the encoder"
        )
    if arguments.json:
        about = {"data": str(data.folder), "split": arguments.split, "seed": arguments.seed, "model": arguments.model}
        write_json_report(arguments.json, about | {"mouth_frechet": distances}, groups, timing, scores)
    if arguments.plots:
        write_plots(arguments.plots, scores, curves)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Judge the landmark part on prepared clips.")
    parser.add_argument("data", type=Path, help="folder that atldiff prepare wrote")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="folder of a model (default: the one in the package)")
    parser.add_argument("--per-speaker", type=int, default=12, help="at most so many clips of each speaker")
    parser.add_argument("--split", default="val")
    parser.add_argument("--seed", type=int, default=0, help="of the babble and the bootstrap")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--plots", type=Path, help="folder to write")
    return parser.parse_args()


def learn_baselines(data: PreparedClips) -> dict[str, Baseline]:
    encoder = WhisperEncoder.from_package()

    def encode_whisper(waveform: np.ndarray) -> np.ndarray:
        return encode_speech(encoder, waveform).astype(np.float32)

    clips = data.split("train", MOST_PER_SPEAKER, heard=True)
    whisper = SpeechFeatures(encode_whisper, rate=FEATURE_RATE, step_s=0.04)
    baselines: dict[str, Baseline] = {}
    for name, features in {"ridge on log-mel": MEL, "ridge on Whisper-tiny": whisper}.items():
        baselines[name] = ridge = fit_ridge(clips, features)
        print(f"{name}: learned from {len(clips)} clips, regularisation {ridge.strength:.3g}", flush=True)
    return baselines


def time_landmarks(pipeline: ATLDiffPipeline, clips: list[PreparedClip]) -> dict[str, dict[str, float]]:
    length = TIMED_SECONDS * SAMPLE_RATE
    sounds, heard = [], 0
    for clip in clips:
        if heard < length:
            sounds.append(clip.waveform())
            heard += len(sounds[-1])
    sound, identity = np.resize(np.concatenate(sounds), length), clips[0].landmarks()[0]
    looks = {"whole recording": None, f"streamed, {1000 * LOOK_AHEAD_S:.0f} ms": LOOK_AHEAD_S}
    return {
        name: dataclasses.asdict(real_time_factors(pipeline, sound, identity, look)) for name, look in looks.items()
    }


def print_tables(groups: Groups, scores: list[Score], rows: list[str]) -> None:
    for group, by_row in groups.items():
        own = {(score.key, score.speaker) for score in scores if score.group == group}
        print(f"\n### {group}: {len(own)} clips, {len({speaker for _, speaker in own})} speakers\n")
        print("| | " + " | ".join(title for title, _, _ in COLUMNS) + " |")
        print("| --- |" + " ---: |" * len(COLUMNS))
        for row in rows:
            cells = [cell(by_row[row].get(name), name, decimals) for _, name, decimals in COLUMNS]
            print(f"| {row} | " + " | ".join(cells) + " |")
    print(f"\nMedians over clips. {INTERVALS}")


def print_shapes(groups: Groups, distances: dict[str, dict[str, float]]) -> None:
    for group, by_row in groups.items():
        print(f"\n### Shapes, {group}\n\n| | " + " | ".join(SHAPES) + " | Fréchet ↓ |")
        print("| --- |" + " ---: |" * (len(SHAPES) + 1))
        for row in (row for row in ROWS if row in distances.get(group, {})):
            cells = [
                " / ".join(f"{by_row[row][f'{shape}_{figure}'].median:.2f}" for figure in SHAPE_FIGURES)
                for shape in SHAPES
            ]
            print(f"| {row} | " + " | ".join(cells) + f" | {distances[group][row]:.4f} |")
    print("\nEach shape: r at lag 0 ↑ / gain / ratio of the 95th percentiles; medians over clips.")


def cell(value: Statistic | None, name: str, decimals: int) -> str:
    if value is None or not value.count:
        return "–"
    interval = f" [{value.low:.{decimals}f} … {value.high:.{decimals}f}]" if name == "r_at_zero" else ""
    return f"{value.median:.{decimals}f}{interval}"


def write_json_report(path: Path, about: dict, groups: Groups, timing: dict, scores: list[Score]) -> None:
    by_corpus = {
        group: {
            row: {name: dataclasses.asdict(value) for name, value in values.items() if value.count}
            for row, values in by_row.items()
        }
        for group, by_row in groups.items()
    }
    clips = [
        dataclasses.asdict(score)
        | {"values": {name: value for name, value in score.values.items() if math.isfinite(value)}}
        for score in scores
    ]
    content = about | {"by_corpus": by_corpus, "real_time_factors": timing, "scores": clips}
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_plots(folder: Path, scores: list[Score], curves: list[MouthCurves]) -> None:
    for group in sorted({score.group for score in scores}):
        own = [score for score in scores if score.group == group]
        name = re.sub(r"[^a-z0-9]+", "-", group.lower())
        write_atomically(folder / f"opening-{name}.svg", opening_figure(middle_curves(curves, own), own).encode())


if __name__ == "__main__":
    main()
