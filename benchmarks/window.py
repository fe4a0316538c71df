"""What the image network adds to the moved portrait and its mouth layer, at the resolution that it works at.

Validation clips are animated from their first frame and true landmarks, at 256 pixels; every figure is taken there
and in the same pictures made small, 128 pixels. *Start* is the portrait moved and its mouth painted, without the
network. *Detail* is the sum of absolute differences of neighbouring pixels around the mouth over that of the true
frames, *seam* the same across the border of the network's window, *identity* the distance of face embeddings to the
first frame.

    python benchmarks/window.py prepared --per-speaker 2 --steps 1 --steps 2
    python benchmarks/window.py prepared --per-speaker 1 --blind-sheet sheet.png
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.evaluation import metrics
from atldiff.evaluation.identity import IdentityMeter
from atldiff.evaluation.protocol import choose_clips
from atldiff.face.crop import PICTURE_SIZE, whole_crop
from atldiff.face.topology import mouth_opening
from atldiff.image.animator import FaceAnimator, FaceFrames
from atldiff.image.compose import PortraitComposer
from atldiff.image.unet import IdentityDiffusionUNet
from atldiff.image.window import WINDOW_SIZE
from atldiff.models.loading import DEFAULT_MODEL
from atldiff.pipeline import ATLDiffPipeline

SMALL_SIZE = 128
IDENTITY_FRAMES = 6
Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description="What the image network adds.")
    parser.add_argument("data", type=Path, help="folder that `atldiff prepare` made, at 256 pixels")
    parser.add_argument("--split", default="val")
    parser.add_argument("--per-speaker", type=int, default=2)
    parser.add_argument("--frames", type=int, default=50, help="at most so many of each clip")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--steps", type=int, action="append", help="sampler steps, any number of times (default: 1)")
    parser.add_argument("--blind-sheet", type=Path, help="true and made faces mixed, and which is which in .txt")
    arguments = parser.parse_args()
    network = ATLDiffPipeline.from_pretrained(arguments.model, device="cpu").unet
    if not isinstance(network, IdentityDiffusionUNet):
        raise SystemExit(f"{arguments.model} has no compact image network")
    every = PreparedClips.open(arguments.data).split(arguments.split)
    clips = [
        clip for clip in choose_clips(every, per_speaker=arguments.per_speaker) if clip.info.size == PICTURE_SIZE
    ]
    if arguments.blind_sheet:
        _blind_sheet(arguments.blind_sheet, clips, network, arguments.frames)
    else:
        _measure(clips, network, arguments.steps or [1], arguments.frames)


def _measure(clips: list[PreparedClip], network: IdentityDiffusionUNet, steps: list[int], most: int) -> None:
    meter = IdentityMeter()
    rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for clip in clips:
        true, landmarks = clip.frames(0, min(most, clip.info.frames)), clip.landmarks()[:most]
        for name, made, corners in _videos(true[0], landmarks, network, steps):
            rows[_group(clip), name].append(_figures(made, true, landmarks, corners, meter))
            rows["all", name].append(rows[_group(clip), name][-1])
    names = list(next(iter(rows.values()))[0])
    print("| clips | | " + " | ".join(names) + " | identity, worst |")
    print("| --- | --- |" + " ---: |" * (len(names) + 1))
    for (group, name), values in sorted(rows.items()):
        medians = [f"{np.median([row[figure] for row in values]):.3f}" for figure in names]
        worst = max(row["identity"] for row in values)
        print(f"| {group}, {len(values)} | {name} | " + " | ".join(medians) + f" | {worst:.2f} |")


def _group(clip: PreparedClip) -> str:
    return clip.info.corpus.split("-")[0] if clip.info.corpus.startswith("CLOSE") else clip.info.corpus


def _videos(
    identity: np.ndarray, landmarks: np.ndarray, network: IdentityDiffusionUNet, steps: list[int]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, (F, 256, 256, 3) uint8, (F, 2) corners of the windows) of the start and of each number of steps."""
    crop = whole_crop(PICTURE_SIZE)
    own, points = crop.to_crop(landmarks[0]), crop.to_crop(landmarks)
    composer = PortraitComposer(identity, crop, own, next(network.parameters()).device)
    for count in steps:
        parts = list(FaceAnimator(network, identity, own, count, seed=0).stream([points]))
        corners = np.concatenate([part.corner_F2.numpy() for part in parts])
        if count == steps[0]:
            yield "start", _pictures(composer, [_without_network(part) for part in parts]), corners
        yield f"{count} step" + "s" * (count > 1), _pictures(composer, parts), corners


