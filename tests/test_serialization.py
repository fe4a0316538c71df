"""Model folders: what is written is read back, what is broken is named."""

import contextlib
import json
import multiprocessing
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from atldiff.data.workplace import workplace
from atldiff.errors import InputError, ModelError
from atldiff.models.registry import (
    DISTILLED_ENCODER,
    EMOTION_CLASSIFIER,
    IMAGE_NETWORKS,
    LANDMARK_GENERATORS,
    ImageKind,
    LandmarkKind,
)
from atldiff.pipeline import ATLDiffPipeline
from atldiff.processes.locks import hold_lock
from atldiff.storage.files import read_json, write_atomically
from atldiff.storage.parts import check_model_folder, load_checkpoint, load_config, load_part, load_weights, save_part
from atldiff.training.engine.checkpoint import Checkpoints


@dataclass(frozen=True)
class Settings:
    size: int = 4
    widths: tuple[int, ...] = (1, 2)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_part(tmp_path / "part", nn.Linear(4, 3), Settings())
    return tmp_path / "part"


def test_round_trip(part: Path) -> None:
    torch.manual_seed(0)
    original, copy = nn.Linear(4, 3), nn.Linear(4, 3)
    load_weights(part, copy)
    assert load_config(part, Settings) == Settings()
    assert torch.allclose(copy.weight, original.weight, atol=1e-3)


def test_missing_files_are_named(part: Path) -> None:
    (part / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks part/model\.safetensors"):
        load_weights(part, nn.Linear(4, 3))
    with pytest.raises(ModelError, match=r"lacks absent\.json"):
        read_json(part / "absent.json")


def test_wrong_shape_names_the_tensor_and_both_shapes(part: Path) -> None:
    with pytest.raises(ModelError, match=r"tensor \w+ has shape \(3(, 4)?,?\), expected \(5(, 4)?,?\)"):
        load_weights(part, nn.Linear(4, 5))


def test_foreign_and_missing_tensors_are_named(part: Path) -> None:
    save_file({"other": torch.zeros(1)}, part / "model.safetensors")
    with pytest.raises(ModelError, match=r"missing \['bias', 'weight'\], unknown \['other'\]"):
        load_weights(part, nn.Linear(4, 3))


def test_corrupt_weights(part: Path) -> None:
    path = part / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ModelError, match="is corrupt"):
        load_weights(part, nn.Linear(4, 3))


def test_values_that_are_not_finite(part: Path) -> None:
    save_file({"weight": torch.full((3, 4), float("nan")), "bias": torch.zeros(3)}, part / "model.safetensors")
    with pytest.raises(ModelError, match="tensor weight holds values that are not finite"):
        load_weights(part, nn.Linear(4, 3))


@pytest.mark.parametrize("text", ["{", "[]", '{"size": 1, "colour": 2}'])
def test_broken_configuration(part: Path, text: str) -> None:
    (part / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_config(part, Settings)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")
    with pytest.raises(TypeError):
        write_atomically(target, "no bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@dataclass(frozen=True)
class LayerConfig:
    inputs: int = 4
    outputs: int = 3
    scale: float = 1.0
    name: str = "layer"
    biased: bool = True
    widths: tuple[int, ...] = (1,)


def layer(config: LayerConfig) -> nn.Linear:
    return nn.Linear(config.inputs, config.outputs, config.biased)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outputs": 10**9}, "outputs is 1000000000; expected a sane int"),
        ({"outputs": 10**6}, r"has shape \(3,\), expected \(1000000,\)|has shape \(3, 4\), expected \(1000000, 4\)"),
        ({"outputs": -3}, "describes no network"),
        ({"outputs": 3.0}, "outputs is 3.0; expected a sane int"),
        ({"outputs": True}, "outputs is True; expected a sane int"),
        ({"outputs": None}, "outputs is None; expected a sane int"),
        ({"outputs": [3]}, r"outputs is \[3\]; expected a sane int"),
        ({"scale": float("nan")}, "scale is nan; expected a sane float"),
        ({"scale": float("-inf")}, "scale is -inf"),
        ({"scale": "1"}, "scale is '1'"),
        ({"name": 1}, "name is 1; expected a sane str"),
        ({"name": "x" * 5000}, "name is .* expected a sane str"),
        ({"biased": 1}, "biased is 1; expected a sane bool"),
        ({"widths": [1] * 1000}, "widths is"),
        ({"widths": [1, "2"]}, "widths is"),
        ({"widths": {"a": 1}}, "widths is"),
        ({"surprise": 1}, "it has 'surprise', which is unknown"),
    ],
)
def test_tampered_configurations_are_refused_in_one_line(tmp_path: Path, change: dict, words: str) -> None:
    save_part(tmp_path, nn.Linear(4, 3), LayerConfig())
    (tmp_path / "config.json").write_text(json.dumps(asdict(LayerConfig()) | change))
    with pytest.raises(ModelError, match=words) as told:
        load_part(tmp_path, layer, LayerConfig)
    assert len(str(told.value).splitlines()) == 1
    assert len(str(told.value)) < 400


def test_no_memory_is_taken_for_a_network_that_the_weights_are_not_of(tmp_path: Path) -> None:
    """400 GB, if it were made."""
    save_part(tmp_path, nn.Linear(4, 3), LayerConfig())
    (tmp_path / "config.json").write_text(json.dumps({"inputs": 10**6, "outputs": 10**5}))
    with pytest.raises(ModelError, match="has shape"):
        load_part(tmp_path, layer, LayerConfig)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a": ' + "9" * 10**4 + "}", " " * 2**21, '"\xff"', "NaN"])
def test_json_that_is_none_or_too_much(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError) as told:
        load_config(tmp_path, LayerConfig)
    assert len(str(told.value)) < 400


