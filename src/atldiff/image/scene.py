"""A portrait made ready to move: what turns landmarks into frames of its face, and those into whole pictures."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from atldiff.face.crop import CROP_SIZE, FaceCrop, face_crop, whole_crop
from atldiff.image.animator import FaceFrames
from atldiff.image.animators import Animator, ImageNetwork, make_animator
from atldiff.image.compose import PortraitComposer
from atldiff.image.mouth.settle import settle_lips
from atldiff.options import GenerationOptions


@dataclass(frozen=True)
class Scene:
    """A portrait made ready to move.

    Attributes:
        points: (68, 2) identity landmarks, crop pixels.
        animator: from landmarks to frames of the face.
        width, height: of the pictures in pixels.
        pictures: from those frames to pictures.
        place: from crop pixels to those of the pictures.
    """

    points: np.ndarray
    animator: Animator
    width: int
    height: int
    pictures: Callable[[Iterable[FaceFrames]], Iterator[np.ndarray]]
    place: Callable[[np.ndarray], np.ndarray]

    def frames(self, blocks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of landmarks (n, 68, 2), crop pixels → the pictures, each with its landmarks, (68, 2) its pixels."""
        moving, shown = itertools.tee(blocks)
        pictures = self.pictures(self.animator.stream(moving))
        return zip(pictures, itertools.chain.from_iterable(map(self.place, shown)), strict=True)


def make_scene(
    network: ImageNetwork,
    picture: np.ndarray,
    landmarks: np.ndarray,
    options: GenerationOptions,
    crop_only: bool,
    precision: str,
) -> Scene:
    """Make a portrait ready.

    Args:
        network: the image network; the pictures are made on its device.
        picture: (H, W, 3) uint8.
        landmarks: (68, 2) of the face in it, pixels.
        options: steps, seed and emotion.
        crop_only: the pictures are the face crop, not the whole portrait.
        precision: of the network, see :func:`atldiff.image.precision.network_type`.
    """
    crop = face_crop(landmarks, CROP_SIZE)
    points = crop.to_crop(settle_lips(picture, landmarks))
    identity = face_crop(landmarks, network.picture_size).cut(picture)
    animator = make_animator(network, identity, points, options.steps, options.seed, options.emotion, precision)
    if crop_only:
        return _scene(animator, network, identity, whole_crop(len(identity)), points)
    return _scene(animator, network, picture, crop, points)


def make_crop_scene(
    network: ImageNetwork,
    identity: np.ndarray,
    landmarks: np.ndarray,
    steps: int,
    seed: int,
    emotion: str,
    precision: str,
) -> Scene:
    """Make a face crop with known landmarks ready.

    Args:
        network, precision: as for :func:`make_scene`.
        identity: (S, S, 3) uint8 crop, which is the whole picture.
        landmarks: (68, 2) its landmarks, pixels.
        steps, seed, emotion: of the animator.
    """
    crop = whole_crop(len(identity))
    points = crop.to_crop(landmarks)
    animator = make_animator(network, identity, points, steps, seed, emotion, precision)
    return _scene(animator, network, identity, crop, points)


def _scene(
    animator: Animator, network: ImageNetwork, picture: np.ndarray, crop: FaceCrop, points: np.ndarray
) -> Scene:
    composer = PortraitComposer(picture, crop, points, next(network.parameters()).device, animator.opens_mouth)
    height, width = picture.shape[:2]
    return Scene(points, animator, width, height, partial(_whole_pictures, composer=composer), crop.to_picture)


def _whole_pictures(faces: Iterable[FaceFrames], composer: PortraitComposer) -> Iterator[np.ndarray]:
    for each in faces:
        yield from composer.render(each)