def _pictures(composer: PortraitComposer, parts: list[FaceFrames]) -> np.ndarray:
    return np.stack([frame for part in parts for frame in composer.render(part)])


def _without_network(part: FaceFrames) -> FaceFrames:
    still = part.residual_F3hw * 0
    return FaceFrames(part.flow_F2GG, part.shapes, part.lids_F, still, part.corner_F2, part.per_pixel)


def _figures(
    made: np.ndarray, true: np.ndarray, landmarks: np.ndarray, corners: np.ndarray, meter: IdentityMeter
) -> Row:
    box = metrics.mouth_box(landmarks, PICTURE_SIZE)
    figures = {}
    for size, pair in ((PICTURE_SIZE, (made[1:], true[1:])), (SMALL_SIZE, (_small(made[1:]), _small(true[1:])))):
        scaled = metrics.mouth_box(landmarks * (size / PICTURE_SIZE), size)
        own, other = (metrics.cut_box(each, scaled) for each in pair)
        figures |= {
            f"mouth PSNR, {size}": metrics.psnr(own, other),
            f"mouth SSIM, {size}": metrics.ssim(own, other),
            f"detail, {size}": _detail(own) / _detail(other),
        }
    chosen = np.linspace(1, len(made) - 1, IDENTITY_FRAMES).round().astype(int)
    distances = meter.distances(true[0], landmarks[0], made[chosen], landmarks[chosen])
    return figures | {
        "flicker": metrics.flicker(made, box) / metrics.flicker(true, box),
        "mouth flicker": _flicker(metrics.cut_box(made, box)) / _flicker(metrics.cut_box(true, box)),
        "seam": _seam(made, corners) / _seam(true, corners),
        "identity": float(np.median(distances)),
    }


def _small(frames: np.ndarray) -> np.ndarray:
    size = (SMALL_SIZE, SMALL_SIZE)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames])


def _detail(frames: np.ndarray) -> float:
    values = frames.astype(np.float32)
    return float(np.abs(np.diff(values, axis=1)).mean() + np.abs(np.diff(values, axis=2)).mean())


def _flicker(frames: np.ndarray) -> float:
    """Mean absolute second difference in time."""
    return float(np.abs(np.diff(frames.astype(np.float32), n=2, axis=0)).mean())


def _seam(frames: np.ndarray, corners: np.ndarray) -> float:
    """Mean absolute difference of the pixels on either side of the windows' borders."""
    steps = []
    for frame, (left, top) in zip(frames.astype(np.float32), corners, strict=True):
        right, bottom = left + WINDOW_SIZE, top + WINDOW_SIZE
        steps += [frame[top:bottom, x] - frame[top:bottom, x - 1] for x in (left, right) if 0 < x < PICTURE_SIZE]
        steps += [frame[y, left:right] - frame[y - 1, left:right] for y in (top, bottom) if 0 < y < PICTURE_SIZE]
    return float(np.abs(np.concatenate(steps)).mean())


def _blind_sheet(path: Path, clips: list[PreparedClip], network: IdentityDiffusionUNet, most: int) -> None:
    """For each clip one frame with an open mouth, by chance the true or the made one."""
    random, pictures, told = np.random.default_rng(0), [], []
    for clip in clips:
        true, landmarks = clip.frames(0, min(most, clip.info.frames)), clip.landmarks()[:most]
        *_, (_, made, _) = _videos(true[0], landmarks, network, [1])
        openings = mouth_opening(landmarks)
        frame = int(np.argsort(openings[1:])[int(0.8 * (len(openings) - 1))]) + 1
        is_made = bool(random.random() < 0.5)
        pictures.append((made if is_made else true)[frame])
        told.append(f"{len(told) + 1} {'made' if is_made else 'true'} {clip.info.key} {frame}")
    columns = 4
    pictures += [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
    lines = [np.hstack(pictures[first : first + columns]) for first in range(0, len(pictures), columns)]
    Image.fromarray(np.vstack(lines)).save(path)
    path.with_suffix(".txt").write_text("\n".join(told) + "\n")


if __name__ == "__main__":
    main()
