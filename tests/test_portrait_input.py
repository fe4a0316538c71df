import io
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from skimage import data

from atldiff.errors import FaceError, InputError
from atldiff.face.detection import FaceDetector
from atldiff.face.portrait import MAX_SIDE, load_portrait, portrait_from_video, select_face
from atldiff.face.topology import MOUTH, NOSE_TIP, interocular_distance
from atldiff.image.warp import thin_plate_flow, warp
from media_files import sine, write_sound, write_video

QUADRANTS = np.zeros((48, 64, 3), dtype=np.uint8)
QUADRANTS[:24, :32] = (200, 40, 40)
QUADRANTS[:24, 32:] = (40, 200, 40)
QUADRANTS[24:, :32] = (40, 40, 200)
QUADRANTS[24:, 32:] = (210, 210, 210)


@pytest.fixture(scope="module")
def detector() -> Iterator[FaceDetector]:
    with FaceDetector() as detector:
        yield detector


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return data.astronaut()


def saved(path: Path, picture: Image.Image | np.ndarray, **options: Any) -> Path:
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    picture.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        (".png", {}, 0),
        (".bmp", {}, 0),
        (".tiff", {}, 0),
        (".jpg", {"quality": 95, "subsampling": 0}, 12),
        (".webp", {"lossless": True}, 0),
        (".avif", {"quality": 95, "subsampling": "4:4:4"}, 12),
        (".jp2", {}, 2),
        (".gif", {}, 8),
    ],
)
def test_formats(tmp_path, suffix, options, tolerance):
    path = saved(tmp_path / f"a{suffix}", QUADRANTS, **options)
    for source in (path, str(path)):
        image = load_portrait(source)
        assert image.shape == QUADRANTS.shape
        assert image.dtype == np.uint8
        assert np.abs(image.astype(int) - QUADRANTS).max() <= tolerance


def test_the_content_decides_not_the_name(tmp_path):
    path = saved(tmp_path / "a.png", QUADRANTS).rename(tmp_path / "a.jpg")
    assert np.array_equal(load_portrait(path), QUADRANTS)


