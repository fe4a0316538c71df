"""Put the made face back into the whole portrait, at the portrait's own resolution.

The portrait's own pixels are moved by the flow, so what the network did not change stays as sharp as the
portrait; the network's residual is added on top. Flow and residual fade to zero at the crop's border: no seam.
"""

import numpy as np
import torch
import torch.nn.functional as F

from atldiff.face.crop import FaceCrop
from atldiff.face.lids import Eyelids
from atldiff.face.lips import shut_lips

_EDGE_FADE = 0.06
"""Share of the crop's half side over which the residual fades in from the border."""


class PortraitComposer:
    """Renders whole frames from the flow and the residual of the face crop.

    Args:
        portrait: (H, W, 3) uint8.
        crop: where the face crop lies in it.
        landmarks: (68, 2) identity landmarks, crop pixels.
        device: where the pixels are moved.
    """

    def __init__(self, portrait: np.ndarray, crop: FaceCrop, landmarks: np.ndarray, device: torch.device) -> None:
        self._portrait = portrait
        self._box = left, top, right, bottom = _covered_box(portrait, crop)
        x = torch.arange(left, right, dtype=torch.float64) + 0.5
        y = torch.arange(top, bottom, dtype=torch.float64) + 0.5
        pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        inverse = torch.from_numpy(np.linalg.inv(crop.matrix[:, :2]))
        inside = (pixels - torch.from_numpy(crop.matrix[:, 2])) @ inverse.T
        self._crop_places = (inside * (2 / crop.size) - 1).float().to(device)
        self._fade = ((1 - self._crop_places.abs().amax(dim=-1)) / _EDGE_FADE).clamp(0, 1)
        region = torch.from_numpy(portrait[top:bottom, left:right].copy())
        self._region = region.permute(2, 0, 1).float().div(255).to(device)
        local = pixels - torch.tensor([left, top], dtype=torch.float64)
        extent = np.array([right - left, bottom - top])
        self._base = (local * torch.from_numpy(2 / extent) - 1).float().to(device)
        self._turn = torch.from_numpy(crop.matrix[:, :2].T / extent * 2).float().to(device)
        corner = crop.matrix[:, 2] - np.array([left, top])
        shift = torch.from_numpy(corner / extent * 2 - 1).float().to(device)
        to_image = torch.cat([self._turn.T, shift[:, None]], dim=1)
        places = inside.float().to(device)
        self._shut_region = shut_lips(self._region, places, to_image, landmarks)
        self._lids = Eyelids(places, to_image, landmarks)

    def render(
        self, flow_2GG: torch.Tensor, shut: torch.Tensor, lids: torch.Tensor, residual_3SS: torch.Tensor
    ) -> np.ndarray:
        """One frame.

        Args:
            flow_2GG: backward flow in crop pixels, zero on the border.
            shut: () how far to draw from the portrait with its lips together, 0 to 1.
            lids: () how far to draw the upper eyelids down, 0 to 1.
            residual_3SS: what the network adds to the warped crop, pictures in [0, 1].

        Returns:
            (H, W, 3) uint8; outside the crop the portrait itself.
        """
        flow = _sample(flow_2GG, self._crop_places, padding="border")
        region = torch.lerp(self._region, self._shut_region, shut) if shut > 0 else self._region
        if lids > 0:
            region = self._lids.draw(region, lids)
        flow = torch.where(self._fade > 0, flow, 0.0)
        moved = _sample(region, self._base + flow.permute(1, 2, 0) @ self._turn, padding="border")
        added = self._fade * _sample(residual_3SS, self._crop_places, padding="zeros")
        pixels = ((moved + added) * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        frame = self._portrait.copy()
        left, top, right, bottom = self._box
        frame[top:bottom, left:right] = pixels
        return frame


def _sample(image_CHW: torch.Tensor, places_HW2: torch.Tensor, padding: str) -> torch.Tensor:
    return F.grid_sample(
        image_CHW[None], places_HW2[None], mode="bilinear", padding_mode=padding, align_corners=False
    )[0]


def _covered_box(portrait: np.ndarray, crop: FaceCrop) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part of the picture that the crop covers."""
    size = float(crop.size)
    corners = crop.to_picture(np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]]))
    low = np.clip(np.floor(corners.min(axis=0)), 0, None).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), None, portrait.shape[1::-1]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
