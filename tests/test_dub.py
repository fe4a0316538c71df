"""Videos dubbed from end to end: what changes and what does not, and what cannot be used."""

import os
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from atldiff.cli import main
from atldiff.dub.follow import FaceFollower
from atldiff.dub.shot import COVERED, DUBBED, NO_FACE, Shot
from atldiff.dub.survey import Survey, survey_film
from atldiff.errors import FaceError, InputError, OutputError
from atldiff.face.detection import FaceDetector
from atldiff.media.film import Film
from atldiff.media.planes import Colours, Planes
from atldiff.media.provenance import INTACT, read_provenance
from atldiff.pipeline import ATLDiffPipeline
from atldiff.render.dub import dub_video
from atldiff.speech.waveform import Speech
from dub_films import SIDE, empty_frames, moving_frames, write_film
from media_files import burst, sine, write_sound, write_video

torch.set_num_threads(1)


def shown(path: Path) -> tuple[np.ndarray, list[float]]:
    film = Film.open(path)
    read = [(planes.rgb(), float(time * film.time_base)) for time, planes in film.frames()]
    return np.stack([picture for picture, _ in read]), [time for _, time in read]


@pytest.fixture(scope="module")
def brief(word: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 0.4 s of the word."""
    samples = np.concatenate(list(Speech.open(word).blocks(16_000)))[:6400]
    return write_sound(tmp_path_factory.mktemp("brief") / "brief.wav", samples[None], 16_000)


@pytest.fixture(scope="module")
def film(portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.2 s of a moving face with a stereo tone."""
    path = tmp_path_factory.mktemp("films") / "face.mp4"
    return write_video(path, moving_frames(portrait, 30), 25, sine(1.2, 48_000, 2, hertz=500.0))


@pytest.fixture(scope="module")
def dubbed(film: Path, word: Path, tiny_pipeline: ATLDiffPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dubbed") / "out.mp4"
    dub_video(tiny_pipeline, film, word, path, crf=8)
    return path


def test_the_mouth_changes_and_nothing_else(film: Path, dubbed: Path, detector: FaceDetector) -> None:
    (old, old_times), (new, new_times) = shown(film), shown(dubbed)
    assert new.shape == old.shape
    assert np.allclose(new_times, old_times, atol=1e-4)
    survey = survey_film(Film.open(film), detector)
    low, high = survey.solid_F683[..., :2].min(axis=(0, 1)), survey.solid_F683[..., :2].max(axis=(0, 1))
    margin = 0.15 * float((high - low).max())
    face = np.zeros((SIDE, SIDE), dtype=bool)
    face[int(low[1] - margin) : int(high[1] + margin), int(low[0] - margin) : int(high[0] + margin)] = True
    eyes = slice(0, int(survey.solid_F683[:, 29, 1].min()))
    change = np.abs(new.astype(int) - old).mean(axis=(0, 3))
    mouth = survey.solid_F683[:, 48:, :2].mean(axis=(0, 1)).astype(int)
    assert change[~face].mean() < 1.5
    assert change[eyes].mean() < 1.5
    assert change[mouth[1] - 6 : mouth[1] + 6, mouth[0] - 8 : mouth[0] + 8].mean() > 5


def test_the_file_is_marked_and_has_the_new_sound(dubbed: Path, word: Path) -> None:
    assert read_provenance(dubbed).state == INTACT
    sound, said = Speech.open(dubbed), Speech.open(word)
    assert sound.channels == 2 and sound.sample_rate == 48_000
    assert abs(sound.duration_s - 1.2) < 0.05
    heard = np.concatenate(list(sound.blocks(16_000)))
    wanted = np.concatenate(list(said.blocks(16_000)))
    count = min(len(heard), len(wanted))
    assert np.corrcoef(heard[:count], wanted[:count])[0, 1] > 0.9


def test_the_first_frames_and_the_report(film: Path, word: Path, tiny_pipeline: ATLDiffPipeline) -> None:
    steps: list[tuple[int, int]] = []
    made = tiny_pipeline.dub(film, word, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (30, 30)
    assert (made.width, made.height, len(made), made.fps) == (SIDE, SIDE, 30, 25.0)
    assert made.report.dubbed == made.report.frames == 30 and not made.report.left
    frame = next(made)
    assert frame.shape == (SIDE, SIDE, 3) and frame.dtype == np.uint8
    second = next(made.with_landmarks())
    assert (second.number, second.time_s, second.landmarks.shape) == (1, 1 / 25, (68, 2))
    with pytest.raises(InputError, match="2 of the frames"):
        made.save("never.mp4")


def test_uneven_times_full_range_and_gaps_without_a_face(
    portrait: Path, word: Path, tiny_pipeline: ATLDiffPipeline, tmp_path: Path
) -> None:
    frames = np.concatenate([moving_frames(portrait, 16), empty_frames(8), moving_frames(portrait, 16)])
    times = np.cumsum([0, *([30, 50] * 20)][: len(frames)]).tolist()
    old = write_film(tmp_path / "uneven.mkv", frames, times, full_range=True)
    written = dub_video(tiny_pipeline, old, word, tmp_path / "out.mp4", crf=8)
    assert written.report.left == {"without the face": 8}
    assert written.report.cuts == 2
    (before, old_times), (after, new_times) = shown(old), shown(written.path)
    assert np.allclose(new_times, old_times, atol=1e-3)
    assert np.abs(after[16:24].astype(int) - before[16:24]).mean() < 2
    with av.open(str(written.path)) as container:
        assert next(container.decode(video=0)).color_range == 2


def test_a_turned_film_is_dubbed_upright(
    portrait: Path, brief: Path, tiny_pipeline: ATLDiffPipeline, tmp_path: Path
) -> None:
    frames = np.rot90(moving_frames(portrait, 6)[:, :, :160], -1, axes=(1, 2))
    old = write_video(tmp_path / "phone.mp4", np.ascontiguousarray(frames), rotation=90)
    upright, _ = shown(old)
    written = dub_video(tiny_pipeline, old, brief, tmp_path / "out.mp4", shorter="cut")
    assert written.size == upright.shape[2:0:-1]
    assert written.report.dubbed == written.report.frames


@pytest.mark.parametrize("fps", [1, 120])
def test_slow_and_fast_films(
    portrait: Path, brief: Path, tiny_pipeline: ATLDiffPipeline, tmp_path: Path, fps: int
) -> None:
    frames = moving_frames(portrait, 3 if fps == 1 else 24)
    old = write_video(tmp_path / "film.mp4", frames, fps)
    written = dub_video(tiny_pipeline, old, brief, tmp_path / "out.mp4")
    _, times = shown(written.path)
    assert np.allclose(np.diff(times), 1 / fps, atol=1e-4)
    assert written.report.frames == (3 if fps == 1 else 48)
    assert written.report.dubbed == written.report.frames


def test_one_frame_and_a_speech_ten_times_as_long(
    portrait: Path, word: Path, brief: Path, tiny_pipeline: ATLDiffPipeline, tmp_path: Path
) -> None:
    old = write_video(tmp_path / "still.mp4", moving_frames(portrait, 1))
    written = dub_video(tiny_pipeline, old, brief, tmp_path / "still-out.mp4")
    assert written.report.frames == 10
    short = write_video(tmp_path / "short.mp4", moving_frames(portrait, 3))
    written = dub_video(tiny_pipeline, short, word, tmp_path / "short-out.mp4")
    new, _ = shown(written.path)
    assert len(new) == 30
    jumps = np.abs(np.diff(new[:, : SIDE // 3].astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert jumps.max() < 12
    with pytest.raises(InputError, match="expected a speech that is not longer"):
        tiny_pipeline.dub(short, word, longer="error")


def test_the_old_sound_stays_under_the_new_where_it_is_asked_for(
    film: Path, tiny_pipeline: ATLDiffPipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture, portrait: Path
) -> None:
    said = write_sound(tmp_path / "burst.wav", burst(1.2, 16_000, 0.6), 16_000)
    written = dub_video(tiny_pipeline, film, said, tmp_path / "out.mp4", old_sound=0.5)
    heard = np.concatenate(list(Speech.open(written.path).blocks(16_000)))
    assert np.abs(heard[2000:6000]).max() == pytest.approx(0.25, abs=0.05)
    mute = write_video(tmp_path / "mute.mp4", moving_frames(portrait, 3))
    tiny_pipeline.dub(mute, said, old_sound=0.5)
    assert "has no sound" in caplog.text


def test_what_cannot_be_dubbed(
    tmp_path: Path, word: Path, portrait: Path, film: Path, tiny_pipeline: ATLDiffPipeline
) -> None:
    nobody = write_video(tmp_path / "nobody.mp4", empty_frames(6))
    with pytest.raises(FaceError, match="no face in any of the 6 frames"):
        tiny_pipeline.dub(nobody, word)
    with pytest.raises(InputError, match="expected a video"):
        tiny_pipeline.dub(portrait, word)
    with pytest.raises(InputError, match="expected a video"):
        tiny_pipeline.dub(word, word)
    with pytest.raises(FaceError, match="no face number 2: 1 face was"):
        tiny_pipeline.dub(film, word, face=2)
    with pytest.raises(InputError, match="got speech and text"):
        tiny_pipeline.dub(film, word, text="both")
    with pytest.raises(OutputError, match="it is the input"):
        dub_video(tiny_pipeline, film, word, film)
    assert len(shown(film)[0]) == 30


def test_a_dub_that_breaks_off_leaves_what_was_there(
    film: Path, word: Path, tiny_pipeline: ATLDiffPipeline, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"before")

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dub_video(tiny_pipeline, film, word, output, progress=stop)
    assert output.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [output]


def test_the_command(film: Path, word: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "new" / "out.mp4"
    model = ["--model", str(tiny_model), "--device", "cpu"]
    assert main(["dub", str(film), "--speech", str(word), "-o", str(output), "--badge", *model]) == 0
    said = capsys.readouterr().out
    assert "30 frames, 30 of them dubbed, 0 cuts" in said
    new, old = shown(output)[0], shown(film)[0]
    corner = np.abs(new[:, :20, SIDE // 2 :].astype(int) - old[:, :20, SIDE // 2 :]).mean()
    assert corner > 10
    assert main(["dub", str(film), str(word), str(tmp_path / "none" / "out.mp4"), "--longer", "never", *model]) == 2
    assert main(["dub", str(film), str(word), str(output), "--no-clobber", *model]) == 2
    assert not (tmp_path / "none").exists()


def survey_of(solid: np.ndarray, cuts: list[int], patches: np.ndarray) -> Survey:
    frames = len(solid)
    return Survey(SIDE, SIDE, Colours(), np.arange(frames) * 40, np.array(cuts, dtype=int), solid, patches)


@pytest.fixture(scope="module")
def surveyed(film: Path, detector: FaceDetector) -> Survey:
    return survey_film(Film.open(film), detector)


def test_frames_without_the_face_fade_and_short_gaps_are_bridged(surveyed: Survey) -> None:
    solid = np.tile(surveyed.solid_F683, (2, 1, 1))
    patches = np.tile(surveyed.patches, (2, 1, 1, 1))
    gaps = np.concatenate([np.arange(10, 13), np.arange(36, 48)])
    solid[gaps], patches[gaps] = np.nan, 0
    shot = Shot(survey_of(solid, [], patches), 25.0)
    assert (shot.fate_F[10:13] == DUBBED).all() and (shot.fate_F[36:48] == NO_FACE).all()
    assert shot.share_F[:30].min() == 1 and shot.share_F[36:48].max() == 0
    assert np.all(np.diff(shot.share_F[30:36]) <= 0) and 0 < shot.share_F[35] < 0.3
    assert np.all(np.diff(shot.share_F[48:54]) >= 0) and 0 < shot.share_F[48] < 0.3
    places = shot.at(np.array([50, 3, 11, 3]))
    assert np.allclose(places.picture_F682[1], places.picture_F682[3])
    assert np.abs(places.picture_F682[1] - solid[3, :, :2]).max() < 3


def test_frames_are_the_same_however_many_are_asked_for(surveyed: Survey) -> None:
    solid = np.tile(surveyed.solid_F683, (12, 1, 1))
    shot = Shot(survey_of(solid, [], np.tile(surveyed.patches, (12, 1, 1, 1))), 25.0)
    whole, part = shot.at(np.arange(360)), shot.at(np.arange(170, 175))
    for name in ("own_F683", "rest_F683", "picture_F682"):
        assert np.allclose(getattr(whole, name)[170:175], getattr(part, name), atol=1e-3)


def test_a_cut_is_no_fade(surveyed: Survey) -> None:
    solid, patches = np.tile(surveyed.solid_F683, (2, 1, 1)), np.tile(surveyed.patches, (2, 1, 1, 1))
    solid[30:45], patches[30:45] = np.nan, 0
    share = Shot(survey_of(solid, [30, 45], patches), 25.0).share_F
    assert share[29] == 1 and share[30:45].max() == 0 and share[45] == 1


def test_a_covered_mouth_is_left_alone(surveyed: Survey) -> None:
    solid, patches = np.tile(surveyed.solid_F683, (2, 1, 1)), np.tile(surveyed.patches, (2, 1, 1, 1)).copy()
    patches[20:32, 2:11, 2:11] = (25, 25, 30)
    shot = Shot(survey_of(solid, [], patches), 25.0)
    assert (shot.fate_F[20:32] == COVERED).all() and (shot.fate_F[:18] == DUBBED).all()


@pytest.mark.skipif("ATLDIFF_DATA" not in os.environ, reason="needs real clips: set ATLDIFF_DATA")
def test_two_faces_that_swap_places_are_told_apart(detector: FaceDetector, tmp_path: Path) -> None:
    data = Path(os.environ["ATLDIFF_DATA"]) / "grid"
    people = []
    for name in ("grid_A", "grid_B"):
        reading = Film.open(min((data / name).glob("*.mp4"))).frames()
        people.append(np.stack([next(reading)[1].rgb()[:, 40:320] for _ in range(12)]))
    first, second = people
    frames = np.concatenate([np.concatenate([first[:6], second[:6]], 2), np.concatenate([second[6:], first[6:]], 2)])
    film = Film.open(write_video(tmp_path / "swap.mp4", frames))
    left = survey_film(film, detector, 1).solid_F683[:, 30, 0]
    right = survey_film(film, detector, 2).solid_F683[:, 30, 0]
    assert (left[:6] < 280).all() and (left[6:] > 280).all()
    assert (right[:6] > 280).all() and (right[6:] < 280).all()


def test_a_face_is_followed_and_found_again(portrait: Path, detector: FaceDetector) -> None:
    follower = FaceFollower(detector, 25.0)
    frames = [*moving_frames(portrait, 4), *empty_frames(10), *moving_frames(portrait, 4)]
    seen = [follower.see(Planes.of_rgb(frame, Colours()), number in (4, 14)) for number, frame in enumerate(frames)]
    assert [each is not None for each in seen] == [True] * 4 + [False] * 10 + [True] * 4
