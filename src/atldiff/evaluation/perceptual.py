"""LPIPS and FID through TorchScript networks whose files the caller has, see docs/evaluation.md."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from atldiff.errors import InputError

_BATCH = 32


def load_torchscript(path: Path, device: torch.device) -> Any:
    """A TorchScript network, ready for inference.

    Raises:
        InputError: there is no such file, or it is not TorchScript.
    """
    if not path.is_file():
        raise InputError(f"there are no weights at {path}; docs/evaluation.md says where they are published")
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path} is not a TorchScript file that can be loaded: {error}") from error


def _features(network: Any, path: Path, batch: torch.Tensor, **arguments: bool) -> torch.Tensor:
    """(N, features) float32 of a (N, 3, H, W) batch.

    Raises:
        InputError: the network does not take such a call, or answers with another shape.
    """
    try:
        with torch.inference_mode():
            features = network(batch, **arguments)
    except RuntimeError as error:
        raise InputError(f"{path} cannot be called with {sorted(arguments)}: {error}") from error
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != len(batch):
        raise InputError(f"{path} gave no (N, features) tensor; expected the file named in docs/evaluation.md")
    return features.float()


def _batches(frames: np.ndarray, device: torch.device) -> list[torch.Tensor]:
    """(F, H, W, 3) uint8 → (N, 3, H, W) uint8 tensors of at most 32 frames."""
    pieces = (frames[start : start + _BATCH] for start in range(0, len(frames), _BATCH))
    return [torch.from_numpy(np.ascontiguousarray(piece)).permute(0, 3, 1, 2).to(device) for piece in pieces]


class PerceptualDistance:
    """LPIPS (Zhang et al. 2018, eq. 1) with VGG-16, as a network whose features' squared distance it is.

    Args:
        path: TorchScript ``vgg16.pt``, called on pictures from 0 to 255 with ``return_lpips``.
        device: where it runs.

    Raises:
        InputError: the file cannot be used.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._device = path, device
        self._network = load_torchscript(path, device)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> float:
        """The mean over frames. Both are (F, H, W, 3) uint8."""
        distances = []
        for batch in zip(_batches(first, self._device), _batches(second, self._device), strict=True):
            one, other = (
                _features(self._network, self._path, pictures.float(), resize_images=False, return_lpips=True)
                for pictures in batch
            )
            distances.append((one - other).square().sum(dim=1))
        return float(torch.cat(distances).mean())


class FrechetDistances:
    """FID (Heusel et al. 2017, eq. 6) of many videos, by group and row; a sum of squares is kept, no pictures.

    Args:
        path: TorchScript ``inception-2015-12-05.pt``, called on uint8 pictures with ``return_features``.
        device: where it runs.

    Raises:
        InputError: the file cannot be used, or torchmetrics is not installed.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            from torchmetrics.image.fid import FrechetInceptionDistance
        except ImportError as error:
            raise InputError(
                'FID needs torchmetrics, which is not installed; install it with: pip install ".[eval]"'
            ) from error
        self._new_metric = FrechetInceptionDistance
        self._path, self._device = path, device
        self._network = load_torchscript(path, device)
        self._metrics: dict[str, dict[str, Any]] = defaultdict(dict)

    def features(self, frames: np.ndarray) -> torch.Tensor:
        """(F, features) on the CPU, of (F, H, W, 3) uint8."""
        batches = _batches(frames, self._device)
        return torch.cat(
            [_features(self._network, self._path, batch, return_features=True).cpu() for batch in batches]
        )

    def add(self, group: str, row: str, features: torch.Tensor, true_features: torch.Tensor) -> None:
        """Count the features of one video, and those of the true frames it stands against."""
        if row not in self._metrics[group]:
            self._metrics[group][row] = self._new_metric(_Features(features.shape[1]))
        self._metrics[group][row].update(true_features, real=True)
        self._metrics[group][row].update(features, real=False)

    def distances(self) -> dict[str, dict[str, float]]:
        """Group → row → FID."""
        return {
            group: {row: float(metric.compute()) for row, metric in rows.items()}
            for group, rows in self._metrics.items()
        }


class _Features(nn.Module):
    """Takes features as they are: the metric is given them in the place of pictures."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features
