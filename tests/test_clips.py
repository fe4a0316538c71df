"""Folders of clips: what the manifest may say, what preparing makes, what it does with bad clips."""

import csv
from pathlib import Path

import numpy as np
import pytest

from atldiff.data.clips import prepare_clips, read_frames, read_manifest
from atldiff.data.prepared import load_clips
from atldiff.errors import InputError
from atldiff.face.portrait import load_portrait
from atldiff.face.topology import interocular_distance
from atldiff.speech.waveform import Speech
from atldiff.video.writer import VideoWriter

HEADER = ["path", "corpus", "speaker", "split", "audio_lag_s"]


def write_manifest(folder: Path, rows: list[list[str]]) -> None:
    with (folder / "clips.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([HEADER, *rows])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, portrait: Path, word: Path) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    with VideoWriter(folder / "good.mp4", 512, 512, 25, Speech.open(word)) as writer:
        for _ in range(30):
            writer.write(load_portrait(portrait))
    (folder / "text.mp4").write_text("not a video")
    write_manifest(
        folder,
        [
            ["good.mp4", "made", "a", "train", "0.1"],
            ["text.mp4", "made", "b", "train", ""],
            ["gone.mp4", "made", "c", "train", "0"],
        ],
    )
    return folder


def test_good_clips_are_prepared_and_bad_ones_rejected_with_the_reason(clips: Path, tmp_path: Path) -> None:
    rows = prepare_clips(clips, tmp_path, workers=1)
    assert rows[0]["rejected"] == ""
    assert "cannot be read" in rows[1]["rejected"]
    assert "does not exist" in rows[2]["rejected"]
    (clip,) = load_clips(tmp_path, "train")
    assert clip.frames is not None
    assert clip.frames.shape == (30, 128, 128, 3)
    assert clip.landmarks.shape == (30, 68, 2)
    assert abs(len(clip.waveform) / 16000 - 1.1) < 0.03
    assert 30 < interocular_distance(clip.landmarks).mean() < 80
    before = (tmp_path / "good.npz").stat().st_mtime_ns
    prepare_clips(clips, tmp_path, workers=1)
    assert (tmp_path / "good.npz").stat().st_mtime_ns == before
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.mp4", "a/../../x.mp4", ""])
def test_paths_stay_inside_the_folder(tmp_path: Path, path: str) -> None:
    write_manifest(tmp_path, [[path, "made", "a", "train", "0"]])
    with pytest.raises(InputError, match=r"line 2: path is .*; expected a path inside the folder"):
        read_manifest(tmp_path)


def test_manifest_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no clips\.csv in"):
        read_manifest(tmp_path)
    write_manifest(tmp_path, [["x.mp4", "made", "a", "train", "soon"]])
    with pytest.raises(InputError, match="audio_lag_s is 'soon'; expected seconds"):
        read_manifest(tmp_path)
    (tmp_path / "clips.csv").write_text("path,speaker\n")
    with pytest.raises(InputError, match=r"lacks the columns \['corpus', 'split'\]"):
        read_manifest(tmp_path)


def test_sound_alone_is_no_clip(word: Path) -> None:
    with pytest.raises(InputError, match="has no picture"):
        read_frames(word)


def test_frames_are_read_whole(clips: Path) -> None:
    frames, fps = read_frames(clips / "good.mp4")
    assert frames.shape == (30, 512, 512, 3)
    assert frames.dtype == np.uint8
    assert fps == 25
