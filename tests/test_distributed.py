"""Several processes train as one: the same weights, and none is left waiting when another fails."""

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from atldiff.data.prepared import PreparedClips
from atldiff.errors import InputError
from atldiff.landmarks.generator import LandmarkGeneratorConfig
from atldiff.training.engine.checkpoint import Checkpoints
from atldiff.training.engine.launch import Launch
from atldiff.training.engine.loop import fit
from atldiff.training.engine.task import Batch
from atldiff.training.sound.landmarks import LandmarkTask, LandmarkTraining, train_landmarks
from atldiff.training.sound.speech_features import cache_features
from prepared_files import write_prepared

torch.set_num_threads(1)

TRAINING = LandmarkTraining(steps=5, clips=4, frames=8, warmup=1, report_every=5)
CONFIG = LandmarkGeneratorConfig(channels=16, dilations=(1, 2), dropout=0.0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_prepared(tmp_path_factory.mktemp("clips") / "prepared", ["train"] * 3 + ["val"])
    clips = PreparedClips.open(folder)
    cache_features(clips.split("train"), folder, seed=0)
    cache_features(clips.split("val"), folder)
    return folder


def test_two_processes_agree_with_one(prepared: Path, tmp_path: Path) -> None:
    train_landmarks(prepared, tmp_path / "one", TRAINING, CONFIG, Launch("cpu", quiet=True))
    settings = ["steps=5", "clips=4", "frames=8", "warmup=1", "report_every=5"]
    model = ["model.channels=16", "model.dilations=1,2", "model.dropout=0"]
    command = [sys.executable, "-m", "atldiff.cli", "train", "landmarks", str(prepared), "-o", str(tmp_path / "two")]
    devices = ["--devices", "2", "--accelerator", "cpu"]
    result = subprocess.run(
        [*command, *devices, "--set", *settings, *model], capture_output=True, text=True, check=False, timeout=300
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == f"best weights: {tmp_path / 'two' / 'landmark_generator'}"
    one, two = (Checkpoints(tmp_path / name, keep=1).latest() for name in ("one", "two"))
    assert one is not None and two is not None
    assert one["settings"] == two["settings"]
    for name in ("model", "average"):
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-5)
    assert one["losses"] == two["losses"] == []
    assert (tmp_path / "two" / "log.csv").read_text().count("\n") == 2


class FailsInOneProcess(LandmarkTask):
    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        if step == 1 and os.environ["LOCAL_RANK"] == "1":
            raise InputError("clip 7 is bad")
        return super().loss(batch, step)


def test_a_failure_in_one_process_stops_the_other(prepared: Path, tmp_path: Path) -> None:
    task = functools.partial(FailsInOneProcess, prepared, TRAINING, CONFIG)
    began = time.monotonic()
    with pytest.raises(InputError, match="clip 7 is bad"):
        fit(task, TRAINING, tmp_path / "run", Launch("cpu", devices=2, quiet=True))
    assert time.monotonic() - began < 200
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_devices_that_are_not_there_are_refused(prepared: Path, tmp_path: Path) -> None:
    count = torch.cuda.device_count() + 1
    with pytest.raises(InputError, match=f"{count} GPUs were asked for; torch finds {count - 1}"):
        train_landmarks(prepared, tmp_path, launch=Launch("cuda", devices=count, quiet=True))
    with pytest.raises(InputError, match="clips is 4; expected a multiple of 3, devices times accumulate"):
        train_landmarks(prepared, tmp_path, TRAINING, CONFIG, Launch("cpu", devices=3, quiet=True))
    with pytest.raises(InputError, match="accelerator is 'tpu'; expected one of auto, cpu, cuda"):
        Launch("tpu")
