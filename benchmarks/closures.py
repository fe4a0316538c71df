"""Lips that meet, and faces that stay: ``python benchmarks/closures.py prepared [--split val]``.

Of the frames in which the true lips meet just before or after an opening, as at p, b and m: how often the predicted
lips meet within a frame of it. Then ten minutes of the same eight seconds of speech over and over: how far the
landmarks ever are from where they were in the first of them. Then ten seconds of faint noise: how far the mouth
opens.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

import common
from atldiff.data.prepared import PreparedClips
from atldiff.evaluation.protocol import choose_clips
from atldiff.face.topology import interocular_distance, mouth_opening
from atldiff.models.loading import DEFAULT_MODEL
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import Speech
from atldiff.training.sound.landmarks import CLOSURE_REACH, OPEN, SHUT

FPS, PERIOD_S, REPEATS = 25, 8, 75


def main() -> None:
    parser = argparse.ArgumentParser(description="How the lips meet; drift; silence.")
    parser.add_argument("data", type=Path, help="folder that atldiff prepare wrote")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--split", default="val")
    parser.add_argument("--per-speaker", type=int, default=12)
    arguments = parser.parse_args()
    pipeline = ATLDiffPipeline.from_pretrained(arguments.model, device="cpu")
    clips = choose_clips(
        PreparedClips.open(arguments.data).split(arguments.split, heard=True), None, arguments.per_speaker
    )
    met: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        true = clip.landmarks()
        speech = Speech.from_array(clip.waveform(), SAMPLE_RATE)
        made = pipeline.speech_landmarks(true[0], speech, fps=clip.info.fps)
        met[clip.info.corpus] += openings_at_closures(mouth_opening(true), mouth_opening(made))
    identity = clips[0].landmarks()[0]
    result = {
        "closures": {
            corpus: {
                "count": len(found),
                "met": round(float(np.mean(np.array(found) < SHUT)), 3),
                "median_opening": round(float(np.median(found)), 4),
            }
            for corpus, found in met.items()
            if found
        },
        "drift_eye_distances": drift(pipeline, identity),
        "opening_in_silence": silence(pipeline, identity),
    }
    rows = [(corpus, *values.values()) for corpus, values in result["closures"].items()]
    common.show(result, ("corpus", "closures", "met", "median opening"), rows)


def openings_at_closures(true: np.ndarray, made: np.ndarray) -> list[float]:
    """The least of ``made`` within a frame of each place where ``true`` shuts beside an opening; both (F,)."""
    found = []
    for frame in range(2, min(len(true), len(made)) - 2):
        near = true[frame - 2 : frame + 3]
        around = true[max(0, frame - CLOSURE_REACH) : frame + CLOSURE_REACH + 1]
        if true[frame] < SHUT and true[frame] == near.min() and around.max() > OPEN:
            found.append(float(made[frame - 1 : frame + 2].min()))
    return found


def drift(pipeline: ATLDiffPipeline, identity: np.ndarray) -> float:
    """The furthest that any landmark is in a later period from where it was in the second one."""
    sound = np.tile(common.speech(PERIOD_S), REPEATS)
    made = pipeline.speech_landmarks(identity, Speech.from_array(sound, SAMPLE_RATE), fps=FPS)
    periods = made[: PERIOD_S * FPS * REPEATS].reshape(REPEATS, PERIOD_S * FPS, *identity.shape)[1:-1]
    return float(np.linalg.norm(periods - periods[0], axis=-1).max() / interocular_distance(identity))


def silence(pipeline: ATLDiffPipeline, identity: np.ndarray) -> float:
    """The widest opening over ten seconds of noise at −80 dB."""
    sound = np.random.default_rng(0).normal(0, 1e-4, 10 * SAMPLE_RATE).astype(np.float32)
    made = pipeline.speech_landmarks(identity, Speech.from_array(sound, SAMPLE_RATE), fps=FPS)
    return float(mouth_opening(made).max())


if __name__ == "__main__":
    main()
