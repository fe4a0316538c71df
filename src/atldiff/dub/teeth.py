"""What lies behind a speaker's lips, learned from the frames that show it best."""

from dataclasses import dataclass

import numpy as np
import torch

from atldiff.dub.head import Heads
from atldiff.face.crop import FaceCrop
from atldiff.face.similarity import undo_similarity
from atldiff.face.topology import mouth_opening
from atldiff.image.mouth.atlas import MouthAtlas, make_atlas
from atldiff.image.mouth.geometry import MouthGeometry
from atldiff.image.mouth.inside import LOWER_SHARE_OF_DROP

_LIPS_DEPTH_MM = 6.0
"""How far teeth lie behind the lips."""

_BEST_OPENING = 0.16
"""Opening, in eye distances, of a mouth that shows its teeth best: of a wider one the jaw is far down."""


@dataclass(frozen=True)
class MouthInside:
    """A speaker's teeth, at their places in the skull and the jaw.

    Attributes:
        atlas: pictures in millimetres from the middle of the seam of the frame that they were learned from.
        geometry: the mouth at rest as that frame has the head.
        depth: of the teeth in the face model, crop pixels.
        to_mm_33: from places (x, y, 1) of the model at that depth to the millimetres of the atlas.
    """

    atlas: MouthAtlas
    geometry: MouthGeometry
    depth: float
    to_mm_33: np.ndarray

    def skulls(self, heads: Heads, centre_2: np.ndarray) -> np.ndarray:
        """(F, 2, 3) from the frames' crop pixels to the millimetres of the atlas."""
        return (self.to_mm_33 @ np.linalg.inv(_in_crop(heads, centre_2, self.depth)))[:, :2]


def best_view(places_F683: np.ndarray, heads: Heads) -> int:
    """The frame whose mouth shows most of what is behind the lips, from the front."""
    opening = mouth_opening(places_F683[..., :2])
    cost = np.abs(opening - _BEST_OPENING) / 0.1 + (heads.turned() / np.radians(20)) ** 2
    return int(cost.argmin())


def learn_inside(
    region: np.ndarray, crop: FaceCrop, own_682: np.ndarray, rest_683: np.ndarray, head: Heads, centre_2: np.ndarray
) -> MouthInside:
    """Learn from one frame.

    Args:
        region: (h, w, 3) uint8.
        crop: where its crop lies in it.
        own_682: its landmarks, crop pixels.
        rest_683: the speaker at rest, places of the face model.
        head: of that frame alone.
        centre_2: see :meth:`~atldiff.dub.head.Heads.crops`.
    """
    picture = torch.from_numpy(region).permute(2, 0, 1).float() / 255
    own = MouthGeometry(own_682)
    rest = FaceCrop(head.crops(centre_2)[0]).to_crop(head.project(rest_683[None])[0])
    geometry = MouthGeometry(rest)
    own.pixels_per_mm, geometry.middle = geometry.pixels_per_mm, own.middle
    lowered = float(geometry.shapes(torch.from_numpy(own_682)[None]).drop_F[0])
    atlas = make_atlas(picture, crop, own).with_lower_raised(LOWER_SHARE_OF_DROP * lowered)
    depth = float(rest_683[[62, 66], 2].mean()) + _LIPS_DEPTH_MM * geometry.pixels_per_mm
    to_mm = _flat(geometry.to_mm().numpy()) @ _in_crop(head, centre_2, depth)[0]
    return MouthInside(atlas, geometry, depth, to_mm)


def _in_crop(heads: Heads, centre_2: np.ndarray, depth: float) -> np.ndarray:
    """(F, 3, 3) from places (x, y, 1) of the model at a depth to the frames' crop pixels."""
    corners = np.array([[0.0, 0.0, depth], [1.0, 0.0, depth], [0.0, 1.0, depth]])
    pixels = heads.project(np.broadcast_to(corners, (len(heads), 3, 3)))
    places = undo_similarity(heads.crops(centre_2), pixels)
    origin = places[:, 0]
    linear = np.stack([places[:, 1] - origin, places[:, 2] - origin, origin], axis=2)
    return _flat(linear)


def _flat(matrix_23: np.ndarray) -> np.ndarray:
    """(..., 2, 3) → (..., 3, 3)."""
    last = np.broadcast_to(np.array([0.0, 0.0, 1.0]), (*matrix_23.shape[:-2], 1, 3))
    return np.concatenate([matrix_23, last], axis=-2)
