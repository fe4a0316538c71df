"""The evaluator itself, judged with a made video, heads that return the truth and heads that do not."""

import csv
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
import torch

from atldiff.data.clips import Clip, read_manifest
from atldiff.errors import InputError, OutputError
from atldiff.evaluation.identity import SAME_PERSON, IdentityMeter
from atldiff.evaluation.metrics import PSNR_CAP
from atldiff.evaluation.protocol import (
    ROWS,
    EvaluationReport,
    Judge,
    Material,
    Score,
    choose_clips,
    detect_landmarks,
    evaluate,
    load_material,
    render_rows,
    summarise,
)
from atldiff.evaluation.report import contact_sheet, markdown, write_contact_sheet, write_report
from atldiff.face.crop import face_crop
from atldiff.face.detection import FaceDetector
from atldiff.speech.waveform import Speech

torch.set_num_threads(1)

FRAMES, FPS, LAG_S = 20, 25, 0.08


class Video:
    """What a head's call returns."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames


class StillHead:
    """Returns the portrait, for as long as the speech lasts."""

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector

    def __call__(self, portrait: np.ndarray, speech: Speech, /, *, fps: float, seed: int, crop_only: bool) -> Video:
        assert crop_only
        crop = face_crop(self.detector.detect(portrait)[0])
        return Video(np.repeat(crop.cut(portrait)[None], speech.frames_at(fps), axis=0))

    def animate(
        self,
        crop_frame: np.ndarray,
        identity_landmarks: np.ndarray,
        landmarks: np.ndarray,
        /,
        *,
        steps: int | None,
        seed: int,
    ) -> np.ndarray:
        assert identity_landmarks.shape == (68, 2)
        return np.repeat(crop_frame[None], len(landmarks), axis=0)


class KnowingHead(StillHead):
    """Plays the given frames to any speech; without steps it returns the portrait."""

    def __init__(self, frames: np.ndarray, spoken: np.ndarray) -> None:
        self.frames, self.spoken = frames, spoken

    def __call__(self, portrait: np.ndarray, speech: Speech, /, *, fps: float, seed: int, crop_only: bool) -> Video:
        return Video(self.spoken)

    def animate(
        self,
        crop_frame: np.ndarray,
        identity_landmarks: np.ndarray,
        landmarks: np.ndarray,
        /,
        *,
        steps: int | None,
        seed: int,
    ) -> np.ndarray:
        still = super().animate(crop_frame, identity_landmarks, landmarks, steps=steps, seed=seed)
        return still if steps == 0 else self.frames


@pytest.fixture(scope="module")
def detector() -> Iterator[FaceDetector]:
    with FaceDetector() as detector:
        yield detector


@pytest.fixture(scope="module")
def meter() -> IdentityMeter:
    pytest.importorskip("dlib")
    return IdentityMeter()


def with_open_mouth(picture: np.ndarray, landmarks: np.ndarray, opening: float) -> np.ndarray:
    """The picture with its lower lip and chin moved down by ``opening`` pixels, and darkness in between."""
    left, right, line = landmarks[60, 0], landmarks[64, 0], landmarks[60:68, 1].mean()
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    across = ((columns - (left + right) / 2) / ((right - left) / 2)) ** 2
    drop = opening * np.sqrt(np.clip(1 - across, 0, None))
    below = rows - line
    shift = drop * np.clip(1 - below / 90, 0, 1)
    source = np.where(below > 0, np.maximum(rows - shift, line), rows)
    moved = picture[np.clip(source - 0.5, 0, len(picture) - 1).round().astype(int), columns.astype(int)]
    moved[(below > 0) & (below < drop)] = (60, 15, 15)
    return moved


def write_clip(path: Path, pictures: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "12"})
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        samples = round((len(pictures) / FPS + LAG_S) * 16_000)
        wave = 0.3 * np.sin(np.arange(samples, dtype=np.float32) / 10)
        frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(sound.encode(frame))
        container.mux(sound.encode())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, detector: FaceDetector) -> Path:
    """One clip of a face whose mouth moves, one without a face, and a training row."""
    folder = tmp_path_factory.mktemp("data")
    portrait = skimage.data.astronaut()[:320, 64:384]
    landmarks = detector.detect(portrait)[0]
    openings = 6 + 6 * np.sin(np.arange(FRAMES) ** 1.3 / 3)
    face = [with_open_mouth(portrait, landmarks, opening) for opening in openings]
    write_clip(folder / "talk" / "one.mp4", face)
    write_clip(folder / "talk" / "none.mp4", [np.full((320, 320, 3), 128, dtype=np.uint8)] * 6)
    rows = [
        ("talk/one.mp4", "talk", "ada", "val", LAG_S),
        ("talk/none.mp4", "talk", "nobody", "val", 0),
        ("talk/absent.mp4", "talk", "bob", "train", 0),
    ]
    with (folder / "clips.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "corpus", "speaker", "split", "audio_lag_s"))
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def material(data: Path, detector: FaceDetector) -> Material:
    return load_material(data, read_manifest(data)[0], detector)


@pytest.fixture(scope="module")
def judge(material: Material, detector: FaceDetector, meter: IdentityMeter) -> Judge:
    return Judge(material.frames, detector, meter)


@pytest.fixture(scope="module")
def still_report(data: Path, detector: FaceDetector, meter: IdentityMeter) -> EvaluationReport:
    return evaluate(StillHead(detector), data)


def test_material_is_the_first_faces_crop_and_sound_in_step(material: Material, data: Path) -> None:
    assert material.frames.shape == (FRAMES, 128, 128, 3)
    assert material.landmarks.shape == (FRAMES, 68, 2)
    assert material.landmarks.min() > 0
    assert material.landmarks.max() < 128
    assert material.portrait.shape == (320, 320, 3)
    assert material.speech.duration_s == pytest.approx(FRAMES / FPS, abs=0.01)


def test_frames_beyond_the_sound_are_left_out(data: Path, detector: FaceDetector) -> None:
    clip = replace(read_manifest(data)[0], audio_lag_s=LAG_S + 3 / FPS)
    material = load_material(data, clip, detector)
    assert len(material.frames) == len(material.landmarks) == FRAMES - 3


def test_true_against_true_is_perfect(judge: Judge, material: Material) -> None:
    values = judge.score(material.frames)
    assert values["psnr"] == values["psnr_mouth"] == PSNR_CAP
    assert values["ssim"] == values["ssim_mouth"] == pytest.approx(1)
    assert values["m_ld"] == values["f_ld"] == values["lvd"] == values["ld_as_published"] == 0
    assert values["r_at_zero"] == values["r_best"] == pytest.approx(1)
    assert values["gain"] == pytest.approx(1)
    assert values["lag"] == values["faces_missing"] == values["frames_missing"] == 0
    assert values["flicker_ratio"] == 1
    assert values["identity_max"] < 0.5


@pytest.mark.parametrize("lag", [-2, 3])
def test_a_late_video_is_found_late(judge: Judge, material: Material, lag: int) -> None:
    frames = np.roll(material.frames, lag, axis=0)
    values = judge.score(frames)
    assert values["lag"] == lag
    assert values["r_best"] > 0.9 > values["r_at_zero"]


def test_a_video_without_a_face_scores_nothing(judge: Judge, material: Material) -> None:
    values = judge.score(np.full_like(material.frames, 128))
    assert values["faces_missing"] == 1
    assert values["r_at_zero"] == values["r_best"] == 0
    assert np.isnan([values[name] for name in ("m_ld", "f_ld", "lvd", "lag", "identity_max")]).all()


def test_frames_of_another_size_are_refused(judge: Judge, material: Material) -> None:
    with pytest.raises(InputError, match=r"128.*64"):
        judge.score(material.frames[:, :64, :64])


def test_a_still_portrait_earns_nothing_for_its_mouth(still_report: EvaluationReport) -> None:
    assert [score.row for score in still_report.scores] == list(ROWS)
    for score in still_report.scores:
        assert score.values["r_at_zero"] == score.values["r_best"] == score.values["gain"] == 0
        assert np.isnan(score.values["lag"])
        assert score.values["m_ld"] > 0.02
        assert score.values["psnr_mouth"] < score.values["psnr"] < 50
        assert score.values["identity_max"] < 0.1
        assert score.values["frames_missing"] == 0
    assert still_report.skipped == [("talk/none.mp4", "no face in the first frame")]


def test_every_row_shows_its_own_video(data: Path, material: Material, meter: IdentityMeter) -> None:
    head = KnowingHead(material.frames, np.roll(material.frames, 2, axis=0)[:-1])
    seen = []
    report = evaluate(head, data, progress=lambda done, total, clip: seen.append((done, total, clip.speaker)))
    by_row = {score.row: score.values for score in report.scores}
    assert by_row["static"]["r_best"] == by_row["warp"]["r_best"] == 0
    assert by_row["true landmarks"]["psnr"] == PSNR_CAP
    assert by_row["true landmarks"]["r_at_zero"] == pytest.approx(1)
    assert by_row["generated"]["lag"] == 2
    assert by_row["generated"]["frames_missing"] == 1
    assert seen == [(1, 2, "ada"), (2, 2, "nobody")]


def test_rows_are_rendered_in_order(material: Material, detector: FaceDetector) -> None:
    rows = dict(render_rows(StillHead(detector), material))
    assert tuple(rows) == ROWS
    assert all(frames.shape == material.frames.shape for frames in rows.values())
    assert (rows["static"] == material.frames[0]).all()


def test_a_split_without_clips_is_refused(data: Path, detector: FaceDetector) -> None:
    with pytest.raises(InputError, match=r"'test'.*\['train', 'val'\]"):
        evaluate(StillHead(detector), data, split="test")


def test_missing_packages_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(InputError, match=r"'?dlib'?.*pip install \"\.\[eval\]\""):
        IdentityMeter()


def many_clips() -> list[Clip]:
    counts = {"s1": 9, "s2": 5, "s3": 1}
    return [
        Clip(Path(f"{speaker}/{index}.mp4"), "corpus", speaker, "val", 0.0)
        for speaker, count in counts.items()
        for index in range(count)
    ]


def test_clips_are_chosen_from_all_speakers_and_always_the_same() -> None:
    clips = many_clips()
    chosen = choose_clips(clips, per_speaker=3)
    assert [clip.speaker for clip in chosen] == ["s1"] * 3 + ["s2"] * 3 + ["s3"]
    assert set(choose_clips(clips[::-1], per_speaker=3)) == set(chosen)
    assert [clip.speaker for clip in choose_clips(clips, limit=4)] in (
        ["s1", "s1", "s2", "s3"],
        ["s1", "s2", "s2", "s3"],
    )
    assert {tuple(choose_clips(clips, per_speaker=3, seed=seed)) for seed in range(4)} != {tuple(chosen)}
    assert choose_clips(clips) == clips


def test_summary_of_known_values() -> None:
    values = [*range(1, 100), float("nan")]
    summary = summarise([float(value) for value in values])
    assert (summary.count, summary.median, summary.mean, summary.minimum, summary.maximum) == (
        99,
        50,
        50,
        1,
        99,
    )
    assert 35 < summary.low < 45 < 55 < summary.high < 65
    assert summarise([float("nan")]).count == 0


def test_seen_speakers_have_a_table_of_their_own(still_report: EvaluationReport) -> None:
    known = [replace(score, speaker="bob", seen=True, path="talk/two.mp4") for score in still_report.scores]
    report = replace(still_report, scores=still_report.scores + known)
    assert list(report.by_corpus()) == ["talk", "talk, seen speakers"]
    assert list(report.by_speaker()) == ["talk/ada", "talk/bob"]
    assert report.by_corpus()["talk"]["static"]["psnr"].count == 1
    text = markdown(report)
    assert "### talk, seen speakers: 1 clips, 1 speakers" in text
    assert sum(line.startswith("| true landmarks |") for line in text.splitlines()) == 2
    assert "- `talk/none.mp4`: no face in the first frame" in text


def test_table_shows_medians_and_the_worst_identity() -> None:
    names = ["psnr", "psnr_mouth", "ssim_mouth", "m_ld", "f_ld", "lvd", "r_at_zero", "r_best", "gain"]
    names += ["identity_median", "flicker_ratio"]
    scores = [
        Score(
            f"{clip}.mp4",
            "c",
            "s",
            False,
            row,
            dict.fromkeys(names, clip) | {"lag": nan, "identity_max": clip},
        )
        for clip, nan in ((1.0, float("nan")), (2.0, float("nan")), (9.0, float("nan")))
        for row in ROWS
    ]
    line = next(line for line in markdown(EvaluationReport("val", 0, scores)).splitlines() if "| warp" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:4] == ["2.00", "2.00 [1.00, 9.00]", "2.000"]
    assert cells[9] == "–"
    assert cells[11:13] == ["2.000", "9.000"]


def test_json_holds_everything_and_no_nan(still_report: EvaluationReport, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    write_report(still_report, target)
    content = json.loads(target.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    assert [score["row"] for score in content["scores"]] == list(ROWS)
    assert content["scores"][0]["values"]["lag"] is None
    assert content["by_corpus"]["talk"]["static"]["psnr"]["count"] == 1
    assert content["by_speaker"]["talk/ada"]["generated"]["r_at_zero"]["median"] == 0
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_leaves_nothing(still_report: EvaluationReport, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="absent"):
        write_report(still_report, tmp_path / "absent" / "report.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder"):
        write_report(still_report, tmp_path / "folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_contact_sheet_places_pictures_and_labels(tmp_path: Path) -> None:
    red, blue = (np.full((20, 30, 3), colour, dtype=np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    sheet = contact_sheet([[red, blue], [blue]], ["first", "second"])
    assert (sheet[0, -64:-34] == (255, 0, 0)).all()
    assert (sheet[19, -32:-2] == (0, 0, 255)).all()
    assert (sheet[22:42, -64:-34] == (0, 0, 255)).all()
    assert (sheet[22:42, -32:] == 255).all()
    for top in (0, 22):
        assert sheet[top : top + 20, :-64].min() < 100
    write_contact_sheet([[red]], ["one"], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="2 labels"):
        contact_sheet([[red]], ["one", "two"])
    with pytest.raises(InputError, match="one size"):
        contact_sheet([[red, blue[:10]]], ["one"])


@pytest.mark.skipif("ATLDIFF_DATA" not in os.environ, reason="needs real clips: set ATLDIFF_DATA")
def test_identity_tells_speakers_apart(detector: FaceDetector, meter: IdentityMeter) -> None:
    data = Path(os.environ["ATLDIFF_DATA"])
    by_speaker: dict[str, list[Clip]] = {}
    for clip in read_manifest(data):
        if clip.split == "val" and clip.corpus == "LRW-AR":
            by_speaker.setdefault(clip.speaker, []).append(clip)
    speakers = sorted(by_speaker)[:3]
    embeddings = {}
    for speaker in speakers:
        for clip in by_speaker[speaker][:2]:
            material = load_material(data, clip, detector)
            landmarks = detect_landmarks(material.frames[:1], detector)[0]
            embeddings[speaker, clip.path] = meter.embed(material.frames[0], landmarks)
    same, other = [], []
    for (speaker, path), embedding in embeddings.items():
        for (second_speaker, second_path), second in embeddings.items():
            if path < second_path:
                (same if speaker == second_speaker else other).append(np.linalg.norm(embedding - second))
    assert len(same) == 3
    assert len(other) == 12
    assert max(same) < SAME_PERSON
    assert np.median(other) > SAME_PERSON
    assert max(same) < min(other)
