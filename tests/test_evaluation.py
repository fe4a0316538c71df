"""The evaluator itself, judged with made clips, heads that return the truth and heads that do not."""

import base64
import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import skimage.data
import torch
from PIL import Image
from pyarrow import parquet
from torch import nn

from atldiff.cli import main
from atldiff.data.encoding import encode_landmarks, encode_sound, encode_video
from atldiff.data.prepared import INDEX_NAME, MEMBERS, SHARDS_NAME, ClipInfo, PreparedClip, PreparedClips
from atldiff.errors import InputError, OutputError
from atldiff.evaluation.gallery import MOST_SHEETS, THUMBNAIL_SIZE, keep_worst, shown_frames, strip
from atldiff.evaluation.identity import SAME_PERSON, IdentityMeter
from atldiff.evaluation.judge import Judge, detect_landmarks
from atldiff.evaluation.metrics import PSNR_CAP
from atldiff.evaluation.page import opening_plot, page
from atldiff.evaluation.perceptual import FrechetDistances, PerceptualDistance
from atldiff.evaluation.protocol import (
    ROWS,
    Material,
    WeightPaths,
    choose_clips,
    evaluate,
    load_material,
    render_rows,
)
from atldiff.evaluation.report import write_report
from atldiff.evaluation.scores import (
    TRUE,
    ContactSheet,
    EvaluationReport,
    MouthCurves,
    Score,
    draw_resamples,
    summarise,
)
from atldiff.evaluation.syncnet import SyncNet, SyncNetMeter, mel_cepstrum
from atldiff.evaluation.tables import NEEDS_WEIGHTS, report_tables
from atldiff.face.crop import face_crop
from atldiff.face.detection import FaceDetector
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import Speech

torch.set_num_threads(1)

FRAMES, FPS = 26, 25
CPU = torch.device("cpu")


class StillHead:
    """Returns the portrait, for as long as the speech lasts."""

    def talk(
        self, identity: np.ndarray, identity_landmarks: np.ndarray, speech: Speech, /, *, fps: float, seed: int
    ) -> np.ndarray:
        assert identity_landmarks.shape == (68, 2)
        return np.repeat(identity[None], speech.frames_at(fps), axis=0)

    def animate(
        self,
        identity: np.ndarray,
        identity_landmarks: np.ndarray,
        landmarks: np.ndarray,
        /,
        *,
        steps: int | None,
        seed: int,
    ) -> np.ndarray:
        assert identity_landmarks.shape == (68, 2)
        return np.repeat(identity[None], len(landmarks), axis=0)


class KnowingHead(StillHead):
    """Plays the given frames to any speech; without steps it returns the portrait."""

    def __init__(self, frames: np.ndarray, spoken: np.ndarray) -> None:
        self.frames, self.spoken = frames, spoken

    def talk(
        self, identity: np.ndarray, identity_landmarks: np.ndarray, speech: Speech, /, *, fps: float, seed: int
    ) -> np.ndarray:
        return self.spoken

    def animate(
        self,
        identity: np.ndarray,
        identity_landmarks: np.ndarray,
        landmarks: np.ndarray,
        /,
        *,
        steps: int | None,
        seed: int,
    ) -> np.ndarray:
        still = super().animate(identity, identity_landmarks, landmarks, steps=steps, seed=seed)
        return still if steps == 0 else self.frames