def test_pictures_and_arrays_from_memory():
    assert np.array_equal(load_portrait(Image.fromarray(QUADRANTS)), QUADRANTS)
    result = load_portrait(QUADRANTS)
    assert np.array_equal(result, QUADRANTS)
    result[:] = 0
    assert QUADRANTS.any()
    assert np.array_equal(load_portrait(QUADRANTS[::2, ::-1]), QUADRANTS[::2, ::-1])
    grey = QUADRANTS[..., 0]
    assert np.array_equal(load_portrait(grey), np.stack([grey] * 3, axis=-1))
    assert load_portrait(np.full((1, 1), 7, np.uint8)).tolist() == [[[7, 7, 7]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation):
    turns = {
        1: lambda x: x,
        2: np.fliplr,
        3: lambda x: np.rot90(x, 2),
        4: np.flipud,
        5: lambda x: np.transpose(x, (1, 0, 2)),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: np.rot90(np.transpose(x, (1, 0, 2)), 2),
        8: lambda x: np.rot90(x, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(turns[orientation](QUADRANTS))
    path = saved(tmp_path / "a.jpg", stored, exif=exif, quality=95, subsampling=0)
    image = load_portrait(path)
    assert image.shape == QUADRANTS.shape
    assert np.abs(image.astype(int) - QUADRANTS).max() <= 12


def test_transparency_is_laid_on_mid_grey(tmp_path):
    alpha = np.dstack([QUADRANTS, np.full((48, 64), 255, np.uint8)])
    alpha[:24, :, 3] = 0
    alpha[24:, :32, 3] = 128
    for source in (alpha, saved(tmp_path / "a.png", alpha), saved(tmp_path / "a.webp", alpha, lossless=True)):
        image = load_portrait(source)
        assert (image[:24] == 128).all()
        assert np.abs(image[24:, :32].astype(int) - (84, 84, 164)).max() <= 1
        assert (image[24:, 32:] == 210).all()
    palette = Image.fromarray(QUADRANTS).quantize(8)
    index = palette.getpixel((0, 0))
    image = load_portrait(saved(tmp_path / "p.png", palette, transparency=index))
    assert (image[:24, :32] == 128).all()
    assert np.abs(image[24:, 32:].astype(int) - 210).max() <= 8
    grey = Image.fromarray(QUADRANTS[..., 0]).convert("LA")
    grey.putalpha(0)
    assert (load_portrait(grey) == 128).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "F", "I"])
def test_other_modes(mode):
    source = Image.fromarray(np.full((16, 16, 3), 255, np.uint8))
    picture = source.convert("L").convert(mode) if mode in "FI" else source.convert(mode)
    if mode == "I":
        picture = Image.fromarray(np.full((16, 16), 65535, np.int32))
    image = load_portrait(picture)
    assert image.shape == (16, 16, 3)
    assert (image >= 254).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    image = load_portrait(saved(tmp_path / f"a{suffix}", ramp))
    assert np.abs(image - (ramp / 257.0)[..., None]).max() <= 0.51


def test_another_colour_profile_is_converted_to_srgb(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = load_portrait(saved(tmp_path / "a.png", QUADRANTS, icc_profile=srgb))
    assert np.abs(same.astype(int) - QUADRANTS).max() <= 1
    swapped = srgb.replace(b"rXYZ", b"tmp_", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"tmp_", b"bXYZ", 1)
    other = load_portrait(saved(tmp_path / "b.png", QUADRANTS, icc_profile=swapped))
    assert np.abs(other.astype(int) - QUADRANTS[..., ::-1]).max() <= 3
    broken = saved(tmp_path / "c.png", QUADRANTS, icc_profile=b"not a profile")
    assert np.array_equal(load_portrait(broken), QUADRANTS)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_only_the_first_frame_of_an_animation(tmp_path, suffix):
    first, second = Image.new("RGB", (32, 32), (200, 40, 40)), Image.new("RGB", (32, 32), (40, 40, 200))
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=[second], duration=100)
    image = load_portrait(tmp_path / f"a{suffix}")
    assert np.abs(image.astype(int) - (200, 40, 40)).max() <= 8


def test_large_pictures_are_reduced_with_a_warning(tmp_path, caplog):
    path = saved(tmp_path / "large.png", Image.new("RGB", (5000, 500), (10, 20, 30)))
    image = load_portrait(path)
    assert image.shape == (410, MAX_SIDE, 3)
    assert (image == (10, 20, 30)).all()
    assert "5000×500 pixels; reduced to 4096×410" in caplog.text
    assert load_portrait(np.zeros((9000, 1, 3), np.uint8)).shape == (MAX_SIDE, 1, 3)


def fails(source: object, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_portrait(source)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    for word in ("expected", *words):
        assert word in text, text


def test_a_decompression_bomb(tmp_path):
    path = saved(tmp_path / "bomb.png", Image.new("1", (20_000, 20_000)))
    fails(path, "bomb.png", "too many pixels", "megapixels")


def test_files_that_are_no_pictures(tmp_path):
    fails(tmp_path / "none.jpg", "none.jpg", "does not exist")
    fails(tmp_path, "is a folder")
    for name, content, words in [
        ("empty.jpg", b"", "is empty"),
        ("text.jpg", b"hello, this is no picture\n" * 50, "cannot be read as a picture"),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read as a picture"),
    ]:
        (tmp_path / name).write_bytes(content)
        fails(tmp_path / name, name, words)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".bmp", ".gif"])
def test_truncated_pictures(tmp_path, astronaut, suffix, share):
    content = saved(tmp_path / f"whole{suffix}", astronaut).read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[: int(len(content) * share)])
    fails(path, path.name)
    with pytest.raises(InputError) as caught:
        load_portrait(path)
    assert "bytes" not in str(caught.value)
    assert "image file" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((8, 8, 2), np.uint8),
        np.full((8, 8, 3), -0.5, np.float32),
        np.full((8, 8, 3), 200.0),
        np.zeros((8, 8), np.int32),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        Image.new("RGB", (0, 5)),
        b"",
        {"picture": 1},
        "https://example.org/a.jpg",
        None,
    ],
)
def test_other_objects(source):
    fails(source)


def test_a_broken_picture_in_memory(astronaut):
    buffer = io.BytesIO()
    Image.fromarray(astronaut).save(buffer, "JPEG")
    fails(Image.open(io.BytesIO(buffer.getvalue()[:9000])), "damaged or incomplete")


