"""Contact sheet of hard portraits: the bundled one with things drawn on it, tinted or painted, and files of your own.

A row a portrait, cut to the face: frames of the bundled speech from closed to wide open. Faces that are not
found, or that are warned of, are named.

    python benchmarks/portraits.py -o portraits.jpg
    python benchmarks/portraits.py --no-bundled --portrait a.jpg --portrait b.png -o own.jpg
"""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from atldiff.errors import FaceError
from atldiff.face.detection import FaceDetector
from atldiff.face.portrait import load_portrait
from atldiff.face.topology import JAW, LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, mouth_opening
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import Speech
from common import ASSETS, speech

SHOWN = (0.0, 0.5, 0.8, 1.0)
"""Which frames are shown: quantiles of how far the mouth is open."""

SECONDS = 3.0
SIDE = 128

Change = Callable[[Image.Image, np.ndarray], Image.Image]


def main() -> None:
    parser = argparse.ArgumentParser(description="Contact sheet of hard portraits.")
    parser.add_argument("--portrait", action="append", default=[], type=Path, help="one more, any number of times")
    parser.add_argument("--no-bundled", action="store_true", help="only those of --portrait")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    portraits = {path.stem: load_portrait(path) for path in arguments.portrait}
    if not arguments.no_bundled:
        portraits = bundled_portraits() | portraits
    sound = Speech.from_array(speech(SECONDS), SAMPLE_RATE)
    rows = []
    pipeline = ATLDiffPipeline.from_pretrained(device="cpu")
    for name, portrait in portraits.items():
        print(name, flush=True)
        try:
            rows.append(_row(pipeline, portrait, sound))
        except FaceError as error:
            print(f"  {error}")
    Image.fromarray(np.concatenate(rows)).save(arguments.output, quality=88)


def bundled_portraits() -> dict[str, np.ndarray]:
    """The bundled portrait, changed in every way of ``CHANGES``; (H, W, 3) uint8 by name."""
    picture = Image.open(ASSETS / "portrait.jpg").convert("RGB")
    with FaceDetector() as detector:
        landmarks = detector.detect(np.asarray(picture))[0]
    return {name: np.asarray(change(picture.copy(), landmarks)) for name, change in CHANGES.items()}


def _as_it_is(picture: Image.Image, _: np.ndarray) -> Image.Image:
    return picture


def _eye_distance(landmarks: np.ndarray) -> float:
    return float(np.linalg.norm(landmarks[LEFT_EYE].mean(axis=0) - landmarks[RIGHT_EYE].mean(axis=0)))


def _glasses(picture: Image.Image, landmarks: np.ndarray) -> Image.Image:
    draw, reach = ImageDraw.Draw(picture), 0.36 * _eye_distance(landmarks)
    right, left = (landmarks[eye].mean(axis=0) for eye in (RIGHT_EYE, LEFT_EYE))
    for x, y in (right, left):
        draw.ellipse([x - reach, y - 0.85 * reach, x + reach, y + 0.85 * reach], outline=(25, 20, 20), width=4)
    draw.line([right[0] + reach, right[1], left[0] - reach, left[1]], fill=(25, 20, 20), width=4)
    return picture


def _beard(picture: Image.Image, landmarks: np.ndarray) -> Image.Image:
    nose = landmarks[NOSE][-3] + (landmarks[MOUTH][3] - landmarks[NOSE][-3]) * 0.3
    outline = [*landmarks[JAW][3:14], nose]
    mask = Image.new("L", picture.size)
    draw = ImageDraw.Draw(mask)
    draw.polygon([tuple(point) for point in outline], fill=235)
    draw.polygon([tuple(point) for point in landmarks[MOUTH][:12]], fill=0)
    mask = mask.filter(ImageFilter.GaussianBlur(4))
    random = np.random.default_rng(0)
    hair = random.normal((62, 44, 34), 22, (*picture.size[::-1], 3)).clip(0, 255).astype(np.uint8)
    return Image.composite(Image.fromarray(hair).filter(ImageFilter.GaussianBlur(0.7)), picture, mask)


