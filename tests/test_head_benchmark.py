"""How the head's motion is judged against talkers' heads."""

import importlib.util
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest

from atldiff.data.prepared import PreparedClips
from atldiff.motion.head import CHANNELS, move_head
from atldiff.speech import SAMPLE_RATE
from face_shapes import open_face
from judged_head import head_spectrum, judge_head
from prepared_files import write_prepared

FPS, SECONDS = 25.0, 12
TIMES = np.arange(round(FPS * SECONDS)) / FPS


def swaying(yaw: np.ndarray) -> np.ndarray:
    """(F, 68, 2) of a face that turns to the side by (F,) degrees."""
    pose = np.zeros((len(yaw), len(CHANNELS)))
    pose[:, 1] = yaw
    return move_head(np.repeat(open_face()[None], len(yaw), axis=0), open_face(), pose)


def test_how_far_and_how_fast_a_head_turns_is_told() -> None:
    track = swaying(3 * np.sin(2 * np.pi * 0.5 * TIMES))
    values = judge_head(track, np.zeros(SECONDS * SAMPLE_RATE, np.float32), FPS)
    assert values["yaw_std"] == pytest.approx(3 / np.sqrt(2), rel=0.1)
    assert values["yaw_speed"] == pytest.approx(3 * 4 * 0.5, rel=0.1)
    assert values["roll_std"] < 0.1
    assert values["speed_r"] == 0
    hertz, power = head_spectrum(track, FPS)
    assert hertz[power[:, 1].argmax()] == pytest.approx(0.5)
    assert power[:, 1].sum() * hertz[1] == pytest.approx(values["yaw_std"] ** 2, rel=0.2)
    assert np.isnan(head_spectrum(track[:50], FPS)[1]).all()


def test_a_head_that_moves_while_the_voice_is_loud_goes_with_it() -> None:
    loud = (TIMES % 2 < 1).astype(float)
    sound = np.repeat(loud, round(SAMPLE_RATE / FPS)) * np.random.default_rng(0).normal(0, 0.1, SECONDS * SAMPLE_RATE)
    track = swaying(2 * loud * np.sin(2 * np.pi * 2 * TIMES))
    assert judge_head(track, sound.astype(np.float32), FPS)["speed_r"] > 0.7
    assert judge_head(np.roll(track, 25, axis=0), sound.astype(np.float32), FPS)["speed_r"] < -0.7


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks/head.py"
    specification = importlib.util.spec_from_file_location("head_benchmark", path)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_script_tells_true_and_made_apart(
    script: ModuleType, tiny_pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = PreparedClips.open(write_prepared(tmp_path / "made", ["val"] * 2, frames=110, size=64)).clips
    heads = script.made_heads(tiny_pipeline, clips, [0.0, 1.0])
    assert [len(track) for tracks in heads.values() for track in tracks] == [110] * 6
    script.print_table(heads, clips)
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows[2:] == [script.TRUE, "made, 0", "made, 1"]
    figure = ElementTree.fromstring(script.spectra(heads, clips))
    assert len(figure.findall(".//{http://www.w3.org/2000/svg}polyline")) == 9
