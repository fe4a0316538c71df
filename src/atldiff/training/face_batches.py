"""Batches for the image network: short runs of frames, cut around the mouth, the eyes or any part of the face.

A batch is made in two steps. :class:`FaceDraws` reads from the clips what only the processor can read and draws every
random number; its result is small, and worker processes make it. :func:`assemble` turns it into the network's
tensors, all clips at once, on whatever device it lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from atldiff.data.prepared import PreparedClip, SpeakerSampler
from atldiff.diffusion.conditioning import IdentityFace
from atldiff.errors import InputError
from atldiff.face.crop import CROP_SIZE
from atldiff.face.topology import LEFT_EYE, MIRROR_68, MOUTH, NUM_LANDMARKS, RIGHT_EYE

Draw = dict[str, torch.Tensor]
Batch = dict[str, torch.Tensor]

_MAX_SHIFT = 10.0
"""How far in pixels a crop's centre is drawn from what it is cut around."""


class FaceBatchSettings(Protocol):
    """What a run's settings say of its batches: ``clips`` runs of ``frames`` frames, cut to ``crop`` pixels."""

    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def clips(self) -> int: ...
    @property
    def frames(self) -> int: ...
    @property
    def crop(self) -> int: ...
    @property
    def first_step_share(self) -> float: ...


@dataclass(frozen=True)
class _Window:
    """What is drawn for one clip: where it is cut in time and in space, how it is changed."""

    clip: PreparedClip
    first: int
    identity: int
    flip: bool
    gamma: float
    gain: np.ndarray
    centre: tuple[slice, slice]
    shift: np.ndarray


