"""One spoken sentence as pictures, its phonemes over them: ``python benchmarks/spoken.py prepared -o sheet.jpg``.

A validation clip of GRID, its talker above, then each ``--portrait`` (the bundled one without any) with the same
sound: the middle frame of every phoneme, for p, b and m the frame in which the lips are nearest to each other, cut to
the lower half of the face.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from atldiff.data.prepared import PreparedClips
from atldiff.face.crop import face_crop
from atldiff.face.detection import FaceDetector
from atldiff.face.topology import CHIN, NOSE_TIP, interocular_distance, mouth_opening
from atldiff.models.loading import DEFAULT_MODEL
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import Speech
from atldiff.training.sound.speech_features import cache_features
from common import ASSETS
from phonemes import CLOSED, SILENCE, Aligner, Segment, grid

SENTENCE = "GRID/grid_C/lbbc2a"
SIDE = 320
WIDTH, HEIGHT, TITLE = 150, 130, 24
_AROUND = 0.62
"""Half the width that is shown, in distances of the outer eye corners."""


def main() -> None:
    parser = argparse.ArgumentParser(description="A spoken sentence as pictures, true and made.")
    parser.add_argument("data", type=Path, help="folder that atldiff prepare wrote")
    parser.add_argument("--clip", default=SENTENCE, help="of GRID (default: %(default)s)")
    parser.add_argument("--portrait", action="append", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    data = PreparedClips.open(arguments.data)
    aligner = Aligner(cache_features(grid(data, "train"), data.folder))
    (item,) = cache_features([clip for clip in data.clips if clip.info.key == arguments.clip], data.folder)
    segments, speech = aligner.align(item), Speech.from_array(item.clip.waveform(), SAMPLE_RATE)
    pipeline = ATLDiffPipeline.from_pretrained(arguments.model, device="cpu")
    rows = [list(item.clip.frames())]
    rows += [
        list(pipeline.stream(portrait, speech, fps=item.clip.info.fps, head_motion=0.0, blink="off", seed=0))
        for portrait in arguments.portrait or [ASSETS / "portrait.jpg"]
    ]
    with FaceDetector() as detector:
        strips = [np.concatenate(list(shown(row, segments, item.clip.info.fps, detector)), axis=1) for row in rows]
    sheet = np.concatenate([title(segments), *strips])
    Image.fromarray(sheet).save(arguments.output, quality=88)


def shown(
    frames: Sequence[np.ndarray], segments: Sequence[Segment], fps: float, detector: FaceDetector
) -> Iterator[np.ndarray]:
    """The lower half of the face at each phoneme, (HEIGHT, WIDTH, 3) each."""
    crop = face_crop(detector.detect(frames[0])[0], SIDE)
    frames = [crop.cut(frame) for frame in frames]
    first = detector.detect(frames[0])[0]
    for segment in spoken(segments):
        begin, end = round(segment.begin * fps), round(segment.end * fps)
        middle = min((begin + end) // 2, len(frames) - 1)
        if segment.phoneme in CLOSED:
            near = range(max(0, begin - 1), min(end + 2, len(frames)))
            middle = min(near, key=lambda at: _opening(detector.detect(frames[at])))
        yield lower_face(frames[middle], first)


def _opening(faces: Sequence[np.ndarray]) -> float:
    return float(mouth_opening(faces[0])) if len(faces) else 1.0


def spoken(segments: Sequence[Segment]) -> list[Segment]:
    """The phonemes with the first and the last silence."""
    return [segment for number, segment in enumerate(segments) if segment.phoneme != SILENCE or not number] + [
        segments[-1]
    ]


def lower_face(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """From the tip of the nose to below the chin, enlarged or reduced to (HEIGHT, WIDTH, 3)."""
    half = _AROUND * float(interocular_distance(landmarks))
    x, y = (landmarks[NOSE_TIP] + landmarks[CHIN]) / 2
    high = half * HEIGHT / WIDTH
    box = (x - half, y - high, x + half, y + high)
    picture = Image.fromarray(frame).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=_inside(box, frame.shape))
    return np.asarray(picture)


def _inside(box: tuple[float, float, float, float], shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return max(0.0, left), max(0.0, top), min(float(shape[1]), right), min(float(shape[0]), bottom)


def title(segments: Sequence[Segment]) -> np.ndarray:
    """The phonemes, each over its picture, (TITLE, N · WIDTH, 3)."""
    sounds = [segment.phoneme for segment in spoken(segments)]
    picture = Image.new("RGB", (WIDTH * len(sounds), TITLE), "white")
    draw = ImageDraw.Draw(picture)
    for number, sound in enumerate(sounds):
        place = (WIDTH * (number + 0.5), TITLE / 2)
        draw.text(place, sound, fill="black", font=ImageFont.load_default(18), anchor="mm")
    return np.asarray(picture)


if __name__ == "__main__":
    main()
