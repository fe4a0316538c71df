"""Portraits as phones, cameras, recorders and graphics programs write them, each read as its own player shows it."""

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pillow_heif
import pytest
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from av.video.stream import VideoStream
from PIL import Image, ImageCms

from atldiff.errors import FaceError, InputError
from atldiff.face.portrait import load_portrait
from atldiff.media.colour import HLG, PQ, to_srgb

QUADRANTS = np.zeros((96, 128, 3), dtype=np.uint8)
QUADRANTS[:48, :64] = (200, 40, 40)
QUADRANTS[:48, 64:] = (40, 200, 40)
QUADRANTS[48:, :64] = (40, 40, 200)
QUADRANTS[48:, 64:] = (210, 210, 210)


class Everywhere:
    """A detector that sees a face in every picture."""

    def detect(self, image: np.ndarray) -> list[np.ndarray]:
        return [np.zeros((68, 2), np.float32)]


class Bright:
    """A detector that sees a face in every bright picture."""

    def detect(self, image: np.ndarray) -> list[np.ndarray]:
        return [np.zeros((68, 2), np.float32)] if image.mean() > 150 else []


def alike(image: np.ndarray, expected: np.ndarray, tolerance: float = 12) -> bool:
    """Of the same size and colours, but near the borders between the quadrants."""
    if image.shape != expected.shape:
        return False
    difference = np.abs(image.astype(int) - expected).max(axis=2)
    return float(np.quantile(difference, 0.85)) <= tolerance


def write_heic(path: Path, picture: np.ndarray, tile: int = 0, **options: Any) -> Path:
    before = pillow_heif.options.GRID_TILE_SIZE
    pillow_heif.options.GRID_TILE_SIZE = tile
    try:
        pillow_heif.from_pillow(Image.fromarray(picture)).save(path, quality=95, chroma=444, **options)
    finally:
        pillow_heif.options.GRID_TILE_SIZE = before
    return path


def test_a_heic_of_one_piece_and_of_tiles(tmp_path: Path) -> None:
    large = np.kron(QUADRANTS, np.ones((8, 8, 1), np.uint8))
    assert alike(load_portrait(write_heic(tmp_path / "a.heic", QUADRANTS)), QUADRANTS)
    tiled = write_heic(tmp_path / "b.heic", large, tile=256)
    assert b"grid" in tiled.read_bytes()
    (tmp_path / "b.jpg").write_bytes(tiled.read_bytes())
    for source in (tiled, tmp_path / "b.jpg", tiled.read_bytes()):
        assert alike(load_portrait(source, Everywhere()), large)


