"""What moves a face, whichever image network a model has."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from atldiff.image.animator import FaceAnimator, FaceFrames
from atldiff.image.paper_animator import PaperFaceAnimator
from atldiff.image.paper_unet import PaperDiffusionUNet
from atldiff.image.unet import IdentityDiffusionUNet

ImageNetwork = IdentityDiffusionUNet | PaperDiffusionUNet


class Animator(Protocol):
    """Moves one face.

    Attributes:
        opens_mouth: whether its frames have a layer behind the lips.
    """

    opens_mouth: bool

    def stream(self, blocks: Iterable[np.ndarray]) -> Iterator[FaceFrames]:
        """Blocks of landmarks, (n, 68, 2) crop pixels → blocks of frames, the same number in all."""
        ...


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
