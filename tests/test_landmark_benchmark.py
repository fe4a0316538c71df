"""The landmark part judged without pictures: scores, changed sounds, ridge baselines, tables and plots."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from atldiff.data.prepared import PreparedClips
from atldiff.errors import InputError
from atldiff.evaluation.metrics import mouth_correlation
from atldiff.evaluation.scores import TRUE, MouthCurves, Score, grouped
from atldiff.face.similarity import apply_similarity
from atldiff.face.topology import mouth_opening
from atldiff.speech import SAMPLE_RATE
from face_shapes import open_face
from judged_landmarks import (
    BABBLE,
    GENERATED,
    OURS,
    ROWS,
    STATIC,
    STREAMED,
    babble,
    evaluate_landmarks,
    judge_landmarks,
    middle_curves,
    opening_figure,
    real_time_factors,
    telephone,
)
from prepared_files import write_prepared
from ridge import MEL, SpeechFeatures, features_around, fit_ridge

torch.set_num_threads(1)

BASELINE = "ridge on log-mel"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedClips:
    splits = ["train"] * 8 + ["val"] * 4
    return PreparedClips.open(write_prepared(tmp_path_factory.mktemp("clips") / "made", splits, frames=30, size=64))


@pytest.fixture(scope="module")
def judged(data, tiny_pipeline) -> tuple[list[Score], list[MouthCurves], dict[str, dict[str, float]]]:
    baselines = {BASELINE: fit_ridge(data.split("train"), MEL)}
    return evaluate_landmarks(tiny_pipeline, data, data.split("val"), baselines, seed=3)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks/landmarks.py"
    specification = importlib.util.spec_from_file_location("landmark_benchmark", path)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def spoken_face(frames: int = 30) -> np.ndarray:
    """(F, 68, 2) of a still face whose lower lip goes down and up."""
    landmarks = np.repeat(open_face()[None], frames, axis=0)
    landmarks[:, 65:68, 1] += 3 * np.sin(np.arange(frames) / 3)[:, None] ** 2
    return landmarks


def test_true_landmarks_score_full_and_a_still_mouth_nothing() -> None:
    true = spoken_face()
    perfect = judge_landmarks(true, true)
    assert perfect["r_at_zero"] == pytest.approx(1)
    assert perfect["gain"] == pytest.approx(1)
    assert perfect["m_ld"] == pytest.approx(0, abs=1e-6)
    still = judge_landmarks(np.repeat(true[:1], len(true), axis=0), true)
    assert (still["r_at_zero"], still["m_ld_ratio"]) == (0, pytest.approx(1))
    half = judge_landmarks((true + true[0]) / 2, true)
    assert half["m_ld_ratio"] == pytest.approx(0.5, abs=1e-6)
    assert half["gain"] == pytest.approx(0.5, abs=0.05)
    assert half["lvd"] == pytest.approx(still["lvd"] / 2)


def test_what_the_head_does_is_not_held_against_the_mouth() -> None:
    true = spoken_face()
    turned = true.copy()
    for number in range(1, len(true)):
        angle = 0.01 * number
        turn = np.array([[np.cos(angle), -np.sin(angle), number], [np.sin(angle), np.cos(angle), -number]])
        turned[number] = apply_similarity(1.01 * turn, true[number])
    values = judge_landmarks(true, turned)
    assert values["m_ld"] < 1e-6
    assert values["r_at_zero"] == pytest.approx(1)


def test_a_late_mouth_has_a_positive_lag() -> None:
    true = spoken_face()
    late = np.concatenate([true[:1], true[:1], true[:-2]])
    values = judge_landmarks(late, true)
    assert values["lag"] == 2
    assert values["r_best"] > values["r_at_zero"]


def test_features_are_read_at_the_frames_time() -> None:
    ramp = np.arange(200, dtype=np.float32)[:, None]
    for rate in (50, 100):
        around = features_around(ramp, rate, np.array([0.5, 1.013]), 0.02)
        assert around.shape == (2, 13)
        expected = rate * (np.array([[0.5], [1.013]]) + np.linspace(-0.12, 0.12, 13))
        assert np.allclose(around, expected, atol=1e-3)
    assert np.array_equal(features_around(ramp, 50, np.array([0.0, 99.0]), 0.04)[:, [0, -1]], [[0, 6], [199, 199]])


def test_the_ridge_learns_what_the_sound_tells_and_nothing_from_noise(data) -> None:
    train, val = data.split("train"), data.split("val")

    def correlation(ridge: Callable[[np.ndarray, int, float], np.ndarray]) -> float:
        found = [
            mouth_correlation(ridge(clip.waveform(), 30, 25.0), mouth_opening(clip.landmarks())).r_at_zero
            for clip in val
        ]
        return min(found)

    ridge = fit_ridge(train, MEL)
    assert correlation(ridge) > 0.8
    random = np.random.default_rng(0)
    deaf = fit_ridge(train, SpeechFeatures(lambda _: random.standard_normal((120, 8)), rate=100, step_s=0.04))
    assert correlation(deaf) < 0.5


def test_the_ridge_needs_two_speakers(data) -> None:
    with pytest.raises(InputError, match="2 speakers"):
        fit_ridge(data.split("train")[:1], MEL)


def test_every_row_of_every_clip_is_scored(judged, data) -> None:
    scores, curves, distances = judged
    assert len(scores) == 4 * (len(ROWS) + 1)
    groups = grouped(scores, lambda score: score.group, 0)
    assert list(groups) == ["made"]
    rows = groups["made"]
    assert rows[STATIC]["m_ld_ratio"].median == pytest.approx(1)
    assert rows[BASELINE]["r_at_zero"].median > 0.8
    assert "m_ld" not in rows[BASELINE]
    assert rows[OURS] != rows[STREAMED]
    assert distances["made"].keys() == set(ROWS)
    assert rows[OURS]["width_r"].count == 4
    assert all(row["r_at_zero"].count == 4 for row in rows.values())
    for entry, clip in zip(curves, data.split("val"), strict=True):
        assert entry.key == clip.info.key
        assert np.allclose(entry.openings[TRUE], mouth_opening(clip.landmarks()[1:]), atol=1e-5)
        assert len(entry.openings[GENERATED]) == 29


def test_the_same_seed_gives_the_same_scores(judged, data, tiny_pipeline) -> None:
    again, *_ = evaluate_landmarks(tiny_pipeline, data, data.split("val"), {}, seed=3)
    assert [str(score) for score in again] == [str(score) for score in judged[0] if score.row in ROWS]
    other, *_ = evaluate_landmarks(tiny_pipeline, data, data.split("val"), {}, seed=4)
    assert {one.row for one, two in zip(again, other, strict=True) if str(one) != str(two)} == {BABBLE}


def test_babble_is_of_other_speakers(data) -> None:
    clips = data.split("val", most_per_speaker=1)
    voices = babble(clips[0], clips, 40_000)
    other = np.resize(clips[1].waveform(), 40_000)
    assert voices.shape == (40_000,)
    assert np.corrcoef(voices, other)[0, 1] == pytest.approx(1)
    with pytest.raises(InputError, match="2 speakers"):
        babble(clips[0], clips[:1], 100)


def test_a_telephone_keeps_only_its_band() -> None:
    seconds = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tones = {hertz: 0.2 * np.sin(2 * np.pi * hertz * seconds) for hertz in (150, 1000, 3800, 6000)}
    speech = telephone(np.sum(list(tones.values()), axis=0).astype(np.float32))
    assert speech.sample_rate == 8000
    heard = np.concatenate(list(speech.blocks(SAMPLE_RATE)))[1000:-1000]
    assert np.abs(heard - tones[1000][1000:-1000]).max() < 0.01


def test_the_time_of_the_encoder_is_told_apart(tiny_pipeline, data) -> None:
    sound = np.resize(data.split("val")[0].waveform(), 2 * SAMPLE_RATE)
    whole = real_time_factors(tiny_pipeline, sound, open_face())
    streamed = real_time_factors(tiny_pipeline, sound, open_face(), look_ahead_s=0.2)
    assert 0 < whole.alone < whole.with_encoder < streamed.with_encoder


def test_the_clips_shown_are_those_in_the_middle() -> None:
    values = [0.9, -0.2, 0.5, 0.1, 0.6, 0.4, 0.99]
    scores = [Score(str(r), "made", "a", "", False, OURS, {"r_at_zero": r}) for r in values]
    curves = [MouthCurves(str(r), 25.0, {TRUE: [0.1, 0.2], GENERATED: [0.1, 0.3]}) for r in values]
    assert [entry.key for entry in middle_curves(curves, scores)] == ["0.4", "0.5", "0.6"]
    assert [entry.key for entry in middle_curves(curves[:1], scores[:1])] == ["0.9"]
    figure = ElementTree.fromstring(opening_figure(middle_curves(curves, scores), scores))
    space = {"svg": "http://www.w3.org/2000/svg"}
    assert len(figure.findall(".//svg:polyline", space)) == 6
    assert "r at lag 0 is 0.40" in "".join(figure.itertext())


def test_the_script_prints_tables_and_keeps_figures(script, judged, tmp_path, capsys) -> None:
    scores, curves, distances = judged
    groups = grouped(scores, lambda score: score.group, 0)
    script.print_shapes(groups, distances)
    shapes = capsys.readouterr().out
    assert "### Shapes, made" in shapes
    assert [line.split("|")[1].strip() for line in shapes.splitlines() if line.startswith("| ")][2:] == list(ROWS)
    script.print_tables(groups, scores, [*ROWS, BASELINE])
    printed = capsys.readouterr().out
    assert "### made: 4 clips, 2 speakers" in printed
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in rows}) == 1
    assert "nan" not in printed
    script.write_json_report(tmp_path / "report.json", {"seed": 0}, groups, {}, scores)
    kept = json.loads((tmp_path / "report.json").read_text())
    assert kept["by_corpus"]["made"][OURS]["r_at_zero"]["count"] == 4
    script.write_plots(tmp_path / "plots", scores, curves)
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["opening-made.svg"]
