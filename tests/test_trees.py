"""The published trees, imitated from real clips: from the files as they are distributed to the report on a model.

Containers, codecs, frame rates, names and folders are those of MEAD, CREMA-D and GRID; the people are others. MEAD's
pictures are smaller than its 1920×1080.
"""

import csv
import json
import math
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet
import pytest
import torch
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from atldiff.cli import main
from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.data.tracking import read_frames
from atldiff.evaluation.metrics import psnr
from atldiff.evaluation.protocol import ROWS
from atldiff.face.crop import PICTURE_SIZE, FaceCrop
from atldiff.face.detection import FaceDetector
from atldiff.face.topology import interocular_distance
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech.waveform import SAMPLE_RATE, read_waveform
from atldiff.storage.parts import WEIGHTS_FOLDER, load_config
from media_files import write_sound
from prepared_files import judged_by_little

torch.set_num_threads(1)

DATA = Path(os.environ.get("ATLDIFF_DATA", ""))
pytestmark = pytest.mark.skipif("ATLDIFF_DATA" not in os.environ, reason="needs real clips: set ATLDIFF_DATA")

FPS = 25
FRAMES = 18
SMALL_LANDMARKS = ["steps=3", "clips=2", "frames=12", "warmup=1", "report_every=3"]
SMALL_LANDMARKS += ["model.channels=16", "model.dilations=1,2"]
SMALL_DIFFUSION = ["steps=2", "clips=2", "frames=2", "crop=16", "warmup=1", "report_every=2"]
SMALL_DIFFUSION += ["model.channels=8,16"]


@dataclass(frozen=True)
class Take:
    """A piece of a real clip: ``frames`` (FRAMES, H, W, 3) uint8 at 25 fps, its ``sound`` (samples,) at 16 kHz."""

    frames: np.ndarray
    sound: np.ndarray

    @classmethod
    def cut(cls, path: str, first: int, canvas: tuple[int, int]) -> "Take":
        """From frame ``first`` on, fitted into a grey canvas of (width, height)."""
        frames, _ = read_frames(DATA / path)
        begin, length = first * SAMPLE_RATE // FPS, FRAMES * SAMPLE_RATE // FPS
        sound = read_waveform(DATA / path)[begin : begin + length]
        return cls(np.stack([_fitted(frame, canvas) for frame in frames[first : first + FRAMES]]), sound)

    def write_picture(
        self, path: Path, codec: str, fps: Fraction, bit_rate: int = 4_000_000, sound: str = ""
    ) -> None:
        """A video at ``fps``, every frame the nearest one in time; with the codec ``sound``, sound at 44.1 kHz."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            height, width = self.frames.shape[1:3]
            stream = container.add_stream(codec, rate=fps, width=width, height=height, pix_fmt="yuv420p")
            assert isinstance(stream, VideoStream)
            stream.codec_context.bit_rate = bit_rate
            track = container.add_stream(sound, rate=44_100, layout="mono") if sound else None
            for index in range(round(FRAMES / FPS * fps)):
                nearest = min(round(index / fps * FPS), FRAMES - 1)
                frame = VideoFrame.from_ndarray(self.frames[nearest], format="rgb24")
                frame.pts, frame.time_base = index, 1 / fps
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if isinstance(track, AudioStream):
                resampler = av.AudioResampler(format=track.format.name, layout="mono", rate=44_100)
                whole = AudioFrame.from_ndarray(self.sound[None], format="fltp", layout="mono")
                whole.sample_rate, whole.pts, whole.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
                for piece in [*resampler.resample(whole), *resampler.resample(None)]:
                    container.mux(track.encode(piece))
                container.mux(track.encode(None))

    def write_sound(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sound(path, self.sound[None], SAMPLE_RATE)


def _fitted(frame: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(frame)
    scale = min(canvas[0] / picture.width, canvas[1] / picture.height)
    size = round(picture.width * scale), round(picture.height * scale)
    whole = Image.new("RGB", canvas, (128, 128, 128))
    corner = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
    whole.paste(picture.resize(size, Image.Resampling.LANCZOS) if scale != 1 else picture, corner)
    return np.asarray(whole)


def test_mead(tmp_path: Path, detector: FaceDetector) -> None:
    """Actors unpacked and in tar files, another camera's take, a sound that is no sound."""
    canvas = (640, 360)
    takes = {
        "M003/angry/level_1/001": Take.cut("lrwar/sp01/00215.mp4", 6, canvas),
        "M003/neutral/level_1/002": Take.cut("lrwar/sp01/00216.mp4", 6, canvas),
        "W009/happy/level_3/001": Take.cut("lrwar/sp14/08590.mp4", 6, canvas),
        "W023/surprised/level_2/001": Take.cut("lrwar/sp22/01871.mp4", 6, canvas),
        "W023/contempt/level_2/002": Take.cut("lrwar/sp22/02025.mp4", 6, canvas),
    }
    tree = tmp_path / "MEAD"
    for name, take in takes.items():
        actor, rest = name.split("/", 1)
        take.write_picture(tree / actor / "video" / "front" / f"{rest}.mp4", "libx264", Fraction(30))
        take.write_sound(tree / actor / "audio" / f"{rest}.m4a")
    (tree / "M003" / "audio" / "sad" / "level_2").mkdir(parents=True)
    (tree / "M003" / "audio" / "sad" / "level_2" / "001.m4a").write_bytes(b"")
    first = tree / "M003" / "video" / "front" / "angry" / "level_1" / "001.mp4"
    for place in ("front/sad/level_2", "left_30/angry/level_1"):
        (tree / "M003" / "video" / place).mkdir(parents=True)
        shutil.copy(first, tree / "M003" / "video" / place / "001.mp4")
    for kind in ("video", "audio"):
        with tarfile.open(tree / "W023" / f"{kind}.tar", "w") as archive:
            archive.add(tree / "W023" / kind, kind)
        shutil.rmtree(tree / "W023" / kind)

    keys = {f"MEAD/{name.split('/')[0]}/front-{'-'.join(name.split('/')[1:])}": take for name, take in takes.items()}
    rows = prepare("mead", tree, tmp_path / "prepared")
    assert Counter(row["emotion"] for row in rows if not row["rejected"] and not row["unheard"]) == Counter(
        ["angry", "neutral", "happy", "surprised", "contempt"]
    )
    assert {row["speaker"]: row["split"] for row in rows} == {"M003": "train", "W009": "train", "W023": "val"}
    assert {row["source"] for row in rows if row["speaker"] == "W023"} == {
        "W023/video.tar:video/front/surprised/level_2/001.mp4",
        "W023/video.tar:video/front/contempt/level_2/002.mp4",
    }
    rejected = {"MEAD/M003/front-sad-level_2-001": "cannot be read: M003/audio/sad/level_2/001.m4a is empty"}
    check_clips(tmp_path / "prepared", rows, keys, rejected, detector)
    report = train_and_evaluate(tmp_path)
    assert set(report["by_corpus"]) == {"MEAD"}
    assert set(report["by_emotion"]) <= {"MEAD: surprised", "MEAD: contempt"}


