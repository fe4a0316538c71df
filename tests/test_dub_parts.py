"""What dubbing is made of: frames as they are held, cuts, lengths, sound, heads, mouths, covers, likeness."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from atldiff.dub.covered import covered
from atldiff.dub.dubber import MOUTH_FPS, SpokenMouth
from atldiff.dub.head import face_model, fit_heads, steady
from atldiff.dub.length import make_timeline
from atldiff.dub.likeness import SAME, looks_of
from atldiff.dub.mouth import RestingMouth, new_landmarks
from atldiff.dub.options import DubOptions
from atldiff.dub.sound import DubbedSound
from atldiff.errors import InputError
from atldiff.face.crop import FaceCrop
from atldiff.face.topology import mouth_opening
from atldiff.media.cuts import cells, find_cuts
from atldiff.media.film import Film
from atldiff.media.planes import Colours, Planes
from atldiff.speech.waveform import Speech
from dub_films import empty_frames, moving_frames, write_film
from face_shapes import open_face
from media_files import sine, write_video

RNG = np.random.default_rng(5)


def noise_planes(colours: Colours, side: int = 64) -> Planes:
    """Colours that RGB knows, each of them over 4×4 pixels."""
    blocks = RNG.integers(40, 200, (side // 4, side // 4, 3), dtype=np.uint8)
    return Planes.of_rgb(blocks.repeat(4, axis=0).repeat(4, axis=1), colours)


@pytest.mark.parametrize("colours", [Colours(), Colours(2, 2, 2, True), Colours(5, 6, 6), Colours(9, 1, 1)])
def test_what_is_not_changed_stays_to_the_last_bit(colours: Colours) -> None:
    planes = noise_planes(colours)
    box = (16, 8, 48, 40)
    changed = np.zeros((32, 32), dtype=bool)
    changed[10:20, 10:20] = True
    made = planes.with_rgb(box, 255 - planes.rgb(box), changed)
    outside, beside = np.ones((64, 64), dtype=bool), np.ones((32, 32), dtype=bool)
    outside[18:28, 26:36] = beside[9:14, 13:18] = False
    assert np.array_equal(made.luma[outside], planes.luma[outside])
    assert np.array_equal(made.chroma[0][beside], planes.chroma[0][beside])
    assert not np.array_equal(made.luma[~outside], planes.luma[~outside])
    assert made.colours == colours


@pytest.mark.parametrize("colours", [Colours(), Colours(2, 2, 2, True), Colours(5, 6, 6)])
def test_pixels_go_to_rgb_and_back_unharmed(colours: Colours) -> None:
    planes = noise_planes(colours)
    again = planes.with_rgb((0, 0, 64, 64), planes.rgb())
    assert np.abs(again.luma.astype(int) - planes.luma).max() <= 2
    assert np.abs(again.luma.astype(int) - planes.luma).mean() < 0.6


def test_full_range_is_read_as_such() -> None:
    grey = np.full((16, 16, 3), 255, dtype=np.uint8)
    assert Planes.of_rgb(grey, Colours(is_full=True)).luma.max() == 255
    assert Planes.of_rgb(grey, Colours()).luma.max() == 235
    assert Planes.of_rgb(grey, Colours()).rgb().min() >= 254


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_film_that_the_camera_turned_is_upright(tmp_path: Path, rotation: int) -> None:
    frames = empty_frames(3, 64)[:, :, :48]
    path = write_video(tmp_path / "turned.mp4", np.rot90(frames, -rotation // 90, axes=(1, 2)), rotation=rotation)
    _, planes = next(Film.open(path).frames())
    assert planes.luma.shape in ((64, 48), (48, 64))
    upright = planes.rgb().astype(float)
    top, bottom = upright[:8].mean(), upright[-8:].mean()
    left, right = upright[:, :8].mean(), upright[:, -8:].mean()
    assert abs(left - right) < 3
    assert bottom - top > 80


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_every_usual_kind_of_pixels_is_read(tmp_path: Path, pixels: str) -> None:
    frames = empty_frames(3, 64)
    path = write_film(tmp_path / "film.mkv", frames, [0, 40, 80], pixels=pixels)
    shown = [planes.rgb() for _, planes in Film.open(path).frames()]
    assert np.abs(np.stack(shown).astype(int) - frames).mean() < 3


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [0, 33, 90, 100, 190, 400]
    path = write_film(tmp_path / "uneven.mkv", empty_frames(6, 64), times)
    film = Film.open(path)
    assert [round(float(time * film.time_base * 1000)) for time, _ in film.frames()] == times


def test_a_film_with_a_damaged_middle_goes_on_after_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "whole.ts", RNG.integers(0, 255, (40, 64, 64, 3), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 10] = RNG.integers(0, 255, len(content) // 10, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    times = [time for time, _ in Film.open(path).frames()]
    film = Film.open(path)
    assert 20 <= len(times) <= 40
    assert np.all(np.diff(times) > 0)
    assert float(times[-1] * film.time_base) > 1.4


def test_pictures_and_sounds_are_no_films(tmp_path: Path, portrait: Path, speech: Path) -> None:
    with pytest.raises(InputError, match="expected a video of a talking face"):
        Film.open(speech)
    with pytest.raises(InputError, match="expected a video of a talking face"):
        Film.open(portrait)


def test_cuts_are_found_and_flashes_and_pans_are_not() -> None:
    first, second = (RNG.integers(0, 255, (96, 128)).astype(np.uint8) for _ in range(2))
    first, second = (np.kron(each[::16, ::16], np.ones((16, 16), np.uint8)) for each in (first, second))
    still = [first] * 6
    flash = [*still, np.clip(first.astype(int) + 90, 0, 255).astype(np.uint8), *still]
    pan = [np.roll(first, 9 * step, axis=1) for step in range(12)]

    def cuts(pictures: list[np.ndarray]) -> list[int]:
        little = np.stack([cells(each) for each in pictures])
        return find_cuts(np.abs(np.diff(little, axis=0)).mean(axis=(1, 2))).tolist()

    assert cuts([*still, *[second] * 6]) == [6]
    assert cuts(flash) == []
    assert cuts(pan) == []


TIMES = np.arange(50) * 40
BASE = Fraction(1, 1000)


def timeline(seconds: float, times: np.ndarray = TIMES, last_cut: int = 0, frame_bytes: int = 1, **options):
    return make_timeline(times, 40, BASE, Fraction(seconds), DubOptions(**options), last_cut, frame_bytes)


def test_a_longer_speech_plays_the_last_second_to_and_fro() -> None:
    made = timeline(7.0)
    assert made.source_N[:50].tolist() == list(range(50))
    assert made.source_N.min() == 0 and made.source_N[50:].min() == made.held_from == 24
    assert np.abs(np.diff(made.source_N)).max() == 1
    assert np.all(np.diff(made.times_N) == 40)
    assert abs(made.duration_s - 7.0) < 0.04


def test_what_is_played_to_and_fro_has_no_cut_in_it_and_fits_into_memory() -> None:
    assert timeline(7.0, last_cut=40).source_N[50:].min() == 40
    assert timeline(7.0, last_cut=49).source_N[50:].tolist() == [49] * 125
    assert timeline(7.0, frame_bytes=64 << 20).source_N[50:].min() == 46


def test_uneven_times_go_back_as_they_came() -> None:
    made = timeline(0.9, times=np.array([0, 100, 150, 400]))
    assert made.source_N.tolist() == [0, 1, 2, 3, 2, 1, 0][: len(made)]
    assert np.diff(made.times_N).tolist() == [100, 50, 250, 250, 50, 100][: len(made) - 1]


def test_a_longer_speech_may_begin_the_video_anew_or_be_refused() -> None:
    made = timeline(5.0, longer="loop")
    assert made.source_N[50:55].tolist() == [0, 1, 2, 3, 4] and made.times_N[50] == 2000
    assert len(made) == 125
    with pytest.raises(InputError, match=r"speech lasts 5\.00 s and the video 2\.00 s"):
        timeline(5.0, longer="error")
    assert len(timeline(2.03, longer="error")) == 50


def test_a_shorter_speech_keeps_the_video_or_cuts_it() -> None:
    assert len(timeline(1.0)) == 50
    cut = timeline(1.0, shorter="cut")
    assert len(cut) == 25 and cut.duration_s == 1.0


def test_one_frame_is_held_for_as_long_as_somebody_speaks() -> None:
    made = timeline(1.0, times=np.array([0]))
    assert set(made.source_N.tolist()) == {0} and len(made) == 25


@pytest.mark.parametrize(
    "wrong", [{"longer": "stretch"}, {"shorter": "slow"}, {"old_sound": 1.5}, {"old_sound": "loud"}, {"face": 0}]
)
def test_options_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        DubOptions(**wrong)


def test_the_new_sound_lies_over_the_old_and_lasts_as_long_as_the_picture() -> None:
    new = Speech.from_array(sine(0.5, 16_000, hertz=300.0)[0], 16_000)
    old = Speech.from_array(sine(1.0, 48_000, 2, hertz=100.0), 48_000)
    alone = np.concatenate(list(DubbedSound(new, 2.0, (2, 48_000)).stereo_blocks()), axis=1)
    assert alone.shape == (2, 96_000)
    assert np.abs(alone[:, 30_000:]).max() == 0 and np.abs(alone[:, :20_000]).max() > 0.4
    both = np.concatenate(list(DubbedSound(new, 2.0, (2, 48_000), old, 0.5).stereo_blocks()), axis=1)
    assert np.abs(both[:, 30_000:40_000]).max() == pytest.approx(0.25, abs=0.02)
    assert np.abs(both[:, 60_000:]).max() == 0
    again = np.concatenate(list(DubbedSound(new, 2.0, (2, 48_000), old, 0.5, 1.0).stereo_blocks()), axis=1)
    assert np.allclose(again[:, 80_000:90_000], both[:, 32_000:42_000], atol=1e-4)


def solid_faces(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A face with depths that turns, grows and moves, (F, 68, 3), and by how much it is turned."""
    flat = open_face()
    depth = 0.004 * ((flat[:, 0] - 64) ** 2) - 6 * np.exp(-0.5 * ((flat[:, 0] - 64) / 8) ** 2)
    face = np.column_stack([flat, depth]) - np.array([64.0, 64.0, 0.0])
    angles = 0.5 * np.sin(np.arange(count) / 6)
    turns = np.stack([[[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]] for a in angles])
    scale = 2 + 0.2 * np.cos(np.arange(count) / 9)
    places = scale[:, None, None] * np.einsum("ki,fij->fkj", face, turns)
    return places + np.array([300.0, 200.0, 0.0]) + np.arange(count)[:, None, None] * [1.0, 0.5, 0.0], angles


