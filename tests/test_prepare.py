"""Preparing clips: verdicts, resuming, determinism, the format as others read it."""

import csv
import dataclasses
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet
import pytest

from atldiff.cli import main
from atldiff.data.findings import (
    Findings,
    Tools,
    WantedClip,
    findings_path,
    kept_findings,
    make_findings,
    read_findings,
)
from atldiff.data.index import open_index
from atldiff.data.media_source import MediaSource, SourceClip
from atldiff.data.prepare import PrepareReport, prepare
from atldiff.data.prepared import PreparedClips
from atldiff.data.shards import write_shards
from atldiff.data.sync import LagMeter, SyncMeter
from atldiff.data.tracking import Footage, fill_gaps, read_frames
from atldiff.errors import InputError, OutputError
from atldiff.face.detection import FaceDetector
from atldiff.face.portrait import load_portrait
from atldiff.face.topology import interocular_distance
from atldiff.speech.waveform import SAMPLE_RATE, read_waveform
from media_files import burst, burst_time, sine, write_video

DATA = os.environ.get("ATLDIFF_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="ATLDIFF_DATA names no folder of real clips")
FRAMES = 12


def moving(picture: np.ndarray, frames: int = FRAMES) -> np.ndarray:
    """(F, 256, 256, 3): a picture that is shifted from frame to frame."""
    return np.stack([np.roll(picture, index % 4, axis=1) for index in range(frames)])


@pytest.fixture(scope="module")
def face(portrait: Path) -> np.ndarray:
    """The astronaut, (256, 256, 3)."""
    return load_portrait(portrait)[::2, ::2]


@pytest.fixture(scope="module")
def tools(detector: FaceDetector) -> Tools:
    return Tools(detector, LagMeter(), SyncMeter.from_package())


def wanted_clip(path: Path, sound: Path | None = None) -> WantedClip:
    media = MediaSource(path)
    clip = SourceClip("made/a/clip", "made", "a", "", "", "train", media, MediaSource(sound or path), None)
    return WantedClip(clip, path.parent, path.parent / "out", 256, Fraction(25))


def verdict(path: Path, tools: Tools, kind: str = "rejected") -> str:
    wanted = wanted_clip(path)
    make_findings(wanted, tools)
    return read_findings(wanted.findings_path).row[kind]


def test_a_clip_without_fault_keeps_its_face_and_sound(tmp_path: Path, face: np.ndarray, tools: Tools) -> None:
    path = write_video(tmp_path / "a.mp4", moving(face), samples=burst(0.48, 48_000, 0.2))
    wanted = wanted_clip(path)
    make_findings(wanted, tools)
    found = read_findings(wanted.findings_path)
    assert found.row["rejected"] == ""
    assert found.row["source"] == "a.mp4"
    assert (found.row["frames"], found.row["duration_s"]) == (FRAMES, 0.48)
    assert found.landmarks.shape == (FRAMES, 68, 2)
    assert 80 < np.median(interocular_distance(found.landmarks)) < 120
    assert abs(burst_time(found.sound / 32767, SAMPLE_RATE) - 0.2) < 0.005


def test_each_fault_is_told(tmp_path: Path, face: np.ndarray, tools: Tools) -> None:
    grey = np.full_like(face, 128)
    other = np.roll(face, 12, axis=1) // 2
    small = grey.copy()
    small[80:190, 80:190] = resized(face, 110)
    sound = sine(0.48, 48_000)

    def made(name: str, frames: np.ndarray, samples: np.ndarray | None = sound) -> str:
        return verdict(write_video(tmp_path / f"{name}.mp4", frames, samples=samples), tools)

    assert made("grey", moving(grey)) == f"no face: in {FRAMES} of {FRAMES} frames"
    assert made("blink", np.concatenate([moving(face, 9), moving(grey, 3)])).startswith("no face: in 3 of 12")
    assert made("two", moving(np.concatenate([face, face], axis=1))).startswith("more than one face: ")
    assert made("small", moving(small)).startswith("face too small: ")
    assert made("cut", np.concatenate([moving(face, 6), moving(other, 6)])) == "a cut: the picture jumps at 0.24 s"
    assert made("short", moving(face, 5), sine(0.2, 48_000)) == "too short: 5 frames, expected at least 8"
    (tmp_path / "text.mp4").write_text("not a video")
    assert verdict(tmp_path / "text.mp4", tools).startswith("cannot be read: text.mp4 ")
    assert verdict(tmp_path / "gone.mp4", tools).startswith("cannot be read: gone.mp4 does not exist")


def test_a_clip_whose_sound_cannot_be_used_keeps_its_picture(tmp_path: Path, face: np.ndarray, tools: Tools) -> None:
    sound, silence = sine(0.48, 48_000), np.zeros((1, 23_040), np.float32)
    hiss = np.random.default_rng(0).normal(0, 2e-4, silence.shape).astype(np.float32)

    def unheard(name: str, samples: np.ndarray | None) -> str:
        path = write_video(tmp_path / f"{name}.mp4", moving(face), samples=samples)
        reason = verdict(path, tools, "unheard")
        found = read_findings(wanted_clip(path).findings_path)
        assert found.row["rejected"] == ""
        assert (found.row["frames"], len(found.landmarks), bool(found.video)) == (FRAMES, FRAMES, True)
        assert (len(found.sound) == 0) == (found.lag is None) == (found.sync is None) == bool(reason)
        return reason

    assert unheard("still", silence) == "silent: -90 dB of full scale where it is loudest, expected at least -60"
    assert unheard("hiss", silence + hiss).startswith("silent: -7")
    assert unheard("late", np.append(silence, sound, axis=1)).startswith("silent: ")
    assert unheard("quiet", sound / 200) == ""
    assert unheard("mute", None) == (
        "cannot be read: mute.mp4 has no sound track; expected a sound file or a video with sound"
    )


def resized(picture: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def test_sound_that_ends_early_ends_the_clip(tmp_path: Path, face: np.ndarray, tools: Tools) -> None:
    path = write_video(tmp_path / "a.mp4", moving(face, 20), samples=sine(0.4, 48_000))
    wanted = wanted_clip(path)
    make_findings(wanted, tools)
    found = read_findings(wanted.findings_path)
    assert found.row["frames"] == len(found.landmarks) == 10


@needs_data
def test_real_clips_pass_and_joined_ones_do_not(tmp_path: Path, tools: Tools) -> None:
    data = Path(DATA or "")
    first, second = sorted((data / "lrwar").glob("*/*.mp4"))[:: len(list((data / "lrwar").glob("*/*.mp4"))) - 1]
    for index, clip in enumerate((first, second)):
        shutil.copy(clip, tmp_path / f"{index}.mp4")
        assert verdict(tmp_path / f"{index}.mp4", tools) == ""
    joined = np.concatenate([read_frames(first)[0][:15], read_frames(second)[0][:15]])
    path = write_video(tmp_path / "joined.mp4", joined, samples=sine(1.2, 48_000))
    assert verdict(path, tools).startswith(("a cut: the picture jumps at 0.60 s", "no face"))


@needs_data
def test_lips_that_move_to_other_words_are_told(tmp_path: Path) -> None:
    """Two sentences of GRID, and the picture of one with the sound of the other."""
    first, second = sorted((Path(DATA or "") / "grid" / "s1").glob("*.mp4"))[:2]
    source = tmp_path / "source" / "s1"
    source.mkdir(parents=True)
    shutil.copy(first, source / "first.mp4")
    shutil.copy(second, source / "second.mp4")
    write_video(source / "swapped.mp4", read_frames(first)[0], samples=read_waveform(second)[None], rate=16_000)
    (source.parent / "clips.csv").write_text("path,audio_lag_s\ns1/first.mp4,0\ns1/second.mp4,0\ns1/swapped.mp4,0\n")
    report = prepare("clips", tmp_path / "source", tmp_path / "out", workers=2)
    assert (report.usable, report.unheard) == (3, {"lips unrelated to the sound": 1})
    prepared = PreparedClips.open(report.folder)
    assert [clip.info.key[-6:] for clip in prepared.split("train", heard=True)] == ["/first", "second"]
    swapped = next(clip for clip in prepared.clips if not clip.info.heard)
    assert len(swapped.frames()) == len(swapped.landmarks()) == swapped.info.frames
    assert not swapped.has("sound")
    with pytest.raises(InputError, match=r"swapped in .* has no sound"):
        swapped.waveform()


def test_frames_are_chosen_by_time(tmp_path: Path) -> None:
    levels = np.arange(30, dtype=np.uint8) * 8
    frames = np.broadcast_to(levels[:, None, None, None], (30, 64, 64, 3))
    footage = Footage.open(write_video(tmp_path / "a.mp4", frames, fps=30))
    assert len(footage) == 30
    assert len(footage.at(Fraction(25))) == 25
    for rate in (Fraction(25), Fraction(30), Fraction(60), Fraction(24000, 1001)):
        chosen = footage.at(rate)
        shown = np.array([picture.mean() for picture in chosen]) / 8
        wanted = np.arange(len(chosen)) / float(rate) * 30
        assert np.abs(shown - wanted).max() < 0.7
    assert list(footage[::10].chosen) == [0, 10, 20]


def test_frames_are_read_whole_and_upright(tmp_path: Path, face: np.ndarray) -> None:
    frames, fps = read_frames(write_video(tmp_path / "a.mp4", moving(face[:128])))
    assert (frames.shape, frames.dtype, fps) == ((FRAMES, 128, 256, 3), np.uint8, 25)
    turned, _ = read_frames(write_video(tmp_path / "b.mp4", moving(face[:128]), rotation=90))
    assert turned.shape == (FRAMES, 256, 128, 3)


def test_sound_alone_is_no_clip(word: Path) -> None:
    with pytest.raises(InputError, match="has no picture"):
        read_frames(word)


def test_gaps_are_filled_in_a_straight_line() -> None:
    landmarks = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((5, 68, 2), np.float32)
    holed = landmarks.copy()
    holed[[0, 2, 3]] = np.nan
    assert np.allclose(fill_gaps(holed)[1:], landmarks[1:])
    assert np.allclose(fill_gaps(holed)[0], landmarks[1])


def test_shards_are_split_by_size_and_old_ones_removed(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "train-000009.tar").write_bytes(b"old")
    long = "c" * 120
    clips = [
        ({"key": f"a/b/{name}", "split": split}, {"landmarks": b"l" * 700, "sound": b"s" * 10, "video": b"v" * 3000})
        for name, split in (("a", "train"), ("b", "train"), (long, "train"), ("d", "val"))
    ]
    rows = write_shards(tmp_path, clips, shard_bytes=14_000)
    assert [row["shard"] for row in rows] == ["train-000000.tar"] * 2 + ["train-000001.tar", "val-000000.tar"]
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {row["shard"] for row in rows}
    for row, (_, members) in zip(rows, clips, strict=True):
        content = (tmp_path / "shards" / row["shard"]).read_bytes()
        for member, expected in members.items():
            assert content[row[f"{member}_offset"] :][: row[f"{member}_size"]] == expected
    with tarfile.open(tmp_path / "shards" / "train-000001.tar") as archive:
        assert archive.getnames()[0] == f"a/b/{long}.json"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, face: np.ndarray) -> Path:
    """Clips of two people, one of them with sound that trails by 0.1 s as stated, and one that is no video."""
    folder = tmp_path_factory.mktemp("tree")
    rows = [["path", "corpus", "speaker", "split", "audio_lag_s"]]
    for index in range(4):
        frames = moving(np.roll(face, index, axis=0))
        write_video(folder / f"{index}.mp4", frames, samples=burst(0.48, 48_000, 0.2))
        rows.append([f"{index}.mp4", "made", "ab"[index // 2], ("train", "val")[index // 2], "0.1"])
    (folder / "text.mp4").write_text("not a video")
    rows.append(["text.mp4", "made", "b", "val", "0.1"])
    with (folder / "clips.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareReport]:
    folder = tmp_path_factory.mktemp("prepared") / "whole"
    return folder, prepare("clips", tree, folder, workers=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_report_counts(undisturbed: tuple[Path, PrepareReport]) -> None:
    folder, report = undisturbed
    assert (report.processed, report.clips, report.usable, report.speakers) == (5, 5, 4, 2)
    assert report.rejected == {"cannot be read": 1}
    assert abs(report.hours - 4 * 0.48 / 3600) < 1e-9
    assert report.lags["made"].stated_s == 0.1
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "clips.parquet", "shards"]
    card = (folder / "README.md").read_text()
    assert "4 usable clips of 5" in card
    assert "| cannot be read | 1 |" in card
    assert "The sound of made was moved" in card
    assert "| 3 | contempt | 0 |" in card
    assert "single files" not in card


def test_the_reader_gives_what_was_prepared(undisturbed: tuple[Path, PrepareReport], face: np.ndarray) -> None:
    clips = PreparedClips.open(undisturbed[0])
    assert [clip.info.key for clip in clips.clips] == ["made/a/0", "made/a/1", "made/b/2", "made/b/3"]
    ((key, reason),) = clips.rejected
    assert key == "made/b/text"
    assert reason.startswith("cannot be read: text.mp4 ")
    clip = clips.split("val")[0]
    assert clip.landmarks().shape == (FRAMES, 68, 2)
    assert clip.frames(3, 5).shape == (5, 256, 256, 3)
    assert clip.info.emotion_id is None
    waveform = clip.waveform()
    assert len(waveform) == round(FRAMES / 25 * SAMPLE_RATE)
    assert abs(burst_time(waveform, SAMPLE_RATE) - 0.1) < 0.005


def test_others_read_it_with_tarfile_and_pyarrow(undisturbed: tuple[Path, PrepareReport]) -> None:
    folder, _ = undisturbed
    rows = pyarrow.parquet.read_table(folder / "clips.parquet").to_pylist()
    usable = [row for row in rows if not row["rejected"]]
    for row in usable:
        with tarfile.open(folder / "shards" / row["shard"]) as archive:
            members = {member.name: member for member in archive if member.name.startswith(row["key"] + ".")}
            assert {member.mtime for member in members.values()} == {0}
            contents = {name: (archive.extractfile(name) or io.BytesIO()).read() for name in members}
        extensions = {"landmarks": "landmarks.npz", "sound": "flac", "video": "mp4"}
        for name, extension in extensions.items():
            member = members[f"{row['key']}.{extension}"]
            assert (member.offset_data, member.size) == (row[f"{name}_offset"], row[f"{name}_size"])
        described = json.loads(contents[f"{row['key']}.json"])
        assert described == {name: row[name] for name in described}
        assert np.load(io.BytesIO(contents[f"{row['key']}.landmarks.npz"]))["landmarks"].shape == (FRAMES, 68, 2)
        with av.open(io.BytesIO(contents[f"{row['key']}.mp4"]), "r") as container:
            assert len(list(container.decode(video=0))) == row["frames"] == FRAMES
    assert {row["emotion"] for row in rows} == {""}


def test_a_complete_folder_is_left_alone(tree: Path, undisturbed: tuple[Path, PrepareReport]) -> None:
    folder, report = undisturbed
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = prepare("clips", tree, folder, workers=1)
    assert again.processed is None
    assert dataclasses.replace(again, processed=report.processed) == report
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_is_lost_of_a_finished_folder_is_made_again(
    tree: Path, undisturbed: tuple[Path, PrepareReport], tmp_path: Path
) -> None:
    """One shard is gone, the other is cut short in its second clip and damaged in its first."""
    folder = shutil.copytree(undisturbed[0], tmp_path / "prepared")
    first, second = PreparedClips.open(folder).split("train")
    (folder / "shards" / "val-000000.tar").unlink()
    shard = folder / "shards" / first.info.shard
    overwrite(shard, *first.info.members["video"])
    os.truncate(shard, sum(second.info.members["video"]) - 1)
    assert prepare("clips", tree, folder, workers=1).processed == 4  # the file that is no video is tried again, too
    assert contents(folder) == contents(undisturbed[0])


def overwrite(path: Path, offset: int, size: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(bytes(size))


def test_a_known_clip_is_kept_if_it_and_its_sound_can_be_read(
    tree: Path, undisturbed: tuple[Path, PrepareReport], tmp_path: Path, tools: Tools
) -> None:
    source = shutil.copytree(tree, tmp_path / "source")
    rows, _ = open_index(shutil.copytree(undisturbed[0], source / "out"))
    known = next(row for row in rows if row["key"] == "made/a/1")
    shard = source / "out" / "shards" / known["shard"]
    wanted = dataclasses.replace(wanted_clip(source / "1.mp4"), known=known)

    def made() -> Findings:
        make_findings(wanted, tools)
        return read_findings(wanted.findings_path)

    kept = made()
    assert kept.row["rejected"] == ""
    for member in ("video", "landmarks"):
        overwrite(shard, known[f"{member}_offset"], known[f"{member}_size"])
        again = made()
        assert again.video == kept.video
        assert np.array_equal(again.landmarks, kept.landmarks)
        shutil.copy(undisturbed[0] / "shards" / known["shard"], shard)
    (source / "1.mp4").write_text("no longer a video")
    assert made().row["unheard"].startswith("cannot be read: 1.mp4 ")
    write_video(source / "1.mp4", np.zeros((FRAMES, 64, 64, 3), np.uint8), samples=np.zeros((1, 23_040), np.float32))
    assert made().row["unheard"].startswith("silent: ")
    assert made().video == kept.video


def test_a_lag_that_leaves_no_sound_makes_a_clip_silent(tree: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(tree / "0.mp4", source)
    shutil.copy(tree / "1.mp4", source)
    (source / "clips.csv").write_text("path,audio_lag_s\n0.mp4,-1\n1.mp4,0\n")
    report = prepare("clips", source, tmp_path / "prepared", workers=1)
    assert report.unheard == {"silent": 1}
    assert report.usable == 2


def test_flat_files_are_told_and_may_not_take_the_name_of_known_ones(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = tmp_path / "flat", tmp_path / "prepared"
    source.mkdir()
    shutil.copy(tree / "0.mp4", source / "a.mp4")
    shutil.copy(tree / "1.mp4", source / "b.mp4")
    for _ in range(2):
        assert main(["prepare", "clips", str(source), str(folder), "--workers", "1"]) == 0
        said = capsys.readouterr().out
        assert "2 (2 of them single files directly in SRC" in said
        assert "clip by clip; estimated" in said
        assert "without sound  2 (2 lag not clear)" in said
    card = (folder / "README.md").read_text()
    assert "**2 of the speakers are single files**" in card
    assert "| lag not clear | 2 |" in card
    shutil.copy(tree / "2.mp4", source / "a.mov")
    with pytest.raises(InputError, match=r"holds the clip flat/a/a, and now .*/flat/a\.mov and .*/flat/a\.mp4;"):
        prepare("clips", source, folder, workers=1)
    (source / "a.mp4").unlink()
    assert prepare("clips", source, folder, workers=1).processed == 1, "a.mov is another clip than a.mp4 was"


def test_output_that_nobody_reads_ends_quietly(tree: Path, undisturbed: tuple[Path, PrepareReport]) -> None:
    command = [sys.executable, "-m", "atldiff.cli", "prepare", "clips", str(tree), str(undisturbed[0])]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_the_command_line_tells_what_is_there(
    tree: Path, undisturbed: tuple[Path, PrepareReport], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = undisturbed
    assert main(["prepare", "clips", str(tree), str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{folder} is complete: nothing to do"
    assert lines[1].split() == ["clips", "5"]
    assert lines[3].split() == ["without", "sound", "0"]
    assert lines[4].split(maxsplit=1) == ["rejected", "1 (1 cannot be read)"]
    assert lines[7].split(maxsplit=3)[:3] == ["lag", "of", "made"]
    assert lines[7].split(maxsplit=3)[3].startswith("+0.100 s as stated; estimated ")
    assert main(["prepare", "clips", str(tree / "text.mp4"), str(folder)]) == 2


def test_an_unwritable_destination_is_told(tree: Path, portrait: Path) -> None:
    with pytest.raises(OutputError, match="cannot write to"):
        prepare("clips", tree, portrait / "x")


def test_what_does_not_go_together_is_refused(
    tree: Path, undisturbed: tuple[Path, PrepareReport], tmp_path: Path
) -> None:
    folder, _ = undisturbed
    with pytest.raises(InputError, match=r"was begun with size 256, now 64; expected the same"):
        prepare("clips", tree, folder, size=64)
    with pytest.raises(InputError, match=r"was begun with fps 25\.0, now 30\.0"):
        prepare("clips", tree, folder, fps=30)
    with pytest.raises(InputError, match=r"holds 3 clips that are not among the 2 to prepare, for example made/"):
        prepare("clips", tree, folder, limit=2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("")
    with pytest.raises(InputError, match="holds other files"):
        prepare("clips", tree, tmp_path / "full")
    (tmp_path / "link").symlink_to(tree)
    for inside in (tree, tree / "prepared", tmp_path / "link", tmp_path / "link" / "a" / ".." / "prepared"):
        with pytest.raises(InputError, match=r"is the source folder .* or lies in it"):
            prepare("clips", tree, inside)
    with pytest.raises(InputError, match="size is 100; expected a multiple of 16"):
        prepare("clips", tree, tmp_path / "x", size=100)
    with pytest.raises(InputError, match="workers is 0"):
        prepare("clips", tree, tmp_path / "x", workers=0)
    assert not (tmp_path / "x").exists()


def test_killed_and_run_again_gives_the_same_bytes(
    tree: Path, undisturbed: tuple[Path, PrepareReport], tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "atldiff.cli", "prepare", "clips", str(tree), str(folder), "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(kept_findings(folder)) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    made = {
        findings_path(folder, key): findings_path(folder, key).stat().st_mtime_ns for key in kept_findings(folder)
    }
    assert 2 <= len(made) < 5
    time.sleep(1)
    assert len(kept_findings(folder)) <= len(made) + 1, "the worker must end with its parent"
    made = {
        findings_path(folder, key): findings_path(folder, key).stat().st_mtime_ns for key in kept_findings(folder)
    }
    (folder / ".parts" / "made" / ".half.npz.abc").write_bytes(b"half")
    seen = []

    def look(done: int, total: int) -> None:
        seen.append((done, total))
        assert {path: path.stat().st_mtime_ns for path in made} == made

    report = prepare("clips", tree, folder, workers=1, progress=look)
    assert report.processed == 5 - len(made)
    assert seen == [(done, 5) for done in range(len(made) + 1, 6)]
    assert contents(folder) == contents(undisturbed[0])


def test_what_is_added_later_joins_even_through_trouble(
    tree: Path, undisturbed: tuple[Path, PrepareReport], tmp_path: Path
) -> None:
    source, folder = tmp_path / "source", tmp_path / "grown"
    shutil.copytree(tree, source)
    lines = (source / "clips.csv").read_text().splitlines(keepends=True)
    (source / "clips.csv").write_text("".join(lines[:3]))
    assert prepare("clips", source, folder, workers=1).processed == 2
    (source / "clips.csv").write_text("".join(lines))

    def kill_worker(done: int, total: int) -> None:
        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, signal.SIGKILL)

    with pytest.raises(InputError, match=r"a worker process died at made/.*run again with fewer"):
        prepare("clips", source, folder, workers=1, progress=kill_worker)

    def fill_disk(done: int, total: int) -> None:
        if done == total:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OutputError, match=f"cannot write to {folder}: File too large; what is made is kept"):
            prepare("clips", source, folder, workers=1, progress=fill_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((folder / "shards").glob(".*"))
    assert prepare("clips", source, folder, workers=1).usable == 4
    assert contents(folder) == contents(undisturbed[0])
