"""Two landmark generators into one: ``python benchmarks/landmark_weights.py prepared OLD NEW -o DIR``.

OLD and NEW are folders of landmark generators, the second trained on from the first (``begin_from``). Their weights
are averaged, ``--share`` of the new; then the five directions in which true mouths move most are made larger in
the output, by ``--spread`` of what they are too small on train clips. Both together move further than the old one and
follow better than the new one.
"""

import argparse
import dataclasses
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from atldiff.data.prepared import PreparedClips
from atldiff.face.topology import JAW, MOUTH, NUM_LANDMARKS
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig
from atldiff.storage.parts import load_config, load_weights, save_part
from atldiff.training.sound.landmarks import LandmarkTraining, displacements
from atldiff.training.sound.speech_features import SpokenClip, cache_features

DIRECTIONS = 5
JAW_WEIGHT = 0.3
LEAST_GAIN, MOST_GAIN = 0.85, 1.8
EVERY = 6


def main() -> None:
    parser = argparse.ArgumentParser(description="Average two landmark generators and widen what they do.")
    parser.add_argument("data", type=Path, help="folder that atldiff prepare wrote")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.55, help="of the new weights (default: %(default)s)")
    parser.add_argument("--spread", type=float, default=0.25, help="of what is missing (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = averaged(load(arguments.old), load(arguments.new), arguments.share)
    data = PreparedClips.open(arguments.data)
    clips = data.split("train", LandmarkTraining().most_per_speaker, heard=True)[::EVERY]
    gains = widen(model, cache_features(clips, data.folder, seed=0), arguments.spread)
    print("made larger by", " ".join(f"{gain:.2f}" for gain in gains))
    save_part(arguments.output, model, model.config)


def load(folder: Path) -> LandmarkGenerator:
    model = LandmarkGenerator(load_config(folder, LandmarkGeneratorConfig))
    load_weights(folder, model)
    return model.eval()


def averaged(old: LandmarkGenerator, new: LandmarkGenerator, share: float) -> LandmarkGenerator:
    """A generator whose weights lie between two others'."""
    model = LandmarkGenerator(dataclasses.replace(old.config))
    before, after = old.state_dict(), new.state_dict()
    model.load_state_dict({name: torch.lerp(before[name], after[name], share) for name in before})
    return model.eval()


@torch.no_grad()
def widen(model: LandmarkGenerator, spoken: list[SpokenClip], spread: float) -> np.ndarray:
    """Change the last layer so that mouth and jaw go further, (DIRECTIONS,) times, about their mean."""
    weights = np.zeros((NUM_LANDMARKS, 2))
    weights[JAW], weights[MOUTH] = JAW_WEIGHT, 1.0
    weights = weights.ravel()
    pairs = [_moved(model, item) for item in spoken]
    mean = np.mean([made.mean(axis=0) for made, _ in pairs], axis=0)
    made, true = (
        np.concatenate([pair[side] - pair[side].mean(axis=0) for pair in pairs]) * weights for side in (0, 1)
    )
    directions = np.linalg.svd(true[::3], full_matrices=False)[2][:DIRECTIONS]
    missing = (true @ directions.T).std(axis=0) / (made @ directions.T).std(axis=0)
    gains = 1 + spread * (np.clip(missing, LEAST_GAIN, MOST_GAIN) - 1)
    unweighted = np.where(weights > 0, 1 / np.maximum(weights, 1e-9), 0)
    change = np.eye(len(weights)) + (unweighted[:, None] * directions.T) @ np.diag(gains - 1) @ (directions * weights)
    last = model.head[-1]
    assert isinstance(last, torch.nn.Linear)
    last.weight.copy_(torch.from_numpy(change @ last.weight.numpy()))
    last.bias.copy_(torch.from_numpy(mean + change @ (last.bias.numpy() - mean)))
    return gains


def _moved(model: LandmarkGenerator, spoken: SpokenClip) -> tuple[np.ndarray, np.ndarray]:
    """What is made and what is true of one clip, (F, 136) each, against its middle frame."""
    landmarks, variant = spoken.landmarks, spoken.variants[0]
    identity = landmarks[len(landmarks) // 2]
    positions = torch.from_numpy(variant.positions(np.arange(len(landmarks)), spoken.clip.info.fps))
    made = model(torch.from_numpy(variant.features)[None].float(), positions[None], torch.from_numpy(identity)[None])[
        0
    ]
    true = displacements(landmarks, identity)
    return made.numpy().reshape(len(true), -1), true.reshape(len(true), -1)


if __name__ == "__main__":
    main()