@pytest.mark.parametrize(("orientation", "turn"), [(6, 1), (3, 2), (8, 3)])
def test_a_heic_that_a_phone_turned(tmp_path: Path, orientation: int, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(np.rot90(QUADRANTS, turn))
    path = write_heic(tmp_path / "a.heic", stored, exif=exif.tobytes())
    assert b"irot" in path.read_bytes()
    assert alike(load_portrait(path), QUADRANTS)


def test_a_heic_of_wide_gamut(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tmp_", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"tmp_", b"bXYZ", 1)
    heif = pillow_heif.from_pillow(Image.fromarray(QUADRANTS))
    heif.info["icc_profile"], heif.info["icc_profile_type"] = swapped, "prof"
    heif.save(tmp_path / "a.heic", quality=95, chroma=444)
    assert alike(load_portrait(tmp_path / "a.heic"), QUADRANTS[..., ::-1])


def test_a_broken_heic(tmp_path: Path) -> None:
    whole = write_heic(tmp_path / "a.heic", QUADRANTS).read_bytes()
    for share in (0.3, 0.7, 0.95):
        (tmp_path / "cut.heic").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=r"cut\.heic is damaged or incomplete; expected"):
            load_portrait(tmp_path / "cut.heic", Everywhere())


def write_clip(path: Path, pictures: list[np.ndarray], pix_fmt: str = "yuv444p", **settings: Any) -> Path:
    """A video of a frame each second; ``settings`` go to the encoder but for ``display``."""
    display = settings.pop("display", None)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"preset": "ultrafast", "crf": "8"})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if display is not None:
            stream.set_display_rotation(*display)
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for index, picture in enumerate(pictures):
            deep = picture.dtype == np.uint16
            frame = VideoFrame.from_ndarray(picture, format="rgb48le" if deep else "rgb24")
            if deep:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=Colorspace.BT2020)
            frame.pts, frame.time_base = index, Fraction(1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_video_that_the_camera_turned_or_mirrored(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    shown = np.rot90(QUADRANTS, degrees // 90)
    shown = shown[:, ::-1] if mirrored else shown
    path = write_clip(tmp_path / "a.mp4", [QUADRANTS], display=(degrees, mirrored))
    assert alike(load_portrait(path, Everywhere()), shown)


@pytest.mark.parametrize(("aspect", "shape"), [(Fraction(4, 3), (96, 171)), (Fraction(1, 2), (192, 128))])
def test_a_video_with_pixels_that_are_not_square(tmp_path: Path, aspect: Fraction, shape: tuple[int, int]) -> None:
    path = write_clip(tmp_path / "a.mp4", [QUADRANTS], sample_aspect_ratio=aspect)
    expected = np.asarray(Image.fromarray(QUADRANTS).resize(shape[::-1]))
    assert alike(load_portrait(path, Everywhere()), expected)


def hdr_signal(srgb: np.ndarray, transfer: int) -> np.ndarray:
    """(H, W, 3) uint8 grey → uint16 RGB that shows the same light with its white at 203 nits (BT.2408)."""
    level = srgb / 255
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    if transfer == PQ:
        power = (light * 203 / 10_000) ** (2610 / 16384)
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** (2523 / 32)
    else:
        scene = (light * 203 / 1000) ** (1 / 1.2)
        high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
    return np.round(signal * 65535).astype(np.uint16)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_video_of_high_dynamic_range_is_not_washed_out(tmp_path: Path, transfer: int) -> None:
    greys = np.repeat(np.linspace(0, 225, 128).round().astype(np.uint8)[None, :, None], 96, axis=0).repeat(3, axis=2)
    signal = hdr_signal(greys, transfer)
    assert np.abs(to_srgb(signal, transfer, 9).astype(int) - greys).max() <= 3
    path = write_clip(
        tmp_path / "a.mp4",
        [signal],
        "yuv444p10le",
        color_trc=ColorTrc(transfer),
        color_primaries=ColorPrimaries.BT2020,
        colorspace=9,
    )
    assert np.abs(load_portrait(path, Everywhere()).astype(int) - greys).max() <= 8


def test_a_video_of_fields_shows_one_moment(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:96, 0:128]
    first, second = (((columns + shift) // 16 % 2 * 200 + 20).astype(np.uint8) for shift in (0, 8))
    woven = np.where(rows % 2, second, first)[..., None].repeat(3, axis=2)
    path = tmp_path / "a.mpg"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "mpeg2video", rate=25, options={"flags": "+ildct+ilme", "qmin": "1", "qmax": "2"}
        )
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv422p"
        for index in range(3):
            frame = VideoFrame.from_ndarray(woven, format="rgb24").reformat(format="yuv422p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    image = load_portrait(path, Everywhere())
    assert np.abs(image.astype(int) - first[..., None]).mean() < 15


def test_a_face_that_comes_late(tmp_path: Path) -> None:
    dark = np.full_like(QUADRANTS, 20)
    bright = np.full_like(QUADRANTS, 220)
    path = write_clip(tmp_path / "late.mp4", [dark, dark, dark, bright])
    assert load_portrait(path, Bright()).mean() > 200
    with pytest.raises(FaceError, match="no face in 3 frames"):
        load_portrait(write_clip(tmp_path / "dark.mp4", [dark] * 3), Bright())


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_an_animation_is_searched_as_a_video_is(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 32), (level,) * 3) for level in (10, 20, 220)]
    path = tmp_path / f"a{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    assert load_portrait(path, Bright()).mean() > 200
    assert load_portrait(path).mean() < 15


def test_twelve_bits_in_sixteen_are_not_dark(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 64 * 48).reshape(48, 64).round().astype(np.uint16)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(ramp).save(tmp_path / name)
        assert np.abs(load_portrait(tmp_path / name) - (ramp / 4095 * 255)[..., None]).max() <= 0.51


def test_a_tiff_whose_colours_lie_apart(tmp_path: Path) -> None:
    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        return struct.pack("<HHII", tag, kind, count, value)

    planes = QUADRANTS.astype("<u2").transpose(2, 0, 1) * 257
    size, begin = planes[0].nbytes, 8 + 2 + 10 * 12 + 4
    lists = struct.pack("<3H", 16, 16, 16) + struct.pack("<3I", *(begin + 30 + size * k for k in range(3)))
    lists += struct.pack("<3I", size, size, size)
    entries = [(256, 3, 1, 128), (257, 3, 1, 96), (258, 3, 3, begin), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 3, begin + 6), (277, 3, 1, 3), (278, 3, 1, 96), (279, 4, 3, begin + 18), (284, 3, 1, 2)]
    header = b"II*\0" + struct.pack("<IH", 8, 10) + b"".join(entry(*each) for each in entries) + bytes(4)
    (tmp_path / "a.tiff").write_bytes(header + lists + planes.tobytes())
    with pytest.raises(InputError, match=r"a\.tiff is a TIFF of 16 bits with its colours apart; expected"):
        load_portrait(tmp_path / "a.tiff", Everywhere())


def cut_out() -> Image.Image:
    alpha = np.zeros((96, 128), np.uint8)
    alpha[16:80, 16:112] = 255
    return Image.fromarray(np.dstack([np.full((96, 128, 3), (200, 40, 40), np.uint8), alpha]))


def test_a_chosen_background() -> None:
    for name, colour in (("white", (255, 255, 255)), ("#204060", (32, 64, 96)), (None, (128, 128, 128))):
        image = load_portrait(cut_out(), background=name)
        assert image[2, 2].tolist() == list(colour)
        assert image[48, 64].tolist() == [200, 40, 40]
    assert (load_portrait(cut_out(), background="keep") == (200, 40, 40)).all()
    blurred = load_portrait(cut_out(), background="blur")
    assert np.abs(blurred.astype(int) - (200, 40, 40)).max() <= 8
    opaque = Image.fromarray(QUADRANTS)
    assert np.array_equal(load_portrait(opaque, background="white"), QUADRANTS)
    with pytest.raises(InputError, match=r"background is 'sky'; expected a colour .*, blur or keep"):
        load_portrait(opaque, background="sky")


def test_every_form_of_a_portrait_is_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(QUADRANTS).save(path)
    content = path.read_bytes()
    tensor = torch.from_numpy(QUADRANTS)
    forms: list[Any] = [path, str(path), content, bytearray(content), io.BytesIO(content), path.open("rb")]
    forms += [QUADRANTS, QUADRANTS / 255, (QUADRANTS / 255).astype(np.float32), QUADRANTS.astype(np.uint16) * 257]
    forms += [tensor, tensor.permute(2, 0, 1), tensor.permute(2, 0, 1).float() / 255, Image.fromarray(QUADRANTS)]
    for form in forms:
        assert np.array_equal(load_portrait(form), QUADRANTS), type(form)


def test_a_very_large_jpeg_is_decoded_small(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    Image.new("RGB", (9000, 6000), (30, 60, 90)).save(path)
    assert load_portrait(path).shape == (2731, 4096, 3)


def test_a_png_that_claims_too_many_pixels(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 13_000, 13_000, 16, 6, 0, 0, 0)
    path = tmp_path / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))))
    with pytest.raises(InputError, match=r"too many pixels \(13000×13000\); expected at most 120 megapixels"):
        load_portrait(path)