def test_crema_d(tmp_path: Path, detector: FaceDetector) -> None:
    """Flash videos (Sorenson Spark and MP3) at 29.97 fps beside 16 kHz WAV files; one without a picture."""
    canvas = (480, 360)
    takes = {
        "1001_DFA_ANG_XX": Take.cut("lrwar/sp01/00215.mp4", 6, canvas),
        "1001_IEO_HAP_HI": Take.cut("lrwar/sp01/00216.mp4", 6, canvas),
        "1002_TAI_NEU_XX": Take.cut("lrwar/sp14/08590.mp4", 6, canvas),
        "1015_ITH_DIS_XX": Take.cut("lrwar/sp22/01871.mp4", 6, canvas),
        "1010_IWW_SAD_LO": Take.cut("lrwar/sp22/02025.mp4", 6, canvas),
    }
    tree = tmp_path / "CREMA-D"
    for name, take in takes.items():
        take.write_picture(tree / "VideoFlash" / f"{name}.flv", "flv", Fraction(30000, 1001), sound="libmp3lame")
        take.write_sound(tree / "AudioWAV" / f"{name}.wav")
    (tree / "VideoFlash" / "1002_TIE_FEA_XX.flv").write_bytes(b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00")
    shutil.copy(tree / "AudioWAV" / "1002_TAI_NEU_XX.wav", tree / "AudioWAV" / "1002_TIE_FEA_XX.wav")

    rows = prepare("crema-d", tree, tmp_path / "prepared")
    assert {row["key"].split("/")[2]: row["emotion"] for row in rows if not row["rejected"]} == {
        "1001_DFA_ANG_XX": "angry",
        "1001_IEO_HAP_HI": "happy",
        "1002_TAI_NEU_XX": "neutral",
        "1010_IWW_SAD_LO": "sad",
        "1015_ITH_DIS_XX": "disgusted",
    }
    splits = {row["speaker"]: row["split"] for row in rows}
    assert splits == {"1001": "train", "1002": "train", "1010": "test", "1015": "val"}
    keys = {f"CREMA-D/{name[:4]}/{name}": take for name, take in takes.items()}
    reason = "cannot be read: VideoFlash/1002_TIE_FEA_XX.flv cannot be read as sound or video"
    rejected = {"CREMA-D/1002/1002_TIE_FEA_XX": reason}
    check_clips(tmp_path / "prepared", rows, keys, rejected, detector)
    report = train_and_evaluate(tmp_path)
    assert set(report["by_corpus"]) == {"CREMA-D"}
    assert set(report["by_emotion"]) == {"CREMA-D: disgusted"}


def test_grid(tmp_path: Path, detector: FaceDetector) -> None:
    """MPEG-1 with MP2 sound, once in each of the two places where it is published, and alignments."""
    canvas = (360, 288)
    takes = {
        "s1/bbaf2n": Take.cut("grid/s1/bbaf2n.mp4", 20, canvas),
        "s1/bbaf3s": Take.cut("grid/s1/bbaf3s.mp4", 20, canvas),
        "s2/lbax4n": Take.cut("grid/grid_B/lbax4n.mp4", 20, canvas),
        "s33/lrwp9a": Take.cut("grid/grid_D/lrwp9a.mp4", 20, canvas),
        "s33/brbk7n": Take.cut("grid/grid_D/lrwp9a.mp4", 40, canvas),
    }
    tree = tmp_path / "GRID"
    for name, take in takes.items():
        speaker, sentence = name.split("/")
        folder = tree / speaker if speaker == "s1" else tree / speaker / "video" / "mpg_6000"
        take.write_picture(folder / f"{sentence}.mpg", "mpeg1video", Fraction(25), sound="mp2")
        (tree / speaker / "align").mkdir(exist_ok=True)
        (tree / speaker / "align" / f"{sentence}.align").write_text("0 18000 sil\n")
    cut_short = (tree / "s1" / "bbaf2n.mpg").read_bytes()[:40]
    (tree / "s1" / "bbaf4p.mpg").write_bytes(cut_short)

    rows = prepare("grid", tree, tmp_path / "prepared")
    assert {row["emotion"] for row in rows} == {""}
    assert {row["speaker"]: row["split"] for row in rows} == {"s1": "train", "s2": "train", "s33": "val"}
    texts = {row["key"]: row["text"] for row in rows}
    assert texts["GRID/s1/bbaf2n"] == "bin blue at f two now"
    assert texts["GRID/s33/brbk7n"] == "bin red by k seven now"
    keys = {f"GRID/{name}": take for name, take in takes.items()}
    rejected = {"GRID/s1/bbaf4p": "cannot be read: s1/bbaf4p.mpg cannot be read as sound or video"}
    check_clips(tmp_path / "prepared", rows, keys, rejected, detector)
    report = train_and_evaluate(tmp_path)
    assert set(report["by_corpus"]) == {"GRID"}
    assert not report["by_emotion"]


def prepare(kind: str, tree: Path, folder: Path) -> list[dict[str, Any]]:
    assert main(["prepare", kind, str(tree), str(folder), "--workers", "1", "-q"]) == 0
    return pyarrow.parquet.read_table(folder / "clips.parquet").to_pylist()


def check_clips(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    takes: Mapping[str, Take],
    rejected: Mapping[str, str],
    detector: FaceDetector,
) -> None:
    """Every take is prepared, shows and says what its source does, and what cannot be used is listed."""
    clips = PreparedClips.open(folder)
    heard = [clip for clip in clips.clips if clip.info.heard]
    assert {clip.info.key for clip in heard} == takes.keys()
    unheard = [(row["key"], row["unheard"]) for row in rows if row["unheard"]]
    assert {key: reason.split(";")[0] for key, reason in [*clips.rejected, *unheard]} == rejected
    card = (folder / "README.md").read_text()
    assert f"{len(clips.clips)} usable clips of {len(rows)}" in card
    lags = {row["key"]: row["audio_lag_s"] for row in rows}
    for clip in heard:
        check_sound(clip, takes[clip.info.key], lags[clip.info.key])
        landmarks = clip.landmarks()
        assert clip.info.frames in (FRAMES - 1, FRAMES)
        assert np.isfinite(landmarks).all()
        assert ((landmarks > 0) & (landmarks < PICTURE_SIZE)).mean() > 0.98
        assert 70 < np.median(interocular_distance(landmarks)) < 140
    for key in [max(takes), min(takes)]:
        check_pictures(next(clip for clip in clips.clips if clip.info.key == key), takes[key], detector)


def check_sound(clip: PreparedClip, take: Take, lag_s: float) -> None:
    """The sound is the take's, moved by the lag that was taken out and by less than half a frame besides."""
    made = np.pad(clip.waveform(), (0, len(take.sound)))[: len(take.sound)]
    products = np.fft.irfft(np.conj(np.fft.rfft(made, 2**16)) * np.fft.rfft(take.sound, 2**16))
    shift = int(products.argmax())
    moved = (shift - 2**16 if shift > 2**15 else shift) / SAMPLE_RATE
    assert abs(moved - lag_s) < 0.02, (clip.info.key, moved, lag_s)
    assert products.max() > 0.9 * np.linalg.norm(made) * np.linalg.norm(take.sound)


def check_pictures(clip: PreparedClip, take: Take, detector: FaceDetector) -> None:
    """Frame k is the take's frame k, cut out where the landmarks say."""
    middle = clip.info.frames // 2
    (face,) = detector.detect(take.frames[middle])
    crop = fitted_crop(clip.landmarks()[middle], face)
    true = np.stack([crop.cut(frame) for frame in take.frames])
    frames = clip.frames()
    likeness = np.array([[psnr(made[None], other[None]) for other in true] for made in frames])
    assert np.diagonal(likeness).min() > 28, (clip.info.key, np.diagonal(likeness))
    assert np.mean(likeness.argmax(axis=1) == np.arange(len(frames))) > 0.8, (clip.info.key, likeness.argmax(axis=1))


def fitted_crop(in_crop: np.ndarray, in_picture: np.ndarray) -> FaceCrop:
    """The similarity that takes (68, 2) crop points to (68, 2) picture points, by least squares."""
    crop, picture = (points.astype(np.float64) @ [1, 1j] for points in (in_crop, in_picture))
    centred = crop - crop.mean()
    turn = np.vdot(centred, picture) / np.vdot(centred, centred)
    shift = picture.mean() - turn * crop.mean()
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    return FaceCrop(matrix, PICTURE_SIZE)


def train_and_evaluate(folder: Path) -> dict[str, Any]:
    """``folder/prepared`` → two trained parts → a model folder → the JSON report on one validation clip."""
    data, model = folder / "prepared", folder / "model"
    shutil.copytree(WEIGHTS_FOLDER / "compact", model)
    parts = {"landmarks": ("landmark_generator", SMALL_LANDMARKS), "diffusion": ("unet", SMALL_DIFFUSION)}
    for part, (name, settings) in parts.items():
        run = folder / "runs" / part
        command = ["train", part, str(data), "-o", str(run), "--accelerator", "cpu", "-q", "--set", *settings]
        with judged_by_little():
            assert main(command) == 0
        with (run / "log.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["step"] for row in rows] == [settings[0].removeprefix("steps=")]
        assert math.isfinite(float(rows[0]["loss"]))
        shutil.copytree(run / name, model / name, dirs_exist_ok=True)
    assert list((folder / "runs" / "diffusion" / "samples").glob("*.png"))
    check_trained(model)
    command = ["evaluate", str(model), str(data), "--split", "val", "--limit", "1", "-o", str(folder / "report")]
    assert main([*command, "--device", "cpu", "-q"]) == 0
    report = json.loads((folder / "report" / "report.json").read_text())
    assert report["model"] == str(model)
    assert [score["row"] for score in report["scores"]] == list(ROWS)
    assert not report["skipped"]
    scores = {score["row"]: score["values"] for score in report["scores"]}
    assert scores["warp"]["m_ld"] < scores["static"]["m_ld"]
    assert 5 < scores["generated"]["psnr"] < 60
    assert "generated" in (folder / "report" / "report.html").read_text()
    return report


def check_trained(model: Path) -> None:
    """The model's landmark generator is the trained one: small, and no longer what it began as."""
    config = load_config(model / "landmark_generator", LandmarkGeneratorConfig)
    assert config == LandmarkGeneratorConfig(channels=16, dilations=(1, 2))
    torch.manual_seed(0)
    begun = LandmarkGenerator(config).state_dict()
    trained = ATLDiffPipeline.from_pretrained(model, "cpu").landmark_generator.state_dict()
    assert any(not torch.allclose(begun[name], trained[name], atol=1e-3) for name in begun)
