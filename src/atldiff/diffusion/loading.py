"""The image part of a model folder: which network it has, and what moves a face with it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from atldiff.diffusion.animator import FaceAnimator, FaceFrames
from atldiff.diffusion.paper_animator import PaperFaceAnimator
from atldiff.diffusion.paper_unet import PaperDiffusionUNet, PaperUNetConfig
from atldiff.diffusion.unet import IdentityDiffusionUNet, UNetConfig
from atldiff.errors import ModelError
from atldiff.serialization import CONFIG_NAME, load_part, read_json

UNET_FOLDER = "unet"

ImageNetwork = IdentityDiffusionUNet | PaperDiffusionUNet


@dataclass(frozen=True)
class ImagePart:
    """A kind of image network with its configuration and the sampler steps that suit it."""

    network: Any
    config: Any
    steps: int


IMAGE_PARTS = {
    "IdentityDiffusionUNet": ImagePart(IdentityDiffusionUNet, UNetConfig, steps=1),
    "PaperDiffusionUNet": ImagePart(PaperDiffusionUNet, PaperUNetConfig, steps=8),
}
"""By the ``class_name`` in ``config.json``; without one it is the first."""


class Animator(Protocol):
    """Moves one face."""

    def stream(self, blocks: Iterable[np.ndarray]) -> Iterator[FaceFrames]: ...


def image_part(folder: Path) -> ImagePart:
    """What kind of image network a model folder has.

    Raises:
        ModelError: its configuration is missing or names an unknown class.
    """
    path = folder / UNET_FOLDER / CONFIG_NAME
    values = read_json(path)
    name = values.get("class_name", "IdentityDiffusionUNet") if isinstance(values, dict) else None
    if name not in IMAGE_PARTS:
        raise ModelError(f"{path} names the class {name!r}; expected one of {', '.join(IMAGE_PARTS)}")
    return IMAGE_PARTS[name]


def load_image_network(folder: Path) -> ImageNetwork:
    """The image network of a model folder.

    Raises:
        ModelError: it is missing or corrupt.
    """
    part = image_part(folder)
    return load_part(folder / UNET_FOLDER, part.network, part.config)


def make_animator(
    network: ImageNetwork,
    identity: np.ndarray,
    landmarks: np.ndarray,
    steps: int,
    seed: int,
    emotion: str,
    precision: str = "auto",
) -> Animator:
    """What moves a face with this network.

    The compact one learns expressions from landmarks and takes no emotion; the paper's is worked out in float32.
    """
    if isinstance(network, PaperDiffusionUNet):
        return PaperFaceAnimator(network, identity, landmarks, steps, seed, emotion)
    return FaceAnimator(network, identity, landmarks, steps, seed, precision)
