"""Training on a small prepared folder: it learns, it stops and goes on exactly, it refuses bad data."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atldiff.data.prepared import SpeakerSampler, load_clips
from atldiff.diffusion.unet import UNetConfig
from atldiff.errors import InputError
from atldiff.face.crop import face_crop
from atldiff.face.detection import FaceDetector
from atldiff.landmarks.generator import LandmarkGeneratorConfig
from atldiff.landmarks.rest import closing_displacement
from atldiff.speech.waveform import SAMPLE_RATE, read_waveform
from atldiff.training import diffusion, landmarks
from atldiff.training.checkpoint import load_checkpoint
from atldiff.warp import thin_plate_flow, warp

torch.set_num_threads(1)

TINY_UNET = UNetConfig(channels=(8, 16, 16), time_features=16, attention_heads=2)
TINY_GENERATOR = LandmarkGeneratorConfig(channels=24, dilations=(1, 2), dropout=0.1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, portrait: Path, speech: Path, detector: FaceDetector) -> Path:
    """Four clips of 32 frames: the bundled portrait, its mouth opened and shut by the loudness of the speech."""
    folder = tmp_path_factory.mktemp("prepared")
    picture = np.asarray(Image.open(portrait).convert("RGB"))
    found = detector.detect(picture)[0]
    crop = face_crop(found)
    identity, points = crop.cut(picture), crop.to_crop(found)
    waveform = read_waveform(speech)
    rows = []
    for number, split in enumerate(["train", "train", "train", "val"]):
        sound = waveform[number * SAMPLE_RATE :][: round(1.28 * SAMPLE_RATE)]
        loudness = np.sqrt(np.square(sound).reshape(32, -1).mean(axis=1))
        opening = 1 - 3 * loudness / (loudness.max() + 1e-6)
        target = (points + opening[:, None, None] * closing_displacement(points)).astype(np.float32)
        flow = thin_plate_flow(torch.from_numpy(points), torch.from_numpy(target), 128)
        pixels = warp(torch.from_numpy(identity.copy()).permute(2, 0, 1).float(), flow, 128)
        np.savez(
            folder / f"{number}.npz",
            frames=pixels.permute(0, 2, 3, 1).round().to(torch.uint8).numpy(),
            landmarks=target,
            waveform=(sound * 32767).astype(np.int16),
            fps=np.float32(25),
        )
        rows.append([f"{number}.npz", "made", f"speaker{number % 2}", split, ""])
    with (folder / "index.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "corpus", "speaker", "split", "rejected"])
        writer.writerows(rows)
    return folder


def tiny_diffusion(steps: int) -> diffusion.DiffusionTraining:
    return diffusion.DiffusionTraining(steps=steps, clips=2, frames=3, crop=32, warmup=1, report_every=2)


def tiny_landmarks(steps: int) -> landmarks.LandmarkTraining:
    return landmarks.LandmarkTraining(steps=steps, clips=4, frames=16, warmup=1, report_every=2)


def same_state(first: Path, second: Path) -> bool:
    one, two = load_checkpoint(first), load_checkpoint(second)
    assert one is not None and two is not None
    return all(torch.equal(one["model"][name], two["model"][name]) for name in one["model"]) and all(
        torch.equal(one["average"][name], two["average"][name]) for name in one["average"]
    )


def test_image_network_training_goes_on_exactly(prepared: Path, tmp_path: Path) -> None:
    training = tiny_diffusion(6)
    diffusion.train_diffusion(prepared, tmp_path / "whole", training, TINY_UNET)
    for _ in range(6):
        stopping = dataclasses.replace(training, max_minutes=0)
        diffusion.train_diffusion(prepared, tmp_path / "pieces", stopping, TINY_UNET)
    assert same_state(tmp_path / "whole", tmp_path / "pieces")
    assert (tmp_path / "whole" / "unet" / "model.safetensors").is_file()
    assert len((tmp_path / "whole" / "log.csv").read_text().splitlines()) == 4
    assert len(list((tmp_path / "whole" / "samples").glob("*.png"))) == 3


def test_landmark_training_goes_on_exactly_and_learns(prepared: Path, tmp_path: Path) -> None:
    training = dataclasses.replace(tiny_landmarks(60), report_every=20)
    landmarks.train_landmarks(prepared, tmp_path / "whole", training, TINY_GENERATOR)
    for _ in range(2):
        half = dataclasses.replace(training, max_minutes=0 if not (tmp_path / "pieces").exists() else 1e9)
        landmarks.train_landmarks(prepared, tmp_path / "pieces", half, TINY_GENERATOR)
    assert same_state(tmp_path / "whole", tmp_path / "pieces")
    losses = [float(line.split(",")[1]) for line in (tmp_path / "whole" / "log.csv").read_text().splitlines()[1:]]
    assert losses[-1] < 0.8 * losses[0]


def test_batches_depend_on_the_seed_and_the_step_alone(prepared: Path) -> None:
    training = tiny_diffusion(5)
    clips = load_clips(prepared, "train")
    one, two = (diffusion.FaceCropBatches(clips, training) for _ in range(2))
    _ = two[0], two[3]
    assert all(torch.equal(value, two[2][name]) for name, value in one[2].items())
    assert not torch.equal(one[2]["noise"], one[1]["noise"])


def test_speakers_are_drawn_evenly(prepared: Path) -> None:
    sampler = SpeakerSampler(load_clips(prepared, "train", with_frames=False), shortest=10)
    random = np.random.default_rng(0)
    drawn = [sampler.draw(random).speaker for _ in range(400)]
    assert 150 < drawn.count("speaker1") < 250


def test_refuses_what_cannot_be_trained_on(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no index\.csv in"):
        load_clips(tmp_path, "train")
    with pytest.raises(InputError, match="no usable clip of split 'test'"):
        load_clips(prepared, "test")
    with pytest.raises(InputError, match="no clip has 100 frames; the longest has 32"):
        SpeakerSampler(load_clips(prepared, "train", with_frames=False), shortest=100)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(prepared: Path, tmp_path: Path) -> None:
    broken = dataclasses.replace(tiny_diffusion(4), learning_rate=1e30, report_every=1)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        diffusion.train_diffusion(prepared, tmp_path, broken, TINY_UNET)
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 1


def test_a_run_goes_on_with_its_own_settings_only(prepared: Path, tmp_path: Path) -> None:
    diffusion.train_diffusion(prepared, tmp_path, tiny_diffusion(2), TINY_UNET)
    with pytest.raises(InputError, match=r"begun with {'seed': 0}, not {'seed': 7}"):
        diffusion.train_diffusion(prepared, tmp_path, dataclasses.replace(tiny_diffusion(4), seed=7), TINY_UNET)