class RememberingDetector(FaceDetector):
    """Looks at equal pictures once."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[bytes, list[np.ndarray]] = {}

    def detect_once(self, image: np.ndarray) -> list[np.ndarray]:
        if not hasattr(self, "_known"):
            return super().detect_once(image)
        key = image.tobytes()
        if key not in self._known:
            self._known[key] = super().detect_once(image)
        return self._known[key]


@pytest.fixture(scope="module")
def detector() -> Iterator[FaceDetector]:
    with RememberingDetector() as detector:
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


def write_prepared(folder: Path, clips: dict[str, tuple[str, str, np.ndarray, np.ndarray, float]]) -> Path:
    """A prepared folder of ready crops: key → (split, emotion, frames, landmarks, seconds of sound)."""
    (folder / SHARDS_NAME).mkdir(parents=True)
    rows = []
    with tarfile.open(folder / SHARDS_NAME / "all-000000.tar", "w") as archive:
        for key, (split, emotion, frames, landmarks, seconds) in sorted(clips.items()):
            random = np.random.default_rng(len(rows))
            sound = 0.1 * random.standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32)
            contents = {
                "landmarks": encode_landmarks(landmarks),
                "sound": encode_sound(sound),
                "video": encode_video(frames, Fraction(FPS)),
            }
            corpus, speaker, _ = key.split("/")
            row = {"key": key, "corpus": corpus, "speaker": speaker, "emotion": emotion, "split": split}
            row |= {"shard": "all-000000.tar", "rejected": "", "frames": len(frames), "fps": float(FPS)}
            row |= {"size": frames.shape[1]}
            for name, content in contents.items():
                member = tarfile.TarInfo(f"{key}.{MEMBERS[name]}")
                member.size = len(content)
                row |= {f"{name}_offset": archive.offset + tarfile.BLOCKSIZE, f"{name}_size": len(content)}
                archive.addfile(member, io.BytesIO(content))
            rows.append(row)
    parquet.write_table(pa.Table.from_pylist(rows), folder / INDEX_NAME)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, detector: FaceDetector) -> PreparedClips:
    """Two clips of a face whose mouth moves, one of a speaker with a training clip, one without a face."""
    portrait = skimage.data.astronaut()[:320, 64:384]
    landmarks = detector.detect(portrait)[0]
    crop = face_crop(landmarks)
    times = np.arange(FRAMES)
    faces, points = {}, {}
    for name, phase in (("one", 0.0), ("two", 1.5)):
        openings = 6 + 6 * np.sin(times**1.3 / 3 + phase)
        pictures = [crop.cut(with_open_mouth(portrait, landmarks, opening)) for opening in openings]
        moved = np.repeat(crop.to_crop(landmarks)[None], FRAMES, axis=0)
        moved[:, 55:60, 1] += openings[:, None] / crop.scale
        moved[:, 65:68, 1] += openings[:, None] / crop.scale
        faces[name], points[name] = np.stack(pictures), moved
    grey = np.full((8, 128, 128, 3), 128, dtype=np.uint8)
    seconds = FRAMES / FPS
    return PreparedClips.open(
        write_prepared(
            tmp_path_factory.mktemp("data"),
            {
                "talk/ada/one": ("val", "happy", faces["one"], points["one"], seconds),
                "talk/bob/two": ("val", "", faces["two"], points["two"], seconds - 3 / FPS),
                "talk/nobody/none": ("val", "", grey, points["one"][:8], 8 / FPS),
                "talk/bob/three": ("train", "", grey, points["one"][:8], 8 / FPS),
            },
        )
    )


@pytest.fixture(scope="module")
def material(data: PreparedClips) -> Material:
    return load_material(data.split("val")[0])


@pytest.fixture(scope="module")
def judge(material: Material, detector: FaceDetector, meter: IdentityMeter) -> Judge:
    return Judge(material.frames, detector, meter)


@pytest.fixture(scope="module")
def still_report(data: PreparedClips, meter: IdentityMeter) -> EvaluationReport:
    return evaluate(StillHead(), data, model="still")


def test_material_is_the_prepared_clip(material: Material, data: PreparedClips) -> None:
    assert material.info.key == "talk/ada/one"
    assert material.frames.shape == (FRAMES, 128, 128, 3)
    assert material.landmarks.shape == (FRAMES, 68, 2)
    assert len(material.waveform) == FRAMES * SAMPLE_RATE // FPS


def test_frames_beyond_the_sound_are_left_out(data: PreparedClips) -> None:
    material = load_material(data.split("val")[1])
    assert len(material.frames) == len(material.landmarks) == FRAMES - 3


def test_crops_of_any_size_are_animated_at_their_own(tiny_pipeline: ATLDiffPipeline, material: Material) -> None:
    """Twice the size with landmarks twice as far apart is the same face, seen more closely."""
    frames, landmarks = material.frames[:4], material.landmarks[:4]
    large = frames.repeat(2, axis=1).repeat(2, axis=2)
    small_made = tiny_pipeline.animate(frames[0], landmarks[0], landmarks)
    large_made = tiny_pipeline.animate(large[0], 2 * landmarks[0], 2 * landmarks)
    assert small_made.shape == frames.shape and large_made.shape == large.shape
    reduced = large_made.reshape(4, 128, 2, 128, 2, 3).mean(axis=(2, 4))
    assert np.abs(reduced - small_made).mean() < 2
    assert np.abs(reduced - frames[0]).mean() > np.abs(reduced - small_made).mean()


def test_true_against_true_is_perfect(judge: Judge, material: Material) -> None:
    values = judge.score(material.frames).values
    assert values["psnr"] == values["psnr_mouth"] == PSNR_CAP
    assert values["ssim"] == values["ssim_mouth"] == pytest.approx(1)
    assert values["m_ld"] == values["f_ld"] == values["lvd"] == values["ld_as_published"] == 0
    assert values["lvd_as_published"] == 0
    assert values["r_at_zero"] == values["r_best"] == pytest.approx(1)
    assert values["gain"] == pytest.approx(1)
    assert values["lag"] == values["faces_missing"] == values["frames_missing"] == 0
    assert values["flicker_ratio"] == 1
    assert values["identity_max"] < 0.5


@pytest.mark.parametrize("lag", range(-5, 6))
def test_a_shifted_video_is_found_with_its_lag(judge: Judge, material: Material, lag: int) -> None:
    values = judge.score(np.roll(material.frames, lag, axis=0)).values
    assert values["lag"] == lag
    assert values["r_best"] > 0.9
    assert lag == 0 or values["r_at_zero"] < 0.9


def test_openings_are_those_of_the_scored_frames(judge: Judge, material: Material) -> None:
    judgement = judge.score(material.frames[:-2])
    assert judgement.openings == pytest.approx(judge.true_openings[:-2])
    assert len(judge.true_openings) == FRAMES - 1
    assert judgement.values["frames_missing"] == 2


def test_a_video_without_a_face_scores_nothing(judge: Judge, material: Material) -> None:
    judgement = judge.score(np.full_like(material.frames, 128))
    assert judgement.values["faces_missing"] == 1
    assert judgement.values["r_at_zero"] == judgement.values["r_best"] == 0
    assert np.isnan([judgement.values[name] for name in ("m_ld", "f_ld", "lvd", "lag", "identity_max")]).all()
    assert not len(judgement.openings)


def test_frames_of_another_size_are_refused(judge: Judge, material: Material) -> None:
    with pytest.raises(InputError, match=r"128.*64"):
        judge.score(material.frames[:, :64, :64])


def test_a_clip_of_few_frames_judges_nothing(
    material: Material, detector: FaceDetector, meter: IdentityMeter
) -> None:
    with pytest.raises(InputError, match="4 frames or more with sound, got 3"):
        Judge(material.frames[:3], detector, meter)


def test_a_still_portrait_earns_nothing_for_its_mouth(still_report: EvaluationReport) -> None:
    assert [score.row for score in still_report.scores] == list(ROWS) * 2
    for score in still_report.scores:
        assert score.values["r_at_zero"] == score.values["r_best"] == score.values["gain"] == 0
        assert np.isnan(score.values["lag"])
        assert score.values["m_ld"] > 0.02
        assert score.values["psnr_mouth"] < score.values["psnr"] < 50
        assert score.values["identity_max"] < 0.1
        assert score.values["frames_missing"] == 0
    assert [(score.speaker, score.seen) for score in still_report.scores[::4]] == [("ada", False), ("bob", True)]
    ((key, reason),) = still_report.skipped
    assert key == "talk/nobody/none"
    assert "no face is seen in 100% of the true frames" in reason


def test_every_row_shows_its_own_video(data: PreparedClips, material: Material, meter: IdentityMeter) -> None:
    head = KnowingHead(material.frames, np.roll(material.frames, 2, axis=0)[:-1])
    seen = []
    report = evaluate(
        head, data, limit=1, progress=lambda done, total, clip: seen.append((done, total, clip.info.key))
    )
    assert seen == [(1, 1, material.info.key)]
    by_row = {score.row: score.values for score in report.scores}
    assert by_row["static"]["r_best"] == by_row["warp"]["r_best"] == 0
    assert by_row["true landmarks"]["psnr"] == PSNR_CAP
    assert by_row["true landmarks"]["r_at_zero"] == pytest.approx(1)
    assert by_row["generated"]["lag"] == 2
    assert by_row["generated"]["frames_missing"] == 1


def test_rows_are_rendered_in_order(material: Material) -> None:
    rows = dict(render_rows(StillHead(), material))
    assert tuple(rows) == ROWS
    assert all(frames.shape == material.frames.shape for frames in rows.values())
    assert (rows["static"] == material.frames[0]).all()


def test_nothing_to_judge_is_refused(data: PreparedClips, meter: IdentityMeter) -> None:
    with pytest.raises(InputError, match=r"'test'.*\['train', 'val'\]"):
        evaluate(StillHead(), data, split="test")
    with pytest.raises(InputError, match=r"none of the 1 clips can be judged; talk/bob/three: no face"):
        evaluate(StillHead(), data, split="train")


def test_missing_packages_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(InputError, match=r"'?dlib'?.*pip install \"\.\[eval\]\""):
        IdentityMeter()


def many_clips() -> list[PreparedClip]:
    counts = {"s1": 9, "s2": 5, "s3": 1}
    return [
        PreparedClip(ClipInfo(f"c/{speaker}/{index}", "c", speaker, "", "val", "", 9, 25.0, 128, {}), Path())
        for speaker, count in counts.items()
        for index in range(count)
    ]


def test_clips_are_chosen_from_all_speakers_and_always_the_same() -> None:
    clips = many_clips()

    def chosen_keys(clips: list[PreparedClip], **limits: int) -> list[str]:
        return [clip.info.key for clip in choose_clips(clips, **limits)]

    chosen = chosen_keys(clips, per_speaker=3)
    assert [key[2:4] for key in chosen] == ["s1"] * 3 + ["s2"] * 3 + ["s3"]
    assert set(chosen_keys(clips[::-1], per_speaker=3)) == set(chosen)
    assert [key[2:4] for key in chosen_keys(clips, limit=4)] in (["s1", "s1", "s2", "s3"], ["s1", "s2", "s2", "s3"])
    assert {tuple(chosen_keys(clips, per_speaker=3, seed=seed)) for seed in range(4)} != {tuple(chosen)}
    assert choose_clips(clips) == clips


def test_summary_of_known_values() -> None:
    values = [*map(float, range(1, 100)), float("nan")]
    summary = summarise(values, draw_resamples(["one"] * 100))
    found = (summary.count, summary.median, summary.mean, summary.minimum, summary.maximum)
    assert found == (99, 50, 50, 1, 99)
    assert 35 < summary.low < 45 < 55 < summary.high < 65
    assert summarise([float("nan")], draw_resamples(["one"])).count == 0


def test_resamples_draw_speakers_and_then_their_own_clips() -> None:
    speakers = ["a"] * 6 + ["b"] * 2
    resamples = draw_resamples(speakers, seed=1)
    assert resamples.shape[1] == 2 * 6
    kinds = [{speakers[clip] for clip in row if clip >= 0} for row in resamples]
    share_of_both = np.mean([kind == {"a", "b"} for kind in kinds])
    assert 0.4 < share_of_both < 0.6
    assert {int((row >= 0).sum()) for row in resamples} == {4, 8, 12}
    assert (draw_resamples(speakers, seed=1) == resamples).all()


def test_alike_clips_of_few_speakers_do_not_narrow_the_interval() -> None:
    values = [1.0] * 50 + [2.0] * 50 + [3.0] * 50
    speakers = ["a"] * 50 + ["b"] * 50 + ["c"] * 50
    honest = summarise(values, draw_resamples(speakers))
    naive = summarise(values, draw_resamples(["one"] * 150))
    assert (honest.low, honest.high) == (1, 3)
    assert (naive.low, naive.high) == (2, 2)


def made_report(names_with_weights: tuple[str, ...] = ()) -> EvaluationReport:
    """Two clips of an unseen speaker and one of a seen one, with made values."""
    names = ["psnr", "psnr_mouth", "ssim", "ssim_mouth", "m_ld", "f_ld", "lvd", "ld_as_published"]
    names += ["lvd_as_published", "r_at_zero", "r_best", "gain", "identity_median", "identity_max", "flicker_ratio"]
    names += ["faces_missing", *names_with_weights]
    clips = {"c/s/a": (1.0, False, "sad"), "c/s/b": (3.0, False, "happy"), "c/t/<d>": (9.0, True, "")}
    scores = [
        Score(key, "c", key[2], emotion, seen, row, dict.fromkeys(names, value) | {"lag": float("nan")})
        for key, (value, seen, emotion) in clips.items()
        for row in ROWS
    ]
    curves = [
        MouthCurves(key, 25.0, {row: [0.1, 0.2, 0.0] for row in ROWS} | {TRUE: [0.1, 0.2, 0.4]}) for key in clips
    ]
    picture = strip(np.zeros((3, 16, 16, 3), dtype=np.uint8), [0, 2])
    strips = {TRUE: picture, "generated": picture}
    sheets = [ContactSheet(key, value, [0, 2], strips) for key, (value, _, _) in clips.items()]
    return EvaluationReport("m", "data", "val", 0, scores, [("c/s/none", "no face")], curves, {}, sheets)


def test_tables_show_every_group(still_report: EvaluationReport) -> None:
    tables = {table.title: table for table in report_tables(made_report())}
    assert {"c: 2 clips, 1 speakers", "c, seen speakers: 1 clips, 1 speakers"} < set(tables)
    assert [row[0].text for row in tables["Emotions"].rows] == ["c: happy", "c: sad"]
    assert [row[0].text for row in tables["Speakers"].rows] == ["c/s", "c/t"]
    main_table = next(table for table in report_tables(made_report()) if "lag, frames" in table.header)
    assert [row[0].text for row in main_table.rows] == list(ROWS)
    warp = dict(zip(main_table.header, main_table.rows[1], strict=True))
    assert warp["PSNR, dB ↑"].text == "2.00"
    assert (warp["M-LD ↓"].text, warp["M-LD ↓"].interval) == ("2.0000", "1.0000 … 3.0000")
    assert warp["lag, frames"].text == "–"
    assert warp["identity, worst ↓"].text == "3.000"
    assert "Emotions" in {table.title for table in report_tables(still_report)}


def test_the_papers_table_says_what_needs_weights() -> None:
    titles = ["", "PSNR ↑", "SSIM ↑", "LPIPS ↓", "FID ↓", "M-LD ↓", "F-LD ↓", "LSE-C ↑", "LSE-D ↓"]
    table = next(table for table in report_tables(made_report()) if table.header == titles)
    assert [cell.text for cell in table.rows[3]] == (
        ["generated", "2.00", "2.000", "¹", "¹", "2.0000", "2.0000", "¹", "¹"]
    )
    assert table.note == NEEDS_WEIGHTS
    report = replace(made_report(("lpips", "lse_c", "lse_d")), frechet={"c": dict.fromkeys(ROWS, 7.0)})
    report.scores.append(Score("c/s/a", "c", "s", "", False, TRUE, {"lse_c": 5.0, "lse_d": 6.0}))
    table = next(table for table in report_tables(report) if table.header == titles)
    assert [cell.text for cell in table.rows[3]][3:5] == ["2.000", "7.00"]
    assert [cell.text for cell in table.rows[4]] == ["true", "–", "–", "–", "–", "–", "–", "5.000", "6.000"]
    assert table.note == ""


def test_published_formulas_have_a_table_of_their_own() -> None:
    table = next(table for table in report_tables(made_report()) if "LD as published ↓" in table.header)
    assert [cell.text for cell in table.rows[0]] == ["static", "2.0000", "2.0000", "2.0000", "2.0", "2.0"]


class Checker(HTMLParser):
    """Notes what is open, which pictures there are and what is fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[bytes] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag not in ("meta", "img", "line", "polyline"):
            self.open.append(tag)
        if tag == "img":
            assert named["alt"]
            kind, _, content = named["src"].partition(",")
            assert kind == "data:image/jpeg;base64"
            self.pictures.append(base64.b64decode(content))
        self.links += [named["href"]] if "href" in named else []
        self.ids += [named["id"]] if "id" in named else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("line", "polyline")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h3" and "r at lag 0 is" in data:
            self.headings.append(data)


