"""Pictures of any kind → upright 8-bit sRGB, within bounds of memory."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageFilter, ImageOps, UnidentifiedImageError

from atldiff.errors import InputError
from atldiff.media.colour import needs_conversion, to_srgb
from atldiff.media.files import is_still_picture

EXPECTED = "a picture (JPEG, PNG, WebP, AVIF, HEIC …) or a video of a face"
UNREADABLE = f"cannot be read as a picture or video; expected {EXPECTED}"

MAX_PIXELS = 120_000_000
"""Pixels of a picture at most; a JPEG can be decoded at a fraction of its size: Pillow's own limit holds for it."""

BLUR, KEEP = "blur", "keep"
"""Backgrounds that are no colours, see :func:`atldiff.face.portrait.load_portrait`."""

_MID_GREY = "#808080"
_FORMATS = ["AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"]
_AVIF_BRANDS = (b"avif", b"avis")
_DAMAGED = "is damaged or incomplete"
_TIFF_BITS, _TIFF_PLANAR = 258, 284

_log = logging.getLogger("atldiff")


def check_background(background: str | None) -> None:
    """Raise InputError unless it is None, ``blur``, ``keep`` or a colour."""
    if background not in (None, BLUR, KEEP):
        _colour(background)


@contextlib.contextmanager
def open_picture(source: Path | bytes, name: str) -> Iterator[Image.Image]:
    """Open a picture lazily.

    Raises:
        UnidentifiedImageError: not a picture.
        InputError: it cannot be opened, is damaged, or has too many pixels.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
            head = stream.read(32)
            stream.seek(0)
            is_heif = is_still_picture(head) and head[8:12] not in _AVIF_BRANDS
            with _open_heif(stream, name) if is_heif else _open_with_pillow(stream, name) as picture:
                _check_size(picture, name)
                yield picture
    except UnidentifiedImageError:
        raise
    except OSError as error:
        what = f"cannot be read ({error.strerror})" if error.strerror else _DAMAGED
        raise InputError(f"{name} {what}; expected {EXPECTED}") from error


def as_rgb(picture: Image.Image, name: str, longest: int, background: str | None = None) -> np.ndarray:
    """A picture as (H, W, 3) uint8 sRGB, upright, with its longer side reduced to ``longest`` pixels.

    Raises:
        InputError: it has no pixels, or is damaged.
    """
    if not all(picture.size):
        raise InputError(f"{name} is {picture.width}×{picture.height} pixels; expected at least 1×1")
    size = picture.size
    try:
        picture.draft(None, (longest, longest))
        small = reduced(_eight_bit(picture), longest)
        picture = _to_srgb(ImageOps.exif_transpose(small), background)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of any type on broken data
        raise InputError(f"{name} {_DAMAGED}; expected {EXPECTED}") from error
    if max(picture.size) < max(size):
        turned = size if (picture.width < picture.height) == (size[0] < size[1]) else size[::-1]
        _log.warning("%s is %d×%d pixels; reduced to %d×%d", name, *turned, *picture.size)
    return np.array(picture)


def from_array(array: np.ndarray) -> Image.Image:
    """(H, W), (H, W, 3), (H, W, 4) or (3, H, W) uint8, uint16 or floats in [0, 1] → a picture. Raises InputError."""
    given = f"{array.shape} {array.dtype}"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if is_picture and array.size and array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not 0 <= low <= high <= 1:
            raise InputError(f"the portrait array has floats from {low:g} to {high:g}; expected 0 to 1")
        array = np.round(array * 255).astype(np.uint8)
    if is_picture and array.dtype == np.uint16:
        array = _scale_16_bits()[array]
    if not is_picture or array.dtype != np.uint8 or not array.size:
        raise InputError(
            f"the portrait array is {given}; expected (H, W) or (H, W, 3 or 4), uint8, uint16 or floats in [0, 1]"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def reduced(picture: Image.Image, longest: int) -> Image.Image:
    """The picture with its longer side at most ``longest`` pixels; itself where it is no larger."""
    shrink = longest / max(picture.size)
    if shrink >= 1:
        return picture
    if picture.mode in ("1", "P", "PA"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    size = max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _open_with_pillow(stream: BinaryIO, name: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(stream, formats=_FORMATS)
        except Image.DecompressionBombError as error:
            limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
            raise InputError(f"{name} has too many pixels; expected at most {limit:.0f} megapixels") from error
        except (UnidentifiedImageError, OSError):
            raise
        except Exception as error:  # see as_rgb
            raise InputError(f"{name} cannot be read as a picture; expected {EXPECTED}") from error


def _open_heif(stream: BinaryIO, name: str) -> Image.Image:
    """HEIC as phones write it: all tiles, turned as its own boxes say, HDR and nameless wide gamuts to sRGB."""
    import pillow_heif

    try:
        content = pillow_heif.open_heif(stream, convert_hdr_to_8bit=False)
        if content.size[0] * content.size[1] > MAX_PIXELS:
            raise _too_large(name, content.size)
        description = content.info.get("nclx_profile") or {}
        transfer, primaries = (
            int(description.get(key, 2)) for key in ("transfer_characteristics", "color_primaries")
        )
        if content.info.get("bit_depth", 8) == 8 and (content.info.get("icc_profile") or transfer == primaries == 2):
            return content.to_pillow()
        values = np.asarray(content)
        if not needs_conversion(transfer, primaries) or content.info.get("icc_profile"):
            eight = values if values.dtype == np.uint8 else _scale_16_bits()[values]
            picture = Image.fromarray(eight)
            picture.info["icc_profile"] = content.info.get("icc_profile")
            return picture
        return Image.fromarray(to_srgb(values[..., :3], transfer, primaries))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name} {_DAMAGED}; expected {EXPECTED}") from error


def _check_size(picture: Image.Image, name: str) -> None:
    if picture.format not in ("JPEG", "MPO") and picture.width * picture.height > MAX_PIXELS:
        raise _too_large(name, picture.size)
    tags = getattr(picture, "tag_v2", {})
    bits = tags.get(_TIFF_BITS, (8,))
    if len(bits) > 1 and max(bits) > 8 and tags.get(_TIFF_PLANAR) == 2:
        raise InputError(
            f"{name} is a TIFF of {max(bits)} bits with its colours apart; expected interleaved or 8 bits"
        )


def _too_large(name: str, size: tuple[int, int]) -> InputError:
    limit = f"expected at most {MAX_PIXELS / 1e6:.0f} megapixels"
    return InputError(f"{name} has too many pixels ({size[0]}×{size[1]}); {limit}")


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Pictures of 16 or 32 bits a pixel → 8-bit grey; all others as they are."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        eight = _scale_16_bits(int(values.max(initial=0)))[values.clip(0, 65535)]
    elif picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture, dtype=np.float32), posinf=0.0, neginf=0.0)
        eight = np.round(values * (255 if values.max() <= 1 else 1)).clip(0, 255).astype(np.uint8)
    else:
        return picture
    grey = Image.fromarray(eight)
    grey.info = {"exif": picture.info["exif"]} if "exif" in picture.info else {}
    return grey


def _scale_16_bits(highest: int = 65535) -> np.ndarray:
    """8-bit level of each 16-bit one; what holds 9 to 12 bits alone, as scanners and cameras write, is drawn out."""
    full = next(level for level in (1023, 4095, 65535) if highest <= level or level == 65535)
    full = full if highest > 255 else 65535
    return np.round(np.arange(65536) * (255 / full)).clip(0, 255).astype(np.uint8)


def _to_srgb(picture: Image.Image, background: str | None) -> Image.Image:
    profile = picture.info.get("icc_profile")
    if picture.has_transparency_data:
        picture = _on_background(picture.convert("RGBA"), background)
    if profile and picture.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            converted = None
        if converted is not None:
            return converted
    return picture.convert("RGB")


def _on_background(picture: Image.Image, background: str | None) -> Image.Image:
    """An RGBA picture laid on what :func:`check_background` allows."""
    opaque = picture.convert("RGB")
    if background == KEEP:
        return opaque
    alpha = picture.getchannel("A")
    if background == BLUR:
        flat = _blurred(picture)
    else:
        flat = Image.new("RGB", picture.size, _colour(background or _MID_GREY))
    flat.paste(opaque, mask=alpha)
    return flat


def _blurred(picture: Image.Image) -> Image.Image:
    """What is opaque of a picture, spread softly over all of it."""
    small = picture.convert("RGBa").resize((64, 64), Image.Resampling.BOX)
    soft = small.filter(ImageFilter.GaussianBlur(12))
    values = np.asarray(soft).astype(np.float32)
    whole = np.asarray(small).reshape(-1, 4).astype(np.float32).sum(axis=0)
    mean = whole[:3] / max(whole[3], 1) * 255
    weight = values[..., 3:] / 255
    colours = values[..., :3] + (1 - weight) * mean
    return Image.fromarray(np.round(colours).clip(0, 255).astype(np.uint8)).resize(
        picture.size, Image.Resampling.BICUBIC
    )


def _colour(name: str) -> tuple[int, int, int]:
    try:
        return ImageColor.getcolor(name, "RGB")  # pyright: ignore[reportReturnType]
    except (ValueError, AttributeError) as error:
        text = f"background is {name!r}; expected a colour (white, #2050a0 …), {BLUR} or {KEEP}"
        raise InputError(text, "background") from error
