"""How far closed mouths open, and how dark and bright it is between the lips, seen in finished pictures.

Landmarks are detected in the finished frames, so the generator does not judge itself. *Opening* is the gap of the
inner lips over the distance of the outer eye corners, *contrast* (p95 − p5 of the luma between the inner lips) / the
cheek's, the median over the widest quarter of the frames. True clips, whose first frame is the portrait, are the
reference.

    python benchmarks/mouths.py --portrait a.jpg --portrait b.jpg --sheet sheet.png
    python benchmarks/mouths.py --data prepared --per-speaker 4
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.evaluation.judge import detect_landmarks
from atldiff.evaluation.protocol import choose_clips
from atldiff.face.crop import face_crop
from atldiff.face.detection import FaceDetector
from atldiff.face.topology import INNER_LIPS, MOUTH, interocular_distance, mouth_opening
from atldiff.models.loading import DEFAULT_MODEL
from atldiff.pipeline import ATLDiffPipeline
from common import ASSETS

WIDEST_SHARE = 0.25
JUDGED_SIZE = 256
SHEET_QUANTILES = (0.02, 0.5, 0.75, 0.9, 1.0)
_LUMA = np.array([0.299, 0.587, 0.114])
_CHEEKS = ((48, 4), (54, 12))
_SMALLEST_OPENING = 0.02


@dataclass(frozen=True)
class Mouth:
    """What is seen of one video's mouth.

    Attributes:
        opening: 95th percentile.
        contrast: NaN where the mouth never opens.
        openings: (F,) of every frame, NaN where no face is seen.
    """

    opening: float
    contrast: float
    openings: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description="How far mouths open and what is seen between the lips.")
    parser.add_argument("--portrait", action="append", default=[], type=Path, help="any number of times")
    parser.add_argument("--speech", type=Path, default=ASSETS / "speech.flac")
    parser.add_argument("--data", type=Path, help="folder that `atldiff prepare` made")
    parser.add_argument("--per-speaker", type=int, default=4)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sheet", type=Path, help="picture of the portraits' mouths, from shut to widest")
    arguments = parser.parse_args()
    pipeline = ATLDiffPipeline.from_pretrained(arguments.model, device="cpu")
    with FaceDetector() as detector:
        if arguments.portrait:
            _portraits(pipeline, detector, arguments)
        if arguments.data:
            clips = choose_clips(PreparedClips.open(arguments.data).split("val"), None, arguments.per_speaker)
            _clips(pipeline, detector, clips, arguments.steps)


def _portraits(pipeline: ATLDiffPipeline, detector: FaceDetector, arguments: argparse.Namespace) -> None:
    print("| portrait | opening, p95 | contrast |\n| --- | ---: | ---: |")
    mouths, rows = [], []
    for path in arguments.portrait:
        frames = list(pipeline.stream(path, arguments.speech, steps=arguments.steps))
        mouth = seen_mouth(_faces(frames, detector), detector)
        mouths.append(mouth)
        print(f"| {path.stem} | {mouth.opening:.3f} | {mouth.contrast:.2f} |", flush=True)
        rows.append(_sheet_row(frames, mouth.openings, detector))
    openings, contrasts = (np.array([getattr(mouth, name) for mouth in mouths]) for name in ("opening", "contrast"))
    print(f"| median | {np.median(openings):.3f} | {np.nanmedian(contrasts):.2f} |")
    print(f"| least | {openings.min():.3f} | {np.nanmin(contrasts):.2f} |")
    if arguments.sheet:
        Image.fromarray(np.concatenate(rows)).save(arguments.sheet)


def _clips(
    pipeline: ATLDiffPipeline, detector: FaceDetector, clips: Iterable[PreparedClip], steps: int | None
) -> None:
    seen: dict[str, list[tuple[Mouth, Mouth, Mouth]]] = {}
    for clip in clips:
        frames, landmarks = clip.frames(), clip.landmarks()
        made = (pipeline.animate(frames[0], landmarks[0], landmarks, number) for number in (0, steps))
        true, warp, ours = (seen_mouth(video, detector) for video in (frames, *made))
        seen.setdefault(clip.info.corpus, []).append((true, warp, ours))
    print("| | clips | opening p95, true | warp / true | ours / true | contrast, true | warp | ours |")
    print("| --- |" + " ---: |" * 7)
    for corpus, videos in seen.items():
        opening = np.array([[mouth.opening for mouth in video] for video in videos])
        contrast = np.array([[mouth.contrast for mouth in video] for video in videos])
        ratio = np.nanmedian(opening / opening[:, :1], axis=0)
        true, warp, ours = np.nanmedian(contrast, axis=0)
        print(
            f"| {corpus} | {len(videos)} | {np.nanmedian(opening[:, 0]):.3f} | {ratio[1]:.2f} | {ratio[2]:.2f} "
            f"| {true:.2f} | {warp:.2f} | {ours:.2f} |"
        )


def _faces(frames: list[np.ndarray], detector: FaceDetector) -> np.ndarray:
    """One square cut around the face for all frames, (F, 256, 256, 3) uint8."""
    face = max(detector.detect(frames[0]), key=np.ptp)
    crop = face_crop(face, JUDGED_SIZE)
    return np.stack([crop.cut(frame) for frame in frames])


def seen_mouth(frames: np.ndarray, detector: FaceDetector) -> Mouth:
    """Opening and contrast of a video of one face, (F, S, S, 3) uint8, by what a detector sees in it."""
    landmarks = detect_landmarks(frames, detector)
    openings = mouth_opening(landmarks)
    if np.isnan(openings).all():
        return Mouth(np.nan, np.nan, openings)
    least = max(float(np.nanquantile(openings, 1 - WIDEST_SHARE)), _SMALLEST_OPENING)
    widest = [number for number in range(len(frames)) if openings[number] >= least]
    contrasts = [_contrast(frames[number], landmarks[number]) for number in widest]
    return Mouth(
        float(np.nanquantile(openings, 0.95)), float(np.median(contrasts)) if contrasts else np.nan, openings
    )


def _contrast(frame: np.ndarray, landmarks: np.ndarray) -> float:
    enlarge = 4
    picture = Image.fromarray(frame).resize(
        (frame.shape[1] * enlarge, frame.shape[0] * enlarge), Image.Resampling.BICUBIC
    )
    level = np.asarray(picture) @ _LUMA
    mask = Image.new("L", picture.size)
    outline = [(float(x), float(y)) for x, y in enlarge * landmarks[INNER_LIPS]]
    ImageDraw.Draw(mask).polygon(outline, fill=1)
    inside = level[np.asarray(mask) > 0]
    reach = max(2, round(0.03 * enlarge * float(interocular_distance(landmarks))))
    cheeks = [_level_around(level, enlarge * (0.55 * landmarks[a] + 0.45 * landmarks[b]), reach) for a, b in _CHEEKS]
    return float((np.quantile(inside, 0.95) - np.quantile(inside, 0.05)) / max(np.mean(cheeks), 1.0))


def _level_around(level: np.ndarray, place: np.ndarray, reach: int) -> float:
    x, y = (
        int(np.clip(value, reach, size - reach - 1)) for value, size in zip(place, level.shape[::-1], strict=True)
    )
    return float(np.median(level[y - reach : y + reach + 1, x - reach : x + reach + 1]))


def _sheet_row(frames: list[np.ndarray], openings: np.ndarray, detector: FaceDetector) -> np.ndarray:
    """The lower face of some frames from shut to widest, 256 pixels wide, at least the portrait's own size."""
    face = max(detector.detect(frames[0]), key=np.ptp)
    centre, reach = face[MOUTH].mean(axis=0), 0.5 * float(interocular_distance(face))
    box = tuple(round(float(value)) for value in (*(centre - reach * 1.05), *(centre + reach * 1.05)))
    order = np.argsort(np.nan_to_num(openings))
    shown = [frames[order[round(share * (len(order) - 1))]] for share in SHEET_QUANTILES]
    return np.concatenate(list(_cut(shown, box)), axis=1)


def _cut(frames: list[np.ndarray], box: tuple[int, ...]) -> Iterator[np.ndarray]:
    left, top, right, bottom = box
    for frame in frames:
        yield np.asarray(
            Image.fromarray(frame).crop((left, top, right, bottom)).resize((300, 300), Image.Resampling.LANCZOS)
        )


if __name__ == "__main__":
    main()