class FaceDraws(Dataset[Draw]):
    """The clips, random numbers and frames of step ``step``: a function of the seed and the step alone.

    Several processes share a step: each takes an equal part of its clips, in order, so that all together work on the
    very batch that one process would.

    Args:
        clips: those that may be drawn; speakers come up equally often.
        training: the run's settings.
        rank, world: number of this process and of all.
        augment: flips, tints and places the crops at random, and draws times below 1; otherwise mouth crops at t = 1.

    Raises:
        InputError: the clips are too short or not of 128 pixels, or cannot be shared out evenly.
    """

    def __init__(
        self,
        clips: Sequence[PreparedClip],
        training: FaceBatchSettings,
        rank: int = 0,
        world: int = 1,
        augment: bool = True,
    ) -> None:
        if training.clips % world:
            raise InputError(f"clips is {training.clips}; expected a multiple of the {world} processes")
        for clip in clips:
            if clip.info.size != CROP_SIZE:
                raise InputError(f"{clip.info.key} is of {clip.info.size} pixels; expected {CROP_SIZE}")
        self._training = training
        self._augment = augment
        self._sampler = SpeakerSampler(clips, training.frames)
        share = training.clips // world
        self._own = slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return self._training.steps

    def __getitem__(self, step: int) -> Draw:
        """Draw number ``step``.

        Returns:
            For n clips (this process's part of the step) of F frames: ``frames`` (n, F, crop, crop, 3) uint8, cut;
            ``identity`` (n, 128, 128, 3) uint8; ``landmarks`` (n, F + 1, 68, 2) crop pixels, the last the identity's;
            ``corner`` (n, 2) left and top of the cut; ``gamma`` (n,) and ``gain`` (n, 3) of the tint; ``time`` (n,);
            ``noise`` (n, 3, crop, crop). Pictures and landmarks are flipped already.
        """
        random = np.random.default_rng((self._training.seed, step))
        windows = [self._window(random) for _ in range(self._training.clips)]
        noise = torch.Generator().manual_seed(int(random.integers(2**62)))
        crop = self._training.crop
        noises = torch.randn(self._training.clips, 3, crop, crop, generator=noise)
        times = torch.tensor([self._time(random) for _ in windows], dtype=torch.float32)
        parts = [self._read(window) for window in windows[self._own]]
        draw = {name: torch.from_numpy(np.stack([part[name] for part in parts])) for name in parts[0]}
        return draw | {"time": times[self._own], "noise": noises[self._own]}

    def _time(self, random: np.random.Generator) -> float:
        if not self._augment or random.random() < self._training.first_step_share:
            return 1.0
        return float(random.choice([0.25, 0.5, 0.75, 0.125 + 0.875 * random.random()]))

    def _window(self, random: np.random.Generator) -> _Window:
        clip, count = self._sampler.draw(random), self._training.frames
        first = int(random.integers(clip.info.frames - count + 1))
        identity = int(random.integers(clip.info.frames))
        targets = slice(0, count)
        if not self._augment:
            return _Window(clip, first, identity, False, 1.0, np.ones(3), (targets, MOUTH), np.zeros(2))
        flip = bool(random.random() < 0.5)
        gamma, gain = float(np.exp(random.normal(0, 0.2))), np.exp(random.normal(0, 0.1, size=3))
        kind = random.choice(3, p=[0.65, 0.15, 0.2])
        if kind == 0:
            centre = targets, MOUTH
        elif kind == 1:
            centre = targets, RIGHT_EYE if random.random() < 0.5 else LEFT_EYE
        else:
            point = int(random.integers(NUM_LANDMARKS))
            centre = slice(0, 1), slice(point, point + 1)
        shift = random.uniform(-_MAX_SHIFT, _MAX_SHIFT, size=2)
        return _Window(clip, first, identity, flip, gamma, gain, centre, shift)

    def _read(self, window: _Window) -> dict[str, np.ndarray]:
        count, crop = self._training.frames, self._training.crop
        all_landmarks = window.clip.landmarks()
        chosen = [*range(window.first, window.first + count), window.identity]
        landmarks = all_landmarks[chosen]
        frames, identity = window.clip.frames(window.first, count), window.clip.frames(window.identity, 1)[0]
        if window.flip:
            frames, identity = frames[:, :, ::-1], np.ascontiguousarray(identity[:, ::-1])
            landmarks = landmarks[:, MIRROR_68] * np.array([-1, 1], np.float32) + np.array([CROP_SIZE, 0], np.float32)
        centre = landmarks[window.centre].mean(axis=(0, 1)) + window.shift
        left, top = (np.clip(centre - crop / 2, 0, CROP_SIZE - crop) // 2 * 2).astype(int)
        return {
            "frames": frames[:, top : top + crop, left : left + crop],
            "identity": identity,
            "landmarks": landmarks,
            "corner": np.array([left, top]),
            "gamma": np.array(window.gamma, np.float32),
            "gain": window.gain.astype(np.float32),
        }


def assemble(draw: Draw, bent: bool = True) -> Batch:
    """What the network needs of a draw, on the draw's device.

    Args:
        draw: of :class:`FaceDraws`.
        bent: whether ``warped`` is the identity bent to the frames' landmarks, or the identity as it is.

    Returns:
        float32 tensors, N = clips · frames, pictures in [0, 1]: ``clean`` and ``warped`` (N, 3, crop, crop), ``maps``
        (N, 8, crop / 2, crop / 2), ``mask`` and ``region`` (N, 1, crop, crop), ``noise`` (N, 3, crop, crop), ``time``
        (N,); ``identity`` (clips, 3, 128, 128). Noise and time are the same for all frames of a clip.
    """
    clips, frames, crop = draw["frames"].shape[:3]
    identity = tinted(draw["identity"][:, None], draw)
    parts: dict[str, list[torch.Tensor]] = {"warped": [], "maps": [], "mask": [], "region": []}
    for clip in range(clips):
        landmarks = draw["landmarks"][clip]
        face = IdentityFace(identity[clip], landmarks[-1].cpu().numpy(), bent)
        given = face.conditions(landmarks[:-1])
        left, top = draw["corner"][clip].tolist()
        for name, whole in zip(
            parts, (given.warped_F3SS, given.maps_F8ss, given.mask_F1SS, given.region_F1SS), strict=True
        ):
            parts[name].append(_cut(whole, left, top, crop))
    return {
        "clean": tinted(draw["frames"], draw),
        **{name: torch.cat(cuts) for name, cuts in parts.items()},
        "identity": identity,
        "noise": draw["noise"].repeat_interleave(frames, dim=0),
        "time": draw["time"].repeat_interleave(frames),
    }


def _cut(whole_FCSS: torch.Tensor, left: int, top: int, crop: int) -> torch.Tensor:
    """The part of pictures of any resolution that a cut takes; its corner and side in pixels of the crop."""
    per_pixel = whole_FCSS.shape[-1] / CROP_SIZE
    x, y, side = (round(value * per_pixel) for value in (left, top, crop))
    return whole_FCSS[..., y : y + side, x : x + side]


def tinted(pictures_NFHW3: torch.Tensor, draw: Draw) -> torch.Tensor:
    """(N · F, 3, H, W) float32 in [0, 1]: gain · picture^gamma, each clip and channel its own."""
    pictures = pictures_NFHW3.permute(0, 1, 4, 2, 3).float() / 255
    gamma, gain = draw["gamma"].view(-1, 1, 1, 1, 1), draw["gain"].view(-1, 1, 3, 1, 1)
    return (pictures.pow(gamma) * gain).clamp(0, 1).flatten(0, 1)
