"""From an identity and landmarks to everything that the image network is given, when it learns and when it works."""

from dataclasses import dataclass

import numpy as np
import torch

from atldiff.face.crop import CROP_SIZE, FaceCrop
from atldiff.face.lids import Eyelids, lid_closure, open_lids
from atldiff.face.lips import shut_lips
from atldiff.face.mouth.geometry import MouthGeometry, MouthShapes
from atldiff.face.mouth.painter import MouthPainter
from atldiff.guidance import landmark_maps, noise_mask, residual_region
from atldiff.warp import FLOW_GRID, thin_plate_flow, warp


@dataclass(frozen=True)
class Conditions:
    """What the network is told of F frames.

    Attributes:
        flow_F2GG: backward flow from the identity crop, crop pixels.
        shapes: the frames' mouths; None where the mouth is not a layer.
        lids_F: how far each frame's upper eyelids are drawn down, 0 to 1.
        warped_F3SS: the identity moved to each frame's landmarks, on which the guided noise is laid.
        maps_F8ss: landmark maps of the frame and of the identity, at half the crop's resolution.
        mask_F1SS: where the noise lies.
        region_F1SS: where the network may change the picture.
    """

    flow_F2GG: torch.Tensor
    shapes: MouthShapes | None
    lids_F: torch.Tensor
    warped_F3SS: torch.Tensor
    maps_F8ss: torch.Tensor
    mask_F1SS: torch.Tensor
    region_F1SS: torch.Tensor


class IdentityFace:
    """One identity crop made ready to be moved.

    Args:
        identity_3SS: the crop in [0, 1].
        landmarks: (68, 2) its landmarks, crop pixels.
        bent: whether the start is the identity moved to each frame's landmarks, or the identity as it is.
    """

    def __init__(self, identity_3SS: torch.Tensor, landmarks: np.ndarray, bent: bool = True) -> None:
        self.identity = identity_3SS
        self._bent = bent
        device = identity_3SS.device
        self._landmarks = torch.from_numpy(np.asarray(landmarks)).float().to(device)[None]
        self._maps = landmark_maps(self._landmarks, CROP_SIZE, CROP_SIZE // 2)
        if bent:
            places, to_image = _crop_places(device)
            self._lips = shut_lips(identity_3SS, places, to_image, landmarks)
            self._lids = Eyelids(places, to_image, landmarks)
            self._geometry = MouthGeometry(landmarks)
            whole = FaceCrop(np.eye(2, 3))
            self._painter = MouthPainter(self._lips, identity_3SS, whole, self._geometry)

    def conditions(self, points_FK2: torch.Tensor) -> Conditions:
        """For frames with these landmarks, (F, 68, 2) crop pixels on the identity's device."""
        flow, shapes, lids, warped = self._moved(points_FK2) if self._bent else self._still(points_FK2)
        maps = landmark_maps(points_FK2, CROP_SIZE, CROP_SIZE // 2)
        return Conditions(
            flow_F2GG=flow,
            shapes=shapes,
            lids_F=lids,
            warped_F3SS=warped,
            maps_F8ss=torch.cat([maps, self._maps.expand(len(points_FK2), -1, -1, -1)], dim=1),
            mask_F1SS=noise_mask(points_FK2, CROP_SIZE),
            region_F1SS=residual_region(points_FK2, CROP_SIZE),
        )

    def _moved(self, points_FK2: torch.Tensor) -> tuple[torch.Tensor, MouthShapes | None, torch.Tensor, torch.Tensor]:
        own = self._landmarks[0]
        lids = lid_closure(own, points_FK2)
        flow = thin_plate_flow(self._landmarks, open_lids(own, points_FK2, lids), CROP_SIZE)
        shapes = self._geometry.shapes(points_FK2)
        warped = warp(self._lids.lowered(self._lips, lids), flow, CROP_SIZE)
        self._painter.paint(warped, flow, shapes)
        return flow, shapes, lids, warped

    def _still(self, points_FK2: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor, torch.Tensor]:
        """For a network that begins at the identity as it is."""
        frames, device = len(points_FK2), points_FK2.device
        flow = torch.zeros(frames, 2, FLOW_GRID, FLOW_GRID, device=device)
        return flow, None, torch.zeros(frames, device=device), self.identity.expand(frames, -1, -1, -1)


def _crop_places(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, S, 2) the pixels' places in the crop, and the way (2, 3) from there to [-1, 1]."""
    steps = torch.arange(CROP_SIZE, device=device) + 0.5
    places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    return places, torch.tensor([[2 / CROP_SIZE, 0.0, -1.0], [0.0, 2 / CROP_SIZE, -1.0]], device=device)
