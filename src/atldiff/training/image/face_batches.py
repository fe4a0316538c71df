"""Batches for the image networks: short runs of frames, cut out of the face.

A batch is made in two steps. :class:`FaceDraws` reads from the clips what only the processor can read and draws every
random number; its result is small, and worker processes make it. :func:`assemble` turns it into the network's
tensors, all clips at once, on whatever device it lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from atldiff.data.prepared import PreparedClip, SpeakerSampler
from atldiff.errors import InputError
from atldiff.face.crop import CROP_SIZE, PICTURE_SIZE
from atldiff.face.topology import MIRROR_68, mouth_opening
from atldiff.image.conditioning import IdentityFace
from atldiff.image.window import WINDOW_SIZE, cut_windows

Draw = dict[str, torch.Tensor]
Batch = dict[str, torch.Tensor]

_SMALLEST_CLIP = 128
"""Side in pixels of the coarsest clips that are taken; those of another size than the network's are resampled."""


_BY_CHANCE = 0.5
"""Share of the clips whose frames are drawn evenly; of the others the more open of two runs is taken, and the more
shut of two identities: what is asked of a network most is to open a shut mouth."""

_PALE_SHARE = 0.25
"""Share of the clips that are made paler, down to grey, or more colourful."""

_CUT_PARTS = ("clean", "warped", "maps", "mask", "region", "inside")


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
class _Run:
    """What is drawn for one clip: where it is cut in time and in space, how it is changed."""

    clip: PreparedClip
    first: int
    identity: int
    flip: bool
    gamma: float
    gain: np.ndarray
    saturation: float
    corner: np.ndarray


class FaceDraws(Dataset[Draw]):
    """The clips, random numbers and frames of step ``step``: a function of the seed and the step alone.

    Several processes share a step: each takes an equal part of its clips, in order, so that all together work on the
    very batch that one process would.

    Args:
        clips: those that may be drawn; speakers come up equally often.
        training: the run's settings.
        rank, world: number of this process and of all.
        augment: flips, tints and places the cuts at random, and draws times below 1; otherwise cuts in the middle at
            t = 1.
        picture_size: side in pixels of the face crops that are drawn.
        field_size: side in pixels of what the cuts are taken from.

    Raises:
        InputError: the clips are too short or of less than 128 pixels, or cannot be shared out evenly.
    """

    def __init__(
        self,
        clips: Sequence[PreparedClip],
        training: FaceBatchSettings,
        rank: int = 0,
        world: int = 1,
        augment: bool = True,
        picture_size: int = PICTURE_SIZE,
        field_size: int = WINDOW_SIZE,
    ) -> None:
        if training.clips % world:
            raise InputError(f"clips is {training.clips}; expected a multiple of the {world} processes")
        for clip in clips:
            if clip.info.size < _SMALLEST_CLIP:
                raise InputError(f"{clip.info.key} is of {clip.info.size} pixels; expected {_SMALLEST_CLIP} or more")
        self._training = training
        self._augment = augment
        self._size, self._room = picture_size, field_size - training.crop
        self._sampler = SpeakerSampler(clips, training.frames)
        share = training.clips // world
        self._own = slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return self._training.steps

    def __getitem__(self, step: int) -> Draw:
        """Draw number ``step``.

        Returns:
            For n clips (this process's part of the step) of F frames and a picture size S: ``frames`` (n, F, S, S, 3)
            and ``identity`` (n, S, S, 3) uint8; ``landmarks`` (n, F + 1, 68, 2) crop pixels, the last the identity's;
            ``corner`` (n, 2) left and top of the cut in its field; ``gamma`` (n,), ``gain`` (n, 3) and ``saturation``
            (n,) of the tint; ``time`` (n,); ``noise`` (n, 3, crop, crop). Pictures and landmarks are flipped already.
        """
        random = np.random.default_rng((self._training.seed, step))
        runs = [self._run(random) for _ in range(self._training.clips)]
        noise = torch.Generator().manual_seed(int(random.integers(2**62)))
        crop = self._training.crop
        noises = torch.randn(self._training.clips, 3, crop, crop, generator=noise)
        times = torch.tensor([self._time(random) for _ in runs], dtype=torch.float32)
        parts = [self._read(run) for run in runs[self._own]]
        draw = {name: torch.from_numpy(np.stack([part[name] for part in parts])) for name in parts[0]}
        return draw | {"time": times[self._own], "noise": noises[self._own]}

    def _time(self, random: np.random.Generator) -> float:
        if not self._augment or random.random() < self._training.first_step_share:
            return 1.0
        return float(random.choice([0.25, 0.5, 0.75, 0.125 + 0.875 * random.random()]))

    def _run(self, random: np.random.Generator) -> _Run:
        clip, count = self._sampler.draw(random), self._training.frames
        firsts = random.integers(clip.info.frames - count + 1, size=2)
        identities = random.integers(clip.info.frames, size=2)
        if not self._augment:
            middle = self._corner(np.full(2, 0.5))
            return _Run(clip, int(firsts[0]), int(identities[0]), False, 1.0, np.ones(3), 1.0, middle)
        opening = mouth_opening(clip.landmarks())
        by_chance = random.random(2) < _BY_CHANCE
        first = firsts[0] if by_chance[0] else max(firsts, key=lambda first: opening[first : first + count].mean())
        identity = identities[0] if by_chance[1] else min(identities, key=lambda frame: opening[frame])
        flip = bool(random.random() < 0.5)
        gamma, gain = float(np.exp(random.normal(0, 0.2))), np.exp(random.normal(0, 0.1, size=3))
        colour = random.uniform(0, 1.2) if random.random() < _PALE_SHARE else 1.0
        place = self._corner(random.random((2, 2)).mean(axis=0))
        return _Run(clip, int(first), int(identity), flip, gamma, gain, float(colour), place)

    def _corner(self, place: np.ndarray) -> np.ndarray:
        """Left and top of a cut, even, for a place from 0 to 1 either way: most lie in the middle."""
        return (place * self._room / 2).round().astype(int) * 2

    def _read(self, run: _Run) -> dict[str, np.ndarray]:
        count, size = self._training.frames, run.clip.info.size
        chosen = [*range(run.first, run.first + count), run.identity]
        landmarks = run.clip.landmarks()[chosen] * np.float32(CROP_SIZE / size)
        frames, identity = run.clip.frames(run.first, count), run.clip.frames(run.identity, 1)[0]
        if size != self._size:
            frames, identity = _resized(frames, self._size), _resized(identity[None], self._size)[0]
        if run.flip:
            frames, identity = frames[:, :, ::-1], identity[:, ::-1]
            landmarks = landmarks[:, MIRROR_68] * np.array([-1, 1], np.float32) + np.array([CROP_SIZE, 0], np.float32)
        return {
            "frames": np.ascontiguousarray(frames),
            "identity": np.ascontiguousarray(identity),
            "landmarks": landmarks,
            "corner": run.corner,
            "gamma": np.array(run.gamma, np.float32),
            "gain": run.gain.astype(np.float32),
            "saturation": np.array(run.saturation, np.float32),
        }


