"""Prepared portraits: kept and opened again, taken wherever a portrait is, refused where they are damaged."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save

from atldiff.cli import main
from atldiff.errors import FaceError, InputError
from atldiff.face.portrait import load_portrait, prepare_portrait
from atldiff.face.prepared import PreparedPortrait, prepared

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def face(portrait: Path, detector, tmp_path_factory) -> Path:
    known = prepare_portrait(portrait, lambda: detector)
    return known.save(tmp_path_factory.mktemp("face") / "face.atl")


def no_detector():
    raise AssertionError("no face has to be found")


def test_what_is_kept_is_what_was_found(portrait, detector, face) -> None:
    known = PreparedPortrait.open(face)
    assert np.array_equal(known.picture, load_portrait(portrait))
    assert np.array_equal(known.landmarks, detector.detect(known.picture)[0])
    again = prepare_portrait(face, no_detector)
    assert np.array_equal(again.landmarks, known.landmarks)


def test_videos_are_the_same_without_a_search(tiny_pipeline, portrait, face, word, monkeypatch) -> None:
    expected = tiny_pipeline(portrait, word, fps=5).frames
    monkeypatch.setattr(tiny_pipeline, "_face_detector", no_detector)
    for given in (face, str(face), PreparedPortrait.open(face), tiny_pipeline.prepare(face)):
        assert np.array_equal(tiny_pipeline(given, word, fps=5).frames, expected)
    with tiny_pipeline.live(face) as session:
        assert (session.width, session.height) == (512, 512)
    with pytest.raises(FaceError, match="no face number 2: 1 face was found"):
        tiny_pipeline(face, word, face=2)


def test_one_of_several_faces_is_kept(portrait, detector, tmp_path) -> None:
    one = Image.open(portrait).convert("RGB")
    both = Image.new("RGB", (1024, 512))
    both.paste(one, (0, 0))
    both.paste(one, (512, 0))
    right = prepare_portrait(both, lambda: detector, 2)
    assert right.landmarks[:, 0].min() > 512
    opened = PreparedPortrait.open(right.save(tmp_path / "right.atl"))
    assert np.array_equal(opened.landmarks, right.landmarks)


def parts_of(face: Path) -> dict[str, np.ndarray]:
    known = PreparedPortrait.open(face)
    return {"picture": known.picture, "landmarks": known.landmarks}


def written(tensors: dict[str, np.ndarray], about: str = '{"version": 1}') -> bytes:
    return save(tensors, {"atldiff_face": about})


DAMAGES = {
    "cut": (lambda parts: written(parts)[:-1], "is damaged"),
    "cut in its head": (lambda parts: written(parts)[:60], "is damaged"),
    "a later version": (lambda parts: written(parts, '{"version": 2}'), "is of version 2; expected 1"),
    "no object": (lambda parts: written(parts, "[]"), "is damaged"),
    "no JSON": (lambda parts: written(parts, "{"), "is damaged"),
    "no picture": (lambda parts: written({"landmarks": parts["landmarks"]}), "is damaged"),
    "a grey picture": (lambda parts: written(parts | {"picture": parts["picture"][..., 0].copy()}), "no picture"),
    "few points": (lambda parts: written(parts | {"landmarks": parts["landmarks"][:5]}), "with a face"),
    "not finite": (
        lambda parts: written(parts | {"landmarks": parts["landmarks"] * np.float32("nan")}),
        "with a face",
    ),
    "a head that never ends": (lambda parts: struct.pack("<Q", 2**62) + written(parts)[8:], "is damaged"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_files_are_told(face, tmp_path, kind) -> None:
    damage, words = DAMAGES[kind]
    path = tmp_path / "damaged.atl"
    path.write_bytes(damage(parts_of(face)))
    with pytest.raises(InputError, match=words):
        prepare_portrait(path, no_detector)


def test_a_face_that_lies_elsewhere_is_refused(face, tmp_path) -> None:
    parts = parts_of(face)
    path = tmp_path / "moved.atl"
    path.write_bytes(written(parts | {"landmarks": parts["landmarks"] + np.float32(400)}))
    with pytest.raises(FaceError, match="beyond the picture"):
        prepare_portrait(path, no_detector)


def test_other_files_are_none(portrait, tmp_path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(save({"a": np.zeros(3)}, {"by": json.dumps("somebody")}))
    assert [prepared(each) for each in (portrait, other, tmp_path, tmp_path / "none", 5)] == 5 * [None]
    with pytest.raises(InputError, match="is something else"):
        PreparedPortrait.open(portrait)


def test_the_command_line_prepares(portrait, word, tiny_model, tmp_path, capfd) -> None:
    output = tmp_path / "face.atl"
    assert main(["prepare-portrait", str(portrait), "-o", str(output)]) == 0
    assert f"{output}: a face in 512×512 pixels" in capfd.readouterr().out
    model = ["--model", str(tiny_model), "--device", "cpu"]
    video = ["--speech", str(word), "-o", str(tmp_path / "out.mp4")]
    assert main(["generate", "--portrait", str(output), *video, *model]) == 0
    assert main(["prepare-portrait", str(portrait), "-o", str(tmp_path / "face.png")]) == 2
    assert main(["prepare-portrait", str(word), "-o", str(output)]) == 2
    assert "expected .atl" in capfd.readouterr().err
    assert prepared(output) is not None