def _microphone(picture: Image.Image, landmarks: np.ndarray) -> Image.Image:
    draw, reach = ImageDraw.Draw(picture), 0.32 * _eye_distance(landmarks)
    x, y = landmarks[MOUTH][9] + (0.25 * reach, 0.9 * reach)
    draw.line([x, y, x + 2.2 * reach, y + 5 * reach], fill=(40, 40, 44), width=int(0.7 * reach))
    draw.ellipse([x - reach, y - reach, x + reach, y + reach], fill=(58, 58, 62), outline=(20, 20, 20), width=2)
    return picture


def _hand(picture: Image.Image, landmarks: np.ndarray) -> Image.Image:
    draw, reach = ImageDraw.Draw(picture), 0.17 * _eye_distance(landmarks)
    x, y = landmarks[MOUTH][6] + (0.4 * reach, 3.5 * reach)
    for finger in range(3):
        at = x + (2 * finger - 2) * reach
        tip = y - (3.2, 3.9, 3.0)[finger] * reach
        box = [at - reach, tip, at + reach, y + 9 * reach]
        draw.rounded_rectangle(box, radius=reach, fill=(206, 152, 124), outline=(150, 100, 78), width=2)
    return picture


def _lipstick(picture: Image.Image, landmarks: np.ndarray) -> Image.Image:
    mask = Image.new("L", picture.size)
    draw = ImageDraw.Draw(mask)
    draw.polygon([tuple(point) for point in landmarks[MOUTH][:12]], fill=190)
    draw.polygon([tuple(point) for point in landmarks[MOUTH][12:]], fill=0)
    return Image.composite(Image.new("RGB", picture.size, (150, 8, 40)), picture, mask.filter(ImageFilter.BoxBlur(1)))


def _dark(picture: Image.Image, _: np.ndarray) -> Image.Image:
    return picture.point([round(255 * (value / 255) ** 2.4 * 0.75) for value in range(256)] * 3)


def _overexposed(picture: Image.Image, _: np.ndarray) -> Image.Image:
    return picture.point([min(255, round(value * 1.7 + 20)) for value in range(256)] * 3)


def _grey(picture: Image.Image, _: np.ndarray) -> Image.Image:
    return picture.convert("L").convert("RGB")


def _pencil(picture: Image.Image, _: np.ndarray) -> Image.Image:
    grey = picture.convert("L")
    inverted = ImageOps.invert(grey).filter(ImageFilter.GaussianBlur(6))
    base, blend = (np.asarray(layer, dtype=np.float32) for layer in (grey, inverted))
    dodged = np.clip(base * 255 / (256 - blend), 0, 255).astype(np.uint8)
    return Image.fromarray(dodged).convert("RGB")


def _painted(picture: Image.Image, _: np.ndarray) -> Image.Image:
    strokes = picture.filter(ImageFilter.ModeFilter(5)).quantize(24).convert("RGB")
    return ImageChops.blend(strokes, strokes.filter(ImageFilter.EDGE_ENHANCE_MORE), 0.4)


def _small(picture: Image.Image, _: np.ndarray) -> Image.Image:
    return picture.resize((288, 288), Image.Resampling.LANCZOS)


def _tilted(picture: Image.Image, _: np.ndarray) -> Image.Image:
    return picture.rotate(25, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))


CHANGES: dict[str, Change] = {
    "as it is": _as_it_is,
    "glasses": _glasses,
    "beard": _beard,
    "microphone": _microphone,
    "hand": _hand,
    "lipstick": _lipstick,
    "dark": _dark,
    "overexposed": _overexposed,
    "grey": _grey,
    "pencil": _pencil,
    "painted": _painted,
    "small": _small,
    "tilted": _tilted,
}


def _row(pipeline: ATLDiffPipeline, portrait: np.ndarray, sound: Speech) -> np.ndarray:
    stream = pipeline.stream(portrait, sound, crop_only=True)
    pictures, openings = [], []
    for frame in stream.with_landmarks():
        pictures.append(frame.picture)
        openings.append(float(mouth_opening(frame.landmarks[None])[0]))
    order = np.argsort(openings)
    chosen = [int(order[round(share * (len(order) - 1))]) for share in SHOWN]
    return np.concatenate([_fitted(pictures[index]) for index in chosen], axis=1)


def _fitted(frame: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    main()
