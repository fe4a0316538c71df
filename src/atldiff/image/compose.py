"""Put the made face back into the whole portrait, at the portrait's own resolution.

The portrait's own pixels are moved by the flow, so what the network did not change stays as sharp as the
portrait; the network's residual is added on top. Flow and residual fade to zero at the crop's border: no seam.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from atldiff.face.crop import CROP_SIZE, FaceCrop
from atldiff.face.places import crop_places, crop_to_image
from atldiff.image.animator import FaceFrames
from atldiff.image.lids import Eyelids
from atldiff.image.lips import sealed_lips, shut_lips
from atldiff.image.mouth.geometry import MouthGeometry
from atldiff.image.mouth.painter import MouthPainter
from atldiff.image.pipelined import one_thread

_EDGE_FADE = 0.06
"""Share of the crop's half side over which the residual fades in from the border."""

_PIECE_VALUES = 1 << 20
"""Values of the crop's part of the portrait that are worked on at a time."""


class PortraitComposer:
    """Renders whole frames from the flow and the residual of the face crop.

    Args:
        portrait: (H, W, 3) uint8.
        crop: where the face crop lies in it.
        landmarks: (68, 2) identity landmarks, crop pixels.
        device: where the pixels are moved.
        opens_mouth: whether the frames have a layer behind the lips.
    """

    def __init__(
        self,
        portrait: np.ndarray,
        crop: FaceCrop,
        landmarks: np.ndarray,
        device: torch.device,
        opens_mouth: bool = True,
    ) -> None:
        self._portrait, self._crop = portrait, crop
        self._box = left, top, right, bottom = _covered_box(portrait, crop)
        local, width, height = crop.within(left, top), right - left, bottom - top
        inside, to_image = crop_places(local, width, height), crop_to_image(local, width, height)
        self._crop_places = (inside * (2 / crop.size) - 1).float().to(device)
        self._fade = ((1 - self._crop_places.abs().amax(dim=-1)) / _EDGE_FADE).clamp(0, 1)
        region = torch.from_numpy(portrait[top:bottom, left:right].copy())
        self._region = region.permute(2, 0, 1).float().div(255).to(device)
        self._base = (inside @ to_image[:, :2].T + to_image[:, 2]).float().to(device)
        places, to_image = inside.float().to(device), to_image.float().to(device)
        self._turn = to_image[:, :2].T
        self._mouth = None
        if opens_mouth:
            geometry = MouthGeometry(landmarks)
            lips = shut_lips(self._region, places, to_image, landmarks)
            sealed = sealed_lips(self._region, places, to_image, geometry)
            self._mouth = MouthPainter(lips, self._region, local, geometry, sealed_3HW=sealed)
        self._lids = Eyelids(places, to_image, landmarks)

    def render(self, faces: FaceFrames) -> Iterator[np.ndarray]:
        """Whole frames, made a few at a time: (H, W, 3) uint8; outside the crop the portrait itself."""
        left, top, right, bottom = self._box
        count = max(1, _PIECE_VALUES // (3 * (right - left) * (bottom - top)))
        for first in range(0, len(faces), count):
            with one_thread():
                made = self._pixels(faces[first : first + count])
            for planes in made:
                frame = self._portrait.copy()
                for channel, plane in enumerate(planes):
                    frame[top:bottom, left:right, channel] = plane
                yield frame

    def _pixels(self, faces: FaceFrames) -> np.ndarray:
        """What lies in the box, (F, 3, h, w) uint8."""
        turned = (faces.flow_F2GG.permute(0, 2, 3, 1) @ self._turn).permute(0, 3, 1, 2)
        places = _sample(turned, self._crop_places, padding="border").permute(0, 2, 3, 1) + self._base
        moved = _sample(self._lids.lowered(self._region, faces.lids_F), places, padding="border")
        if faces.shapes is not None:
            assert self._mouth is not None
            self._mouth.paint(moved, faces.flow_F2GG, faces.shapes)
        self._add(moved, faces)
        levels = moved.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
        return levels.cpu().numpy()

    def _add(self, moved_F3hw: torch.Tensor, faces: FaceFrames) -> None:
        """Add the residual where it lies in the box, in place."""
        height, width = faces.residual_F3hw.shape[2:]
        low = faces.corner_F2.amin(dim=0)
        high = faces.corner_F2.amax(dim=0) + torch.tensor([width, height], device=low.device)
        rows, columns = self._part(low.cpu().numpy() / faces.per_pixel, high.cpu().numpy() / faces.per_pixel)
        inside = (self._crop_places[rows, columns] + 1) * (CROP_SIZE / 2 * faces.per_pixel)
        extent = torch.tensor([width, height], device=inside.device) / 2
        places = (inside - faces.corner_F2[:, None, None]) / extent - 1
        added = _sample(faces.residual_F3hw, places, padding="zeros")
        moved_F3hw[:, :, rows, columns] += added.mul_(self._fade[rows, columns])

    def _part(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice]:
        """The rows and columns of the box that hold a rectangle of the crop, from ``low`` to ``high``."""
        corners = np.array([[low[0], low[1]], [high[0], low[1]], [low[0], high[1]], [high[0], high[1]]])
        left, top, right, bottom = self._box
        pixels = self._crop.to_picture(corners) - np.array([left, top])
        first = np.clip(np.floor(pixels.min(axis=0)), 0, [right - left, bottom - top]).astype(int)
        last = np.clip(np.ceil(pixels.max(axis=0)), 0, [right - left, bottom - top]).astype(int)
        return slice(int(first[1]), int(last[1])), slice(int(first[0]), int(last[0]))


def _sample(image_FCHW: torch.Tensor, places_HW2: torch.Tensor, padding: str) -> torch.Tensor:
    """Read pictures at the same places, (H, W, 2), or each at its own, (F, H, W, 2)."""
    places = places_HW2.expand(len(image_FCHW), -1, -1, -1)
    return F.grid_sample(image_FCHW, places, mode="bilinear", padding_mode=padding, align_corners=False)


def _covered_box(portrait: np.ndarray, crop: FaceCrop) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part of the picture that the crop covers."""
    size = float(crop.size)
    corners = crop.to_picture(np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]]))
    low = np.clip(np.floor(corners.min(axis=0)), 0, None).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), None, portrait.shape[1::-1]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
