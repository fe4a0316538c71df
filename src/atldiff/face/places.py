"""Where the pixels of a picture lie in the face crop, and the way back."""

import numpy as np
import torch

from atldiff.face.crop import FaceCrop


def crop_places(crop: FaceCrop, width: int, height: int) -> torch.Tensor:
    """(height, width, 2) float64, crop pixels: the places of a picture's pixels."""
    inverse = torch.from_numpy(np.linalg.inv(crop.matrix[:, :2]))
    x = torch.arange(width, dtype=torch.float64) + 0.5 - crop.matrix[0, 2]
    y = torch.arange(height, dtype=torch.float64) + 0.5 - crop.matrix[1, 2]
    return torch.stack([x * row[0] + y[:, None] * row[1] for row in inverse], dim=-1)


def crop_to_image(crop: FaceCrop, width: int, height: int) -> torch.Tensor:
    """(2, 3) float64 from crop pixels (x, y, 1) to [-1, 1] over a picture of that size."""
    matrix = torch.from_numpy(crop.matrix) * torch.tensor([[2 / width], [2 / height]], dtype=torch.float64)
    matrix[:, 2] -= 1
    return matrix