def test_tensors_of_another_type_and_pickles(tmp_path: Path) -> None:
    save_part(tmp_path, nn.Linear(4, 3), LayerConfig())
    weights = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(3, 4, dtype=torch.int8), "bias": torch.zeros(3)}, weights)
    with pytest.raises(ModelError, match="tensor weight is of type I8, expected fractions"):
        load_part(tmp_path, layer, LayerConfig)
    for is_zipped in (True, False):
        torch.save(nn.Linear(4, 3).state_dict(), weights, _use_new_zipfile_serialization=is_zipped)
        with pytest.raises(ModelError, match="is a pickle, which could run code"):
            load_part(tmp_path, layer, LayerConfig)
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(0x280).encode()
    weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ModelError, match="does not fit"):
        load_part(tmp_path, layer, LayerConfig)
    weights.write_bytes((10**7).to_bytes(8, "little") + b"{" * 100)
    with pytest.raises(ModelError, match="is corrupt"):
        load_part(tmp_path, layer, LayerConfig)


def test_every_network_can_be_described_without_memory() -> None:
    for kind in (*IMAGE_NETWORKS.values(), *LANDMARK_GENERATORS.values(), DISTILLED_ENCODER, EMOTION_CLASSIFIER):
        with torch.device("meta"):
            state = kind.network(kind.config()).state_dict()
        assert state
        if isinstance(kind, ImageKind | LandmarkKind):
            assert sum(tensor.numel() for tensor in state.values()) > 10**5


@pytest.mark.skipif(os.name == "nt", reason="needs links and pipes")
def test_a_model_folder_holds_files_of_its_own_alone(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "inside").symlink_to(folder / "model_index.json")
    check_model_folder(folder)
    (folder / "notes.md").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match=r"notes\.md is a link that leads out of the model folder"):
        ATLDiffPipeline.from_pretrained(folder, "cpu")
    (folder / "notes.md").unlink()
    os.mkfifo(folder / "notes.md")
    with pytest.raises(ModelError, match=r"notes\.md is neither a file nor a folder"):
        ATLDiffPipeline.from_pretrained(folder, "cpu")


class Code:
    def __reduce__(self) -> tuple:
        return os.system, ("echo this must never be run",)


def test_checkpoints_that_are_none_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.pt"
    torch.save({"step": 1, "code": Code()}, path)
    with pytest.raises(ModelError, match=r"is refused: besides weights and plain values it holds \S*system"):
        load_checkpoint(path)
    torch.save({"step": 1, "weight": torch.zeros(1000)}, path)
    assert load_checkpoint(path)["step"] == 1
    whole = path.read_bytes()
    for content in (b"", b"x", whole[:500], whole[:-30], b"\x80\x02}.", b"\x80\x02" + b"(" * 1000, whole[:200] * 9):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="checkpoint") as told:
            load_checkpoint(path)
        assert len(str(told.value)) < 400
    dice = random.Random(0)
    for _ in range(100):
        mutated = bytearray(whole)
        for _ in range(3):
            mutated[dice.randrange(len(mutated))] = dice.randrange(256)
        path.write_bytes(mutated)
        with contextlib.suppress(ModelError):
            load_checkpoint(path)
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(10**7))
    with pytest.raises(ModelError, match="is compressed"):
        load_checkpoint(bomb)


def test_states_are_kept_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (999_998, 999_999, 1_000_000, 1_000_001):
        checkpoints.save({"step": step})
    assert [path.stem for path in checkpoints.paths()] == ["step-1000000", "step-1000001"]
    latest = checkpoints.latest()
    assert latest is not None
    assert latest["step"] == 1_000_001
    checkpoints.paths()[-1].with_name("step-notes.pt").write_text("mine")
    assert len(checkpoints.paths()) == 2


def test_a_state_is_on_the_disk_before_an_older_one_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    flush, unlink = os.fsync, Path.unlink
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("fsync"), flush(handle)))
    monkeypatch.setattr(Path, "unlink", lambda path, **more: (done.append("unlink"), unlink(path, **more)))
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in range(2):
        checkpoints.save({"step": step})
    assert done[-1] == "unlink"
    assert done[:-1] and set(done[:-1]) == {"fsync"}


def test_a_folder_is_locked_until_its_parts_are_put_aside(tmp_path: Path) -> None:
    """One who opened the lock before, and comes to it after, finds that it is another's."""
    with workplace(tmp_path, {}):
        handle = os.open(tmp_path / ".parts" / ".lock", os.O_RDWR)
        with pytest.raises(InputError, match="another process is preparing"), workplace(tmp_path, {}):
            pass
    os.close(handle)
    assert not (tmp_path / ".parts").exists()
    with workplace(tmp_path, {}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_holder_alone(tmp_path: Path) -> None:
    """A process that was begun meanwhile and lives on does not keep it."""
    lock = tmp_path / "lock"
    with hold_lock(lock, "it is in use", "expected patience"):
        other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        other.start()
        with (
            pytest.raises(InputError, match=rf"it is in use \({os.getpid()} on .*\); expected patience"),
            hold_lock(lock, "it is in use", "expected patience"),
        ):
            pass
    try:
        with subprocess.Popen([sys.executable, "-c", _HOLD, str(lock)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(InputError, match=str(process.pid)), hold_lock(lock, "it is in use", ""):
                pass
            process.kill()
        with hold_lock(lock, "it is in use", ""):
            assert lock.read_text().startswith(f"{os.getpid()} on ")
    finally:
        other.kill()
        other.join()


_HOLD = """
import sys, time
from pathlib import Path
from atldiff.processes.locks import hold_lock
with hold_lock(Path(sys.argv[1]), "", ""):
    print("held", flush=True)
    time.sleep(60)
"""