def test_a_head_that_turns_is_laid_over_one_model() -> None:
    solid, angles = solid_faces(60)
    model = face_model(solid)
    heads = fit_heads(solid, model)
    assert np.abs(heads.project(np.broadcast_to(model, (60, 68, 3))) - solid[..., :2]).max() < 0.5
    assert np.allclose(heads.turned(), np.abs(angles), atol=0.06)
    assert np.abs(heads.restore(solid) - model).max() < 0.3


def test_steadying_takes_the_trembling_and_leaves_the_movement() -> None:
    time = np.arange(100) / 25
    path = 30 * time**2 - 4 * time
    trembling = RNG.normal(0, 1, 100)
    calm = steady(path + trembling, 25)
    assert np.abs(steady(path, 25)[5:-5] - path[5:-5]).max() < 1e-6
    assert (calm - path)[5:-5].std() < 0.75 * trembling.std()
    assert np.abs(np.diff(calm, 2)).mean() < 0.5 * np.abs(np.diff(path + trembling, 2)).mean()


def talking_places(opening: np.ndarray) -> np.ndarray:
    """(F, 68, 3) places of the model of a face whose lower lip and jaw go down by ``opening`` pixels."""
    places = np.repeat(np.column_stack([open_face(), np.zeros(68)])[None], len(opening), axis=0)
    closed = places.copy()
    closed[:, [61, 62, 63], 1] = closed[:, [67, 66, 65], 1] = 86.0
    lower = [*range(55, 60), 65, 66, 67]
    closed[:, lower, 1] += opening[:, None]
    closed[:, 5:12, 1] += 0.8 * opening[:, None]
    return closed