def test_the_page_is_whole_and_self_contained(still_report: EvaluationReport, tmp_path: Path) -> None:
    write_report(still_report, tmp_path / "report")
    text = (tmp_path / "report" / "report.html").read_text()
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    assert "http" not in text and "<script" not in text
    assert "prefers-color-scheme: dark" in text
    assert len(checker.pictures) == 2 * 4
    for content in checker.pictures:
        picture = Image.open(io.BytesIO(content))
        assert picture.height == THUMBNAIL_SIZE
        assert picture.width in (7 * THUMBNAIL_SIZE, 8 * THUMBNAIL_SIZE)
        assert np.asarray(picture).std() > 20
    assert {link.removeprefix("#") for link in checker.links} == set(checker.ids)
    assert text.count("<svg") == 2
    assert "talk/nobody/none" in text


def test_the_page_shows_worst_clips_first_and_escapes_names() -> None:
    report = made_report()
    checker = Checker()
    checker.feed(page(report, report_tables(report)))
    assert checker.headings == [
        "c/s/a: r at lag 0 is 1.00",
        "c/s/b: r at lag 0 is 3.00",
        "c/t/<d>: r at lag 0 is 9.00",
    ]


def test_the_plot_draws_every_frame_in_its_place() -> None:
    curves = MouthCurves("k", 10.0, {TRUE: [0.0, 0.2, 0.4], "generated": [0.4, 0.0], "true landmarks": []})
    lines = re.findall(r'<polyline class="([a-z-]+)" [^>]*points="([^"]+)"', opening_plot(curves))
    assert [name for name, _ in lines] == ["true", "generated"]
    true, generated = ([tuple(map(float, point.split(","))) for point in points.split()] for _, points in lines)
    assert [x for x, _ in true][:2] == [x for x, _ in generated]
    assert true[0][1] > true[1][1] > true[2][1]
    assert true[2][1] == generated[0][1] == pytest.approx(28)
    assert true[2][0] == pytest.approx(712)


