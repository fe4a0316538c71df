"""The image part of a model folder: which network it has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atldiff.errors import ModelError
from atldiff.image.animators import ImageNetwork
from atldiff.image.paper_unet import PaperDiffusionUNet, PaperUNetConfig
from atldiff.image.unet import IdentityDiffusionUNet, UNetConfig
from atldiff.storage.files import read_json
from atldiff.storage.parts import CONFIG_NAME, load_part

UNET_FOLDER = "unet"


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