def test_an_open_mouth_shuts_and_the_new_speech_knows_nothing_of_the_old() -> None:
    old = 6 + 6 * np.sin(np.arange(200) / 3.1)
    own = talking_places(old)
    rest = RestingMouth(own)
    silent = new_landmarks(own, rest.near(own, 25.0), np.zeros((200, 68, 2)))
    assert mouth_opening(silent[..., :2]).max() < 0.01
    assert np.ptp(silent[:, 8, 1]) < 0.5
    new = 6 + 6 * np.sin(np.arange(200) / 5.3)
    moved = np.zeros((200, 68, 2))
    moved[:, [65, 66, 67], 1] = new[:, None]
    opening = mouth_opening(new_landmarks(own, rest.near(own, 25.0), moved)[..., :2])
    assert np.corrcoef(opening, new)[0, 1] > 0.99
    assert abs(np.corrcoef(opening, old)[0, 1] - np.corrcoef(new, old)[0, 1]) < 0.02


def test_spoken_mouths_are_read_at_any_time_and_come_to_rest() -> None:
    identity = open_face()
    closed = SpokenMouth([np.repeat(identity[None], 3, axis=0)], identity)
    base = closed.at(np.array([0.0]))[0]
    blocks = [identity + np.full((68, 2), float(number)) for number in range(50)]
    mouth = SpokenMouth(iter([np.stack(blocks[:7]), np.stack(blocks[7:30]), np.stack(blocks[30:])]), identity)
    first = mouth.at(np.array([0.0, 0.01, 0.05]))
    assert np.allclose((first - base)[:, 0, 0], np.array([0.0, 0.01, 0.05]) * MOUTH_FPS)
    later = mouth.at(np.array([0.5, 0.98, 1.05, 1.5, 9.0]))
    assert np.allclose((later - base)[:2, 0, 0], [25.0, 49.0])
    assert 0 < np.abs(later[2]).max() < np.abs(later[1]).max()
    assert np.abs(later[3:]).max() == 0


