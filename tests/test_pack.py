"""A pack trains where there is nothing but torch, NumPy and OpenCV, and its results are taken in at home."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.cli import main
from atldiff.data.prepared import PreparedClips
from atldiff.errors import InputError, OutputError
from atldiff.image.unet import UNetConfig
from atldiff.landmarks.generator import LandmarkGeneratorConfig
from atldiff.storage.parts import load_weights
from atldiff.training.engine.checkpoint import Checkpoints
from atldiff.training.image.diffusion import DiffusionTask, DiffusionTraining
from atldiff.training.pack import Packed, copy_code, write_pack
from atldiff.training.packed_run import RETURN_NAME, gather_results, join_pieces, take_in, unpack
from atldiff.training.sound.landmarks import LandmarkTask, LandmarkTraining
from atldiff.training.sound.speech_features import cache_features
from prepared_files import judged_by_little, write_prepared

torch.set_num_threads(1)

TINY = ["steps=3", "clips=2", "frames=2", "crop=16", "warmup=1", "report_every=2", "model.channels=8,16"]
TINY_UNET = UNetConfig(channels=(8, 16))
FOUND_ELSEWHERE = (
    "torch",
    "torchgen",
    "functorch",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
    "filelock",
)
FOUND_ELSEWHERE += ("fsspec", "typing_extensions.py", "numpy", "numpy.libs", "cv2")
FOUND_ELSEWHERE += ("opencv_python.libs", "opencv_contrib_python.libs")
BARE_PYTHON = "import runpy, sys; site, *sys.argv = sys.argv[1:]; sys.path.append(site); "
BARE_PYTHON += "runpy.run_path(sys.argv[0], run_name='__main__')"


@pytest.fixture(autouse=True)
def judging() -> Iterator[pytest.MonkeyPatch]:
    with judged_by_little() as patch:
        yield patch


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("prepared") / "data", ["train"] * 6 + ["val"] * 2, frames=12)


@pytest.fixture(scope="module")
def bare_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of a machine that has torch, NumPy and OpenCV, what torch itself needs, and nothing else."""
    pytest.importorskip("cv2")
    installed, site = Path(torch.__file__).parents[1], tmp_path_factory.mktemp("site")
    for name in FOUND_ELSEWHERE:
        if (installed / name).exists():
            (site / name).symlink_to(installed / name)
    return site


