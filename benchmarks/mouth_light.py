"""How light it is between the lips, from corner to corner and from lip to lip: in true frames, and in what is drawn.

Of each clip the most shut frame is the portrait; the drawn mouths have the landmarks of the true frames. Levels are
luma over that of the skin around the mouth, medians over the frames of the mean of each place; right and left are
taken together.

    python benchmarks/mouth_light.py prepared --corpus CLOSE
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.face.crop import CROP_SIZE, PICTURE_SIZE, resized
from atldiff.face.topology import mouth_opening
from atldiff.image.animator import to_picture
from atldiff.image.conditioning import IdentityFace
from atldiff.image.mouth.geometry import MouthGeometry, MouthShapes, edge_height
from atldiff.image.mouth.light import luma, mouth_light
from atldiff.image.mouth.settle import settle_lips
from atldiff.image.window import WINDOW_SCALE, WINDOW_SIZE

PLACES = (8, 6)
"""Places from corner to corner and from the upper lip to the lower."""

POINTS_A_PLACE = 6
GAPS_MM = ((2.5, 7.0), (7.0, 13.0), (13.0, np.inf))
FRAMES_A_CLIP = 6


def main() -> None:
    parser = argparse.ArgumentParser(description="How light it is between the lips, true and drawn.")
    parser.add_argument("data", type=Path, help="folder that `atldiff prepare` made")
    parser.add_argument("--corpus", default="", help="what the corpora's names begin with (default: all)")
    parser.add_argument("--split", default="train")
    parser.add_argument("--per-speaker", type=int, default=2)
    arguments = parser.parse_args()
    clips = PreparedClips.open(arguments.data).split(arguments.split, arguments.per_speaker)
    chosen = [clip for clip in clips if clip.info.corpus.startswith(arguments.corpus)]
    found = [mouth for clip in chosen for mouth in _mouths(clip)]
    gaps = np.array([gap for gap, _, _ in found])
    for low, high in GAPS_MM:
        of_gap = [mouth for gap, *mouth in found if low <= gap < high]
        print(f"\n{len(of_gap)} frames with gaps of {low:g} to {high:g} mm\n")
        for name, levels in zip(("true", "drawn"), zip(*of_gap, strict=True), strict=True):
            _print(name, np.stack(levels))
    print(f"\n{len(gaps)} frames of {len({clip.info.speaker for clip in chosen})} people")


def _mouths(clip: PreparedClip) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """The widest gap in millimetres, and the levels of the true and of the drawn mouth, for some frames of a clip."""
    points = clip.landmarks() * np.float32(CROP_SIZE / clip.info.size)
    order = np.argsort(mouth_opening(points))
    if len(order) < 2 * FRAMES_A_CLIP:
        return
    frames, rest = clip.frames(), int(order[0])
    chosen = order[np.linspace(len(order) // 2, len(order) - 1, FRAMES_A_CLIP).round().astype(int)]
    identity = resized(frames[rest], PICTURE_SIZE)
    own = settle_lips(identity, points[rest] * WINDOW_SCALE).astype(np.float32) / WINDOW_SCALE
    picture = to_picture(identity, PICTURE_SIZE)
    skin = _skin_level(picture, torch.from_numpy(own) * WINDOW_SCALE)
    geometry = MouthGeometry(own)
    moved = torch.from_numpy(points[chosen])
    shapes = geometry.shapes(moved)
    given = IdentityFace(picture, own).conditions(moved)
    true = torch.stack([to_picture(frames[number], PICTURE_SIZE) for number in chosen])
    places = _places(shapes) * WINDOW_SCALE
    within = places - given.corner_F2[:, None, None]
    levels = [_levels(true, places / PICTURE_SIZE, skin), _levels(given.warped_F3WW, within / WINDOW_SIZE, skin)]
    gaps = (edge_height(shapes.lower_F3, _along()) - edge_height(shapes.upper_F3, _along())).amax(dim=(1, 2))
    for number, gap in enumerate((gaps / geometry.pixels_per_mm).tolist()):
        yield gap, levels[0][number], levels[1][number]


def _skin_level(picture_3SS: torch.Tensor, landmarks_K2: torch.Tensor) -> float:
    return float(luma(mouth_light(picture_3SS, landmarks_K2).skin_3))


def _along() -> torch.Tensor:
    return ((torch.arange(PLACES[0] * POINTS_A_PLACE) + 0.5) / (PLACES[0] * POINTS_A_PLACE))[None, None]


def _places(shapes: MouthShapes) -> torch.Tensor:
    """(F, rows, columns, 2) crop pixels between the lips, as many in each place."""
    rows = PLACES[1] * POINTS_A_PLACE
    share = ((torch.arange(rows) + 0.5) / rows)[None, :, None]
    top, bottom = (edge_height(each, _along()) for each in (shapes.upper_F3, shapes.lower_F3))
    height = top + share * (bottom - top)
    across = shapes.across_F2[:, None, None]
    unit = across / across.norm(dim=3, keepdim=True)
    normal = torch.stack([-unit[..., 1], unit[..., 0]], dim=3)
    return shapes.corner_F2[:, None, None] + _along()[..., None] * across + height[..., None] * normal


def _levels(pictures_F3SS: torch.Tensor, shares_Fhw2: torch.Tensor, skin: float) -> np.ndarray:
    """(F, 6, 8) the mean luma of each place over the skin's, from places as shares of the picture's side."""
    read = F.grid_sample(pictures_F3SS, 2 * shares_Fhw2 - 1, padding_mode="border", align_corners=False)
    return F.avg_pool2d(luma(read.transpose(0, 1))[:, None], POINTS_A_PLACE)[:, 0].numpy() / skin


def _print(name: str, levels: np.ndarray) -> None:
    middle = np.median(levels, axis=0)
    halves = (middle + middle[:, ::-1])[:, : PLACES[0] // 2] / 2
    print(f"| {name} | corner | | | middle |\n| --- | ---: | ---: | ---: | ---: |")
    for row, values in enumerate(halves):
        lip = {0: "upper lip", PLACES[1] - 1: "lower lip"}.get(row, "")
        print(f"| {lip} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    flat = levels.reshape(len(levels), -1)
    brightest, darkest = (np.quantile(np.quantile(flat, q, axis=1), (0.25, 0.5, 0.75)) for q in (0.95, 0.05))
    print(f"brightest place, quartiles {brightest.round(2)}; darkest {darkest.round(2)}")


if __name__ == "__main__":
    main()