def test_the_first_frame_of_a_video_with_a_face(tmp_path, astronaut, detector):
    head = astronaut[:256, 96:352]
    blank = np.full_like(head, 128)
    path = write_video(tmp_path / "clip.mp4", np.stack([blank] * 10 + [head] * 10), 25)
    image = load_portrait(path, detector)
    assert np.abs(image.astype(int) - head).mean() < 8
    fails(path, "clip.mp4", "cannot be read as a picture")


def test_a_turned_video_is_set_upright(tmp_path, astronaut, detector):
    head = astronaut[:256, 96:320]
    for turns in (0, 1, 2, 3):
        stored = np.ascontiguousarray(np.rot90(head, -turns))
        path = write_video(tmp_path / "phone.mp4", stored[None].repeat(3, axis=0), 25, rotation=90 * turns)
        image = load_portrait(path, detector)
        assert image.shape == head.shape
        assert np.abs(image.astype(int) - head).mean() < 8


def test_videos_without_a_face(tmp_path, detector):
    blank = np.full((64, 64, 3), 128, np.uint8)
    with pytest.raises(FaceError, match=r"no face in 2 frames from the first 10 s of .*blank.mp4; expected"):
        portrait_from_video(write_video(tmp_path / "blank.mp4", np.stack([blank] * 5), 25), detector)
    (tmp_path / "text.jpg").write_bytes(b"hello, this is no picture\n" * 50)
    sound = write_sound(tmp_path / "sound.wav", sine(0.5, 16000), 16000)
    for path, words in ((tmp_path / "text.jpg", "cannot be read as a picture or video"), (sound, "has no picture")):
        with pytest.raises(InputError, match=words):
            load_portrait(path, detector)