def test_what_lies_over_the_mouth_is_noticed() -> None:
    light = 1 + 0.2 * np.sin(np.arange(80) / 11)
    skin = 150 + 25 * np.sin(np.arange(12) / 2)[:, None] + np.zeros((12, 12))
    patches = (skin[None, ..., None] * np.array([1.0, 0.75, 0.6]) * light[:, None, None, None] * 0.8).astype(np.uint8)
    patches[30:42, 3:10, 1:11] = patches[60, 3:10, 1:11] = (40, 40, 45)
    poses = np.zeros((80, 3))
    hidden = covered(patches, poses, [np.arange(80)], 3)
    assert hidden[30:42].all() and not hidden[:30].any() and not hidden[42:].any()


def test_a_face_looks_like_itself(portrait: Path, detector) -> None:
    frames = moving_frames(portrait, 9)
    solid = [detector.detect_solid(frame)[0] for frame in (frames[0], frames[8])]
    whole = FaceCrop(np.eye(2, 3), frames.shape[1])
    first, later = (looks_of(frame, whole, points) for frame, points in zip(frames[[0, 8]], solid, strict=True))
    assert first.distance(first) < 1e-6
    assert first.distance(later) < 0.5 * SAME
    upside = looks_of(frames[0][::-1].copy(), whole, solid[0])
    assert first.distance(upside) > SAME