def _resized(pictures: np.ndarray, size: int) -> np.ndarray:
    """(F, S, S, 3) uint8 → (F, size, size, 3)."""
    planes = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float()
    resized = F.interpolate(planes, size=(size, size), mode="bicubic", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def assemble(draw: Draw, bent: bool = True) -> Batch:
    """What the compact network needs of a draw, on the draw's device.

    Args:
        draw: of :class:`FaceDraws`.
        bent: whether ``warped`` is the identity bent to the frames' landmarks, or the identity as it is.

    Returns:
        float32 tensors, N = clips · frames, pictures in [0, 1], cut out of the frames' windows: ``clean``,
        ``warped`` and ``noise`` (N, 3, crop, crop), ``maps`` (N, 8, crop / 2, crop / 2), ``region``
        (N, 2, crop, crop), ``mask`` and ``inside``, what is seen between the lips, (N, 1, crop, crop), ``time`` (N,);
        ``identity`` (clips, 3, 128, 128), its whole window. Noise and time are the same for all frames of a clip.
    """
    clips, frames = draw["frames"].shape[:2]
    crop = draw["noise"].shape[-1]
    identity = tinted(draw["identity"][:, None], draw)
    true = tinted(draw["frames"], draw).unflatten(0, (clips, frames))
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in _CUT_PARTS}
    own = []
    for clip in range(clips):
        landmarks = draw["landmarks"][clip]
        face = IdentityFace(identity[clip], landmarks[-1].cpu().numpy(), bent)
        given = face.conditions(landmarks[:-1])
        clean = cut_windows(true[clip], given.corner_F2)
        left, top = draw["corner"][clip].tolist()
        wholes = (
            clean,
            given.warped_F3WW,
            given.maps_F8ww,
            given.mask_F1WW,
            given.region_F2WW,
            given.inside_F1WW,
        )
        for cuts, whole in zip(parts.values(), wholes, strict=True):
            cuts.append(_cut(whole, left, top, crop))
        own.append(face.window_3WW)
    return {
        **{name: torch.cat(cuts) for name, cuts in parts.items()},
        "identity": torch.stack(own),
        "noise": draw["noise"].repeat_interleave(frames, dim=0),
        "time": draw["time"].repeat_interleave(frames),
    }


def _cut(whole_FCww: torch.Tensor, left: int, top: int, crop: int) -> torch.Tensor:
    """The part of windows of any resolution that a cut takes; its corner and side in pixels of the window."""
    per_pixel = whole_FCww.shape[-1] / WINDOW_SIZE
    x, y, side = (round(value * per_pixel) for value in (left, top, crop))
    return whole_FCww[..., y : y + side, x : x + side]


def tinted(pictures_NFHW3: torch.Tensor, draw: Draw) -> torch.Tensor:
    """(N · F, 3, H, W) float32 in [0, 1]: gain · picture^gamma, each clip its own, then the saturation."""
    pictures = pictures_NFHW3.permute(0, 1, 4, 2, 3).float() / 255
    gamma, gain = draw["gamma"].view(-1, 1, 1, 1, 1), draw["gain"].view(-1, 1, 3, 1, 1)
    pictures = (pictures.pow(gamma) * gain).clamp(0, 1)
    if bool((draw["saturation"] == 1).all()):
        return pictures.flatten(0, 1)
    grey = pictures.mean(dim=2, keepdim=True)
    return torch.lerp(grey, pictures, draw["saturation"].view(-1, 1, 1, 1, 1)).clamp(0, 1).flatten(0, 1)