class Blind:
    """A detector that sees no face, and remembers the sizes of what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, ...]] = []

    def detect(self, image: np.ndarray) -> list[np.ndarray]:
        self.shown.append(image.shape)
        return []


def test_the_search_for_a_face_in_a_video_is_limited(tmp_path, monkeypatch) -> None:
    long = write_video(tmp_path / "long.mp4", np.zeros((130, 16, 16, 3), np.uint8), 10)
    blind = Blind()
    with pytest.raises(FaceError, match="no face in 13 frames from the first 10 s"):
        load_portrait(long, blind)
    assert blind.shown == [(16, 16, 3)] * 13

    large = write_video(tmp_path / "large.mp4", np.zeros((3, 64, 2048, 3), np.uint8), 5)
    blind = Blind()
    with pytest.raises(FaceError, match="no face in 3 frames"):
        load_portrait(large, blind)
    assert blind.shown == [(32, 1024, 3)] * 3

    monkeypatch.setattr("atldiff.face.portrait.VIDEO_SEARCH_PIXELS", 16 * 16 * 8)
    with pytest.raises(FaceError, match="no face in 3 frames"):
        load_portrait(long, Blind())


def test_a_video_keeps_its_size_where_it_is_searched_at_a_smaller_one(tmp_path, astronaut, detector) -> None:
    large = np.asarray(Image.fromarray(astronaut[:256, 96:352]).resize((1280, 1280)))
    image = load_portrait(write_video(tmp_path / "large.mp4", large[None].repeat(2, axis=0), 25), detector)
    assert image.shape == (1280, 1280, 3)


def test_a_face_is_selected(astronaut, detector):
    landmarks, count = select_face(astronaut, detector)
    assert count == 1
    assert landmarks.shape == (68, 2)
    again, _ = select_face(astronaut, detector, number=1)
    assert np.array_equal(landmarks, again)


def test_the_largest_of_several_or_the_numbered_one(astronaut, detector, caplog):
    head = Image.fromarray(astronaut[:256, 96:352])
    scene = Image.new("RGB", (800, 300), (128, 128, 128))
    for left, side in ((0, 200), (240, 290), (560, 230)):
        scene.paste(head.resize((side, side)), (left, 0))
    image = np.asarray(scene)
    with caplog.at_level(logging.INFO, "atldiff"):
        largest, count = select_face(image, detector)
    assert count == 3
    assert 240 < largest[:, 0].mean() < 530
    assert "3 faces found; taking the largest (choose with --face N)" in caplog.text
    middles = [select_face(image, detector, number)[0][:, 0].mean() for number in (1, 2, 3)]
    assert middles[0] < 200 < middles[1] < 540 < middles[2]
    for number in (0, 4, -1):
        with pytest.raises(FaceError, match=f"no face number {number}: 3 faces were found; expected 1 to 3"):
            select_face(image, detector, number)


def test_no_face_and_too_small_a_face(astronaut, detector):
    with pytest.raises(FaceError, match="no face found in the portrait"):
        select_face(np.full((200, 200, 3), 128, np.uint8), detector)
    small = np.asarray(Image.fromarray(astronaut[:256, 96:352]).resize((96, 96), Image.Resampling.LANCZOS))
    size = np.ptp(select_face(small, detector, minimum=1)[0], axis=0).max()
    assert 20 < size < 48
    with pytest.raises(FaceError, match=f"the face is {size:.0f} pixels large; expected at least 48"):
        select_face(small, detector)


@pytest.mark.skipif("ATLDIFF_DATA" not in os.environ, reason="needs real clips")
@pytest.mark.parametrize("pattern", ["grid/s1/*.mp4", "lrwar/sp22/*.mp4"])
def test_real_clips(pattern, detector):
    clip = min(Path(os.environ["ATLDIFF_DATA"]).glob(pattern))
    image = load_portrait(clip, detector)
    _, count = select_face(image, detector)
    assert count >= 1


def test_a_mouth_beyond_the_picture_is_refused(portrait: Path, detector: FaceDetector) -> None:
    picture = load_portrait(portrait)
    landmarks, _ = select_face(picture, detector)
    mouth = landmarks[MOUTH]
    cut = picture[: int(mouth[:, 1].mean()) + 1]
    with pytest.raises(FaceError, match=r"mouth reaches beyond the picture|no face found"):
        select_face(cut, detector)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_face_is_found_however_it_lies(portrait: Path, detector: FaceDetector, turns: int) -> None:
    picture = load_portrait(portrait)
    upright, _ = select_face(picture, detector)
    turned, count = select_face(np.rot90(picture, turns).copy(), detector)
    back = turned
    for _ in range(turns):
        back = np.stack([picture.shape[1] - back[:, 1], back[:, 0]], axis=1)
    assert count == 1
    assert np.linalg.norm(back - upright, axis=1).mean() < 1


def test_a_picture_with_a_bomb_in_its_text_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    bomb = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    text = b"comment\0\0" + zlib.compress(bytes(2**21))
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"zTXt", text) + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"bomb\.png cannot be read as a picture"):
        load_portrait(bomb)


def test_a_head_that_is_turned_aside_is_warned_of(astronaut, detector, caplog):
    """Half a face made narrow is what a head that is turned aside looks like to the camera."""
    landmarks, _ = select_face(astronaut, detector)
    assert not caplog.records
    middle = round(float(landmarks[NOSE_TIP, 0]))
    halves = [Image.fromarray(half) for half in (astronaut[:, :middle], astronaut[:, middle:])]
    narrow = halves[1].resize((halves[1].width * 2 // 5, halves[1].height))
    select_face(np.concatenate([np.asarray(halves[0]), np.asarray(narrow)], axis=1), detector)
    assert "turned aside" in caplog.text


def test_a_wide_open_mouth_is_warned_of(astronaut, detector, caplog):
    landmarks, _ = select_face(astronaut, detector)
    parted = landmarks.copy()
    parted[[55, 56, 57, 58, 59, 65, 66, 67, *range(5, 12)], 1] += 0.2 * interocular_distance(landmarks)
    corner = landmarks.mean(axis=0) - 100
    crop = astronaut[int(corner[1]) : int(corner[1]) + 200, int(corner[0]) : int(corner[0]) + 200]
    own, target = (torch.from_numpy(points - corner.astype(int))[None].float() for points in (landmarks, parted))
    picture = torch.from_numpy(crop).permute(2, 0, 1)[None] / 255
    bent = warp(picture, thin_plate_flow(own, target, 200), 200)[0].permute(1, 2, 0)
    select_face((bent.numpy() * 255).astype(np.uint8), detector)
    assert "wide open" in caplog.text
