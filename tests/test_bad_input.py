"""What a user may get wrong, each through the command line: exit code 2, one line, nothing written."""

import json
import os
import re
import shutil
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from atldiff.cli import main
from media_files import sine, unsigned_content, write_sound, write_video

STAGES = "atldiff: loading the model\natldiff: finding the face\n"
"""What ``generate`` says on its way."""


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.fixture
def arguments(portrait: Path, word: Path, tiny_model: Path, tmp_path: Path):
    """Arguments of a run that succeeds, but for those given."""

    def build(**changed: object) -> list[str]:
        options = {"portrait": portrait, "speech": word, "output": tmp_path / "out.mp4", "model": tiny_model}
        options |= {"device": "cpu"} | changed
        return ["generate", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]

    return build


@pytest.fixture
def refused(arguments, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Runs with one thing wrong, once with and once without an earlier output."""

    def check(*words: str, **changed: object) -> None:
        for earlier in (None, b"precious"):
            if earlier is not None:
                (tmp_path / "out.mp4").write_bytes(earlier)
            before = contents(tmp_path)
            assert main(arguments(**changed)) == 2
            out, err = capfd.readouterr()
            assert out == ""
            said = err
            for stage in STAGES.splitlines(keepends=True):
                said = said.removeprefix(stage)
            assert re.fullmatch(r"atldiff: error: [^\n]+\n", said), err
            for word in words:
                assert word in err
            assert contents(tmp_path) == before

    return check


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fps": 0}, ["fps is 0", "1 to 120"]),
        ({"fps": "nan"}, ["fps is nan"]),
        ({"fps": "fast"}, ["--fps", "'fast'"]),
        ({"steps": 0}, ["steps is 0", "1 to 64"]),
        ({"steps": 2.5}, ["--steps", "'2.5'"]),
        ({"seed": -1}, ["seed is -1"]),
        ({"emotion": "hungry"}, ["unknown emotion 'hungry'", "happy", "auto"]),
        ({"device": "abacus"}, ["unknown device 'abacus'", "auto, cpu"]),
        ({"nonsense": 1}, ["--nonsense"]),
        ({"porttrait": 1}, ["--porttrait", "did you mean --portrait?"]),
        ({"emotion": "hapy"}, ["unknown emotion 'hapy'; did you mean happy?"]),
        ({"blink": "of"}, ["invalid choice: 'of'", "did you mean off?"]),
        ({"max_size": 20}, ["max_size is 20", "64 to 4096"]),
        ({"aspect": "wide"}, ["aspect is 'wide'", "9:16"]),
        ({"background": "sky"}, ["background is 'sky'", "blur or keep"]),
        ({"crf": 90}, ["crf is 90", "to 51"]),
        ({"audio_track": 2}, ["has 1 sound track, no number 2"]),
    ],
)
def test_options(refused, changed, words):
    refused(*words, **changed)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there(refused):
    refused("'cuda' is not available", device="cuda")


@pytest.mark.parametrize("missing", ["portrait", "speech"])
def test_a_missing_file(refused, tmp_path, missing):
    refused("nothing.bin does not exist", **{missing: tmp_path / "nothing.bin"})
    refused("is a folder", **{missing: tmp_path})
    (tmp_path / "empty.bin").touch()
    refused("empty.bin is empty", **{missing: tmp_path / "empty.bin"})


def test_a_text_named_as_a_picture(refused, tmp_path):
    path = tmp_path / "portrait.jpg"
    path.write_text("This is not a picture.\n" * 50)
    refused("portrait.jpg", "picture", portrait=path)


def test_a_truncated_jpeg(refused, portrait, tmp_path):
    path = tmp_path / "half.jpg"
    path.write_bytes(portrait.read_bytes()[: portrait.stat().st_size // 2])
    refused("half.jpg is damaged or incomplete", portrait=path)


def test_a_picture_without_a_face(refused, tmp_path):
    path = tmp_path / "grey.png"
    Image.new("RGB", (320, 240), (90, 110, 130)).save(path)
    refused("no face found", "320×240", portrait=path)


def test_a_face_that_is_too_small(refused, portrait, tmp_path):
    path = tmp_path / "far.png"
    canvas = Image.new("RGB", (300, 300), (128, 128, 128))
    canvas.paste(Image.open(portrait).resize((140, 140)), (80, 80))
    canvas.save(path)
    refused("the face is", "at least 48", portrait=path)


def test_several_faces(arguments, refused, portrait, tmp_path, capfd):
    astronaut = Image.open(portrait).crop((96, 0, 352, 256))
    canvas = Image.new("RGB", (512, 256), (128, 128, 128))
    canvas.paste(astronaut.resize((176, 176)), (20, 40))
    canvas.paste(astronaut, (256, 0))
    path = tmp_path / "two.png"
    canvas.save(path)
    largest, left, right = (tmp_path / f"{name}.mp4" for name in ("largest", "left", "right"))
    fast = ["--crop-only", "--steps=1", "--fps=5"]
    assert main([*arguments(portrait=path, output=largest), *fast]) == 0
    err = capfd.readouterr().err
    assert err == f"{STAGES}atldiff: 2 faces found; taking the largest (choose with --face N)\n"
    assert main([*arguments(portrait=path, output=left, face=1), *fast]) == 0
    assert main([*arguments(portrait=path, output=right, face=2), *fast]) == 0
    assert capfd.readouterr().err == 2 * STAGES
    assert unsigned_content(largest) == unsigned_content(right) != unsigned_content(left)
    refused("no face number 3", "2 faces were found", portrait=path, face=3)
    refused("face is 0; expected 1 to 1000", portrait=path, face=0)


def test_a_video_without_sound(refused, tmp_path):
    frames = np.full((10, 64, 64, 3), 128, dtype=np.uint8)
    refused("no sound", speech=write_video(tmp_path / "mute.mp4", frames))


def test_speech_that_is_no_sound(refused, portrait, tmp_path):
    (tmp_path / "text.wav").write_text("This is not a sound.\n" * 50)
    refused("text.wav", speech=tmp_path / "text.wav")
    refused("portrait.jpg", speech=portrait)


def test_sound_of_zero_length(refused, tmp_path):
    path = tmp_path / "nothing.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", "not compressed"))
    refused("nothing.wav", "zero length", speech=path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_sound_that_is_not_finite(refused, tmp_path, value):
    samples = sine(0.5, 16000)
    samples[0, 4000] = value
    path = write_sound(tmp_path / "broken.wav", samples, 16000, "pcm_f32le")
    refused("NaN or infinite sample at 0.250 s", speech=path)


def test_sound_of_zeros_is_valid(arguments, tmp_path, capfd):
    path = write_sound(tmp_path / "still.wav", np.zeros((1, 16000), dtype=np.float32), 16000)
    assert main(arguments(speech=path)) == 0
    out, err = capfd.readouterr()
    assert "1.00 s, 25 frames" in out
    warned = f"atldiff: warning: {path} is silent: the mouth will not move\n"
    assert warned in err and err.replace(warned, "") == STAGES


PARTS = ("landmark_generator", "unet", "emotion_classifier")


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_model_that_is_not_there(refused, tmp_path):
    refused("no model", "nowhere", model=tmp_path / "nowhere")
    refused("lacks model_index.json", model=tmp_path)


@pytest.mark.parametrize("part", PARTS)
def test_a_model_without_a_part(refused, model, part):
    shutil.rmtree(model / part)
    refused("lacks", part, model=model)


@pytest.mark.parametrize("part", PARTS)
def test_a_corrupt_part(refused, model, part):
    path = model / part / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(f"{part}/model.safetensors is corrupt", model=model)


@pytest.mark.parametrize("part", PARTS)
def test_a_tensor_of_the_wrong_shape(refused, model, part):
    path = model / part / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    save_file(tensors | {name: tensors[name][:-1].contiguous()}, path)
    refused(f"tensor {name} has shape", "expected", model=model)


def test_settings_that_make_no_sense(refused, model):
    index = model / "model_index.json"
    whole = json.loads(index.read_text())
    index.write_text(json.dumps(whole | {"colour": "blue"}))
    refused("model_index.json", "colour", model=model)
    index.write_text("{")
    refused("model_index.json is not valid JSON", model=model)


def test_outputs_that_cannot_be(refused, arguments, portrait, tmp_path, capfd):
    (tmp_path / "file").touch()
    refused("cannot make the folder", output=tmp_path / "file" / "out.mp4")
    refused("expected .mp4", output=tmp_path / "out.avi")
    (tmp_path / "folder.mp4").mkdir()
    refused("it is a folder", output=tmp_path / "folder.mp4")


@pytest.mark.skipif(sys.platform != "linux" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(refused, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    refused("cannot write", output=Path("/proc/out.mp4") if os.geteuid() == 0 else folder / "out.mp4")


def test_an_output_that_is_an_input(refused, tmp_path):
    frames = np.full((10, 64, 64, 3), 128, dtype=np.uint8)
    video = write_video(tmp_path / "both.mp4", frames, samples=sine(0.4, 48000))
    refused("it is the input", speech=video, output=video)
    refused("it is the input", portrait=video, output=video)
    (tmp_path / "link.mp4").symlink_to(video)
    refused("it is the input", speech=video, output=tmp_path / "link.mp4")


def test_a_fault_of_ours_is_called_one(arguments, tmp_path, capfd, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("atldiff.render.video.render_video", fail)
    assert main(arguments()) == 1
    err = capfd.readouterr().err
    said = err.removeprefix("atldiff: loading the model\n")
    assert re.fullmatch(r"atldiff: error: RuntimeError: two lines; please report this \(-v .*\)\n", said)
    assert main([*arguments(), "-v"]) == 1
    assert "Traceback" in capfd.readouterr().err
    assert contents(tmp_path) == {}