def run_bare(site: Path, script: Path, *arguments: str) -> str:
    command = [sys.executable, "-I", "-S", "-c", BARE_PYTHON, str(site), str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def diffusion_pack(data: Path, pack: Path, **limits: int) -> Packed:
    def make_task(folder: Path) -> DiffusionTask:
        return DiffusionTask(folder, DiffusionTraining(), TINY_UNET)

    return write_pack(data, pack, "diffusion", [], make_task, **limits)


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_training_on_a_bare_machine_and_back(
    data: Path, bare_site: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pack, run, home = tmp_path / "pack", tmp_path / "elsewhere" / "run", tmp_path / "home"
    assert main(["train", "diffusion", str(data), "--set", *TINY, "--pack", "-o", str(pack)]) == 0
    assert not [path for path in pack.rglob("*") if path.suffix in (".so", ".safetensors", ".pyc", ".flac")]
    assert "atldiff train diffusion DATA -o RUN" in (pack / "part-0/README.txt").read_text()
    script = pack / "part-0" / "train.py"
    options = ("-o", str(run), "--accelerator", "cpu", "--set", "keep=1")
    said = run_bare(bare_site, script, *options).splitlines()
    assert said[0] == "8 of 8 clips (100%) are packed"
    assert [line.split()[0] for line in said[-4:-1]] == ["step", "2", "3"]
    returned = run / RETURN_NAME
    assert {path.name for path in returned.iterdir()} >= {"best.pt", "log.csv", "pack.json", "checkpoints", "samples"}
    shutil.copytree(returned, home, ignore=shutil.ignore_patterns("checkpoints"))
    assert main(["train", "diffusion", str(data), "-o", str(home)]) == 0
    task = DiffusionTask(data, DiffusionTraining(), TINY_UNET)
    load_weights(home / "unet", task.model.unet)
    best = Checkpoints(run, 1).best()["average"]
    network = task.model.unet.state_dict()
    assert all(torch.equal(value, best[f"unet.{name}"].half().float()) for name, value in network.items())
    go_on_at_home(data, shutil.copytree(returned, tmp_path / "longer"), tmp_path, capfd)


def go_on_at_home(data: Path, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With all clips, which the pack need not have had, and then with those alone."""
    assert main(["train", "diffusion", str(data), "-o", str(run), "--set", "steps=4"]) == 0
    state = Checkpoints(run, 1).latest()
    assert state is not None
    assert (state["step"], state["settings"]["crop"], state["settings"]["keep"]) == (4, 16, 1)
    assert state["clips_used"]["folder"] == str(data)
    other = write_prepared(tmp_path / "other", ["train"] * 2 + ["val"], frames=12)
    capfd.readouterr()
    assert main(["train", "diffusion", str(other), "-o", str(run), "--set", "steps=5"]) == 2
    assert "longer was begun with 6 train and 2 val clips" in capfd.readouterr().err
    assert main(["train", "landmarks", str(data), "-o", str(run)]) == 2
    assert "results of a pack of the part diffusion, not landmarks" in capfd.readouterr().err


def test_pictures_are_the_same_after_packing(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    diffusion_pack(data, tmp_path / "pack")
    unpack(tmp_path / "pack", tmp_path / "data")
    there, here = PreparedClips.open(tmp_path / "data"), PreparedClips.open(data)
    assert {clip.info.key for clip in there.clips} == {clip.info.key for clip in here.clips}
    by_key = {clip.info.key: clip for clip in here.clips}
    for clip in there.clips:
        assert np.array_equal(clip.frames(3, 4), by_key[clip.info.key].frames(3, 4))
        assert np.array_equal(clip.landmarks(), by_key[clip.info.key].landmarks())
    with pytest.raises(InputError, match="packed without its sound"):
        there.clips[0].waveform()


def test_the_landmark_part_takes_its_features_along(data: Path, tmp_path: Path) -> None:
    training = LandmarkTraining(clips=2, frames=6)

    def make_task(folder: Path) -> LandmarkTask:
        return LandmarkTask(folder, training, LandmarkGeneratorConfig(channels=16, dilations=(1, 2)))

    packed = write_pack(data, tmp_path / "pack", "landmarks", [], make_task)
    assert (packed.clips, packed.of, packed.folders) == (8, 8, 1)
    assert not (data / "features").exists()
    unpack(tmp_path / "pack", tmp_path / "data")
    task = make_task(tmp_path / "data")
    task.open(torch.device("cpu"))
    assert task.draws(0, 1)[0]["features"].shape[0] == 2
    there, here = (PreparedClips.open(folder) for folder in (tmp_path / "data", data))
    plain, again = (cache_features(clips.split("val"), clips.folder) for clips in (there, here))
    shutil.rmtree(data / "features")
    assert np.array_equal(plain[0].variants[0].features, again[0].variants[0].features)


def test_folders_keep_their_size_and_speakers_share_the_room(tmp_path: Path) -> None:
    data = write_prepared(tmp_path / "data", ["train"] * 24 + ["val"] * 4, frames=2, speakers=3)
    copy_code(tmp_path / "code")
    members = [clip.info.members for clip in PreparedClips.open(data).clips]
    clip = max(each["landmarks"][1] + each["video"][1] for each in members) + 3 * 1024
    code = folder_size(tmp_path / "code")
    size = code + 2**16 + 10 * clip
    packed = diffusion_pack(data, tmp_path / "small", folder_bytes=size, most_folders=1)
    assert 6 <= packed.clips <= 11 and packed.of == 28
    assert folder_size(tmp_path / "small" / "part-0") <= size
    rows = json.loads((tmp_path / "small" / "part-0" / "clips.json").read_text())
    taken = [row["speaker"] for row in rows if row["split"] == "train"]
    assert max(map(taken.count, taken)) - min(map(taken.count, taken)) <= 1 and len(set(taken)) == 3
    assert {row["split"] for row in rows} == {"train", "val"}
    packed = diffusion_pack(data, tmp_path / "two", folder_bytes=size, most_folders=2)
    assert (packed.clips, packed.folders) == (28, 2)
    assert all(folder_size(each) <= size for each in (tmp_path / "two").iterdir())
    with pytest.raises(InputError, match="expected larger ones"):
        diffusion_pack(data, tmp_path / "none", folder_bytes=code + 2**16)
    assert not (tmp_path / "none").exists()
    shutil.rmtree(tmp_path / "two" / "part-1")
    with pytest.raises(InputError, match="part-1 of the pack are missing"):
        unpack(tmp_path / "two", tmp_path / "unpacked")


def test_what_cannot_be_packed_or_unpacked_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="part emotion cannot be packed"):
        write_pack(data, tmp_path / "pack", "emotion", [], lambda _: pytest.fail("made a task"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="expected a new or an empty folder"):
        diffusion_pack(data, tmp_path / "full")
    diffusion_pack(data, tmp_path / "pack")
    with pytest.raises(InputError, match="was not unpacked from a pack"):
        unpack(tmp_path / "pack", tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_large_results_come_in_pieces(data: Path, tmp_path: Path) -> None:
    run, home = tmp_path / "run", tmp_path / "home"
    assert main(["train", "diffusion", str(data), "--set", *TINY, "-o", str(run)]) == 0
    gather_results(run, {"part": "diffusion"}, piece_size=100_000)
    assert max(path.stat().st_size for path in (run / RETURN_NAME).rglob("*") if path.is_file()) <= 100_000
    shutil.copytree(run / RETURN_NAME, home)
    with pytest.raises(InputError, match="results of a pack of the part diffusion, not landmarks"):
        take_in(home, "landmarks", lambda: pytest.fail("made a task"))
    assert take_in(home, "diffusion", lambda: pytest.fail("made a task")) is None
    newest = Checkpoints(run, 1).paths()[-1].relative_to(run)
    assert (home / newest).read_bytes() == (run / newest).read_bytes()
    shutil.rmtree(home)
    shutil.copytree(run / RETURN_NAME, home)
    next((home / "checkpoints").glob("*piece-001*")).unlink()
    with pytest.raises(InputError, match="copy them all"):
        join_pieces(home)