def test_only_the_worst_clips_keep_their_pictures() -> None:
    sheets: list[ContactSheet] = []
    for number in np.random.default_rng(0).permutation(MOST_SHEETS + 20):
        keep_worst(sheets, ContactSheet(f"k{number}", number / 100, [0], {}))
    assert [sheet.r_at_zero for sheet in sheets] == [number / 100 for number in range(MOST_SHEETS)]


def test_a_strip_shows_the_widest_mouth_and_ends_with_the_last_frame() -> None:
    openings = np.zeros(29)
    openings[12] = 1
    shown = shown_frames(openings)
    assert shown[0] == 0 and shown[-1] == 29 and 13 in shown and len(shown) == 8
    frames = np.zeros((20, 32, 32, 3), dtype=np.uint8)
    frames[-1] = 200
    picture = np.asarray(Image.open(io.BytesIO(strip(frames, [0, 29]))))
    assert picture.shape == (THUMBNAIL_SIZE, 2 * THUMBNAIL_SIZE, 3)
    assert picture[40, 40].max() < 10 and picture[40, 120].min() > 190


def test_json_holds_everything_and_no_nan(still_report: EvaluationReport, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("old")
    write_report(still_report, tmp_path)
    text = (tmp_path / "report.json").read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    assert [score["row"] for score in content["scores"]] == list(ROWS) * 2
    assert content["scores"][0]["values"]["lag"] is None
    assert content["by_corpus"]["talk"]["static"]["psnr"]["count"] == 1
    assert list(content["by_corpus"]) == ["talk", "talk, seen speakers"]
    assert content["by_speaker"]["talk/ada"]["generated"]["r_at_zero"]["median"] == 0
    assert list(content["by_emotion"]) == ["talk: happy"]
    openings = content["mouth_openings"][0]["openings"]
    assert set(openings) == {TRUE, *ROWS}
    assert len(openings[TRUE]) == FRAMES - 1
    assert max(openings[TRUE]) > 0.05
    assert content["skipped"][0]["key"] == "talk/nobody/none"
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md", "report.html"}


def test_a_failed_write_leaves_what_was_there(still_report: EvaluationReport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file cannot be written"):
        write_report(still_report, tmp_path / "file")
    (tmp_path / "folder" / "report.json").mkdir(parents=True)
    with pytest.raises(OutputError, match="folder"):
        write_report(still_report, tmp_path / "folder")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["report.json"]
    assert (tmp_path / "file").read_text() == "mine"


class TinyInception(nn.Module):
    """The calling convention of ``inception-2015-12-05.pt``; the features are the means of 2×2 fields."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert images.dtype == torch.uint8 and return_features
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


class TinyVgg(nn.Module):
    """The calling convention of ``vgg16.pt``; the features are the pixels of a 4×4 picture from 0 to 1."""

    def forward(self, images: torch.Tensor, resize_images: bool = True, return_lpips: bool = False) -> torch.Tensor:
        assert return_lpips and not resize_images
        return nn.functional.adaptive_avg_pool2d(images / 255, 4).flatten(1)


def scripted(module: nn.Module, path: Path) -> Path:
    torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> WeightPaths:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    syncnet = folder / "syncnet_v2.model"
    state = SyncNet().state_dict()
    torch.save({name: value for name, value in state.items() if "num_batches" not in name}, syncnet)
    return WeightPaths(
        scripted(TinyInception(), folder / "inception.pt"), scripted(TinyVgg(), folder / "vgg.pt"), syncnet
    )


def test_perceptual_distance_is_the_squared_distance_of_features(weights: WeightPaths) -> None:
    assert weights.lpips
    distance = PerceptualDistance(weights.lpips, CPU)
    black = np.zeros((40, 16, 16, 3), dtype=np.uint8)
    white = black.copy()
    white[:10] = 255
    assert distance(black, black) == 0
    assert distance(black, white) == pytest.approx(48 * 10 / 40)


def test_frechet_distance_of_known_clouds(weights: WeightPaths) -> None:
    assert weights.inception
    random = np.random.default_rng(0)
    frames = random.integers(0, 200, (300, 4, 4, 3), dtype=np.uint8)
    frechet = FrechetDistances(weights.inception, CPU)
    features = frechet.features(frames)
    assert features.shape == (300, 12)
    for half in (slice(0, 150), slice(150, 300)):
        frechet.add("c", "same", features[half], features[half])
        frechet.add("c", "brighter", frechet.features(frames[half] + 10), features[half])
    distances = frechet.distances()["c"]
    assert distances["same"] == pytest.approx(0, abs=0.01)
    assert distances["brighter"] == pytest.approx(12 * 10**2, rel=1e-4)


def test_weights_that_cannot_be_used_are_refused(weights: WeightPaths, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"none of it")
    for kind in (PerceptualDistance, FrechetDistances, SyncNetMeter):
        with pytest.raises(InputError, match=r"no weights at .*absent\.pt; docs/evaluation\.md"):
            kind(tmp_path / "absent.pt", CPU)
        with pytest.raises(InputError, match=r"broken\.pt"):
            kind(broken, CPU)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other\.pt does not hold the weights of SyncNet"):
        SyncNetMeter(tmp_path / "other.pt", CPU)
    assert weights.lpips
    with pytest.raises(InputError, match="return_features"):
        FrechetDistances(weights.lpips, CPU).features(np.zeros((2, 8, 8, 3), dtype=np.uint8))


def test_syncnet_measures_windows_against_shifted_sound(weights: WeightPaths) -> None:
    assert weights.syncnet
    meter = SyncNetMeter(weights.syncnet, CPU)
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    waveform = 0.1 * random.standard_normal(9 * 640).astype(np.float32)
    values = meter.score(frames, waveform, 25.0)
    network, mfcc = meter._network, torch.from_numpy(mel_cepstrum(waveform)).float()
    pictures = torch.from_numpy(frames[..., ::-1].copy()).permute(0, 3, 1, 2).float()
    pictures = nn.functional.interpolate(pictures, size=(224, 224), mode="bilinear").transpose(0, 1)
    with torch.inference_mode():
        lips = torch.cat([network.embed_lips(pictures[:, start : start + 5]) for start in range(4)])
        windows = [mfcc[4 * start : 4 * start + 20].T[None, None] for start in range(4)]
        sound = torch.cat([network.embed_sound(window) for window in windows])
    by_shift = []
    for shift in range(-15, 16):
        beside = [sound[at + shift] if 0 <= at + shift < 4 else torch.zeros(1024) for at in range(4)]
        by_shift.append(float((lips - torch.stack(beside) + 1e-6).norm(dim=1).mean()))
    assert values["lse_d"] == pytest.approx(min(by_shift), rel=1e-4)
    assert values["lse_c"] == pytest.approx(np.median(by_shift) - min(by_shift), abs=1e-3)
    assert np.isnan(meter.score(frames[:5], waveform, 25.0)["lse_c"])
    assert np.isnan(meter.score(frames, waveform, 30.0)["lse_d"])


def test_mel_cepstrum_of_known_sounds() -> None:
    silence = mel_cepstrum(np.zeros(16000, dtype=np.float32))
    assert silence.shape == (99, 13)
    assert silence[:, 0] == pytest.approx(np.log(np.finfo(float).eps))
    noise = 0.05 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    louder = mel_cepstrum(2 * noise) - mel_cepstrum(noise)
    assert louder[:, 0] == pytest.approx(2 * np.log(2), abs=0.01)
    assert np.abs(louder[:, 1:]).max() < 0.05
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(1600) / SAMPLE_RATE)
    expected = [19.478, 26.044, 9.437, -7.568, -21.883, -29.182, -25.897, -15.186, -0.2, 12.48, 19.973, 19.136, 12.24]
    assert mel_cepstrum(tone)[3] == pytest.approx(expected, abs=0.001)


def test_with_weights_the_report_is_full(
    data: PreparedClips, weights: WeightPaths, meter: IdentityMeter, tmp_path: Path
) -> None:
    report = evaluate(StillHead(), data, limit=1, weights=weights)
    assert [score.row for score in report.scores] == [TRUE, *ROWS]
    assert set(report.scores[0].values) == {"lse_c", "lse_d"}
    for score in report.scores[1:]:
        assert score.values["lpips"] > 0
        assert score.values["lse_d"] > 0
    assert set(report.frechet["talk"]) == set(ROWS)
    assert report.frechet["talk"]["generated"] > 0
    write_report(report, tmp_path)
    assert "¹" not in (tmp_path / "report.md").read_text()


def test_the_command_writes_all_three(
    data: PreparedClips, tiny_model: Path, meter: IdentityMeter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a" / "report"
    command = ["evaluate", str(tiny_model), str(data.folder), "-o", str(out), "--limit", "1"]
    assert main([*command, "--device", "cpu"]) == 0
    assert {path.name for path in out.iterdir()} == {"report.json", "report.md", "report.html"}
    assert "| generated |" in capsys.readouterr().out
    assert json.loads((out / "report.json").read_text())["model"] == str(tiny_model)


def test_a_folder_that_is_not_prepared_is_refused(
    data: PreparedClips, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips.csv").write_text("path\n")
    assert main(["evaluate", "compact", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "atldiff prepare" in capsys.readouterr().err
    assert main(["evaluate", "compact", str(data.folder), "-o", str(tmp_path / "out"), "--split", "nosuch"]) == 2
    assert main(["evaluate", "compact", str(data.folder), "-o", str(tmp_path / "out"), "--limit", "0"]) == 2
    weights = ["--limit", "1", "--device", "cpu", "--lpips", str(tmp_path / "clips.csv")]
    assert main(["evaluate", "compact", str(data.folder), "-o", str(tmp_path / "out"), *weights]) == 2
    assert "not a TorchScript file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif("ATLDIFF_DATA" not in os.environ, reason="needs real clips: set ATLDIFF_DATA")
def test_another_speaker_is_far(detector: FaceDetector, meter: IdentityMeter) -> None:
    from atldiff.data.tracking import read_frames

    folder = Path(os.environ["ATLDIFF_DATA"]) / "lrwar"
    by_speaker: dict[str, list[np.ndarray]] = {}
    for path in sorted(folder.rglob("*.mp4")):
        crops = by_speaker.setdefault(path.parent.name, [])
        if len(by_speaker) <= 3 and len(crops) < 2:
            frames, _ = read_frames(path)
            crop = face_crop(detector.detect(frames[0])[0])
            crops.append(np.stack([crop.cut(frame) for frame in frames[:8]]))
    speakers = [crops for crops in by_speaker.values() if len(crops) == 2]
    assert len(speakers) == 3
    for own in speakers:
        judge = Judge(own[0], detector, meter)
        assert judge.score(own[1]).values["identity_median"] < SAME_PERSON
        for other in speakers:
            if other is not own:
                assert judge.score(other[0]).values["identity_median"] > SAME_PERSON
    assert detect_landmarks(speakers[0][0][:1], detector).shape == (1, 68, 2)
