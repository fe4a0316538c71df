"""Landmarks → frames of one face as in the paper: noise that the landmarks guide, denoised in overlapping clips."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from atldiff.face.crop import CROP_SIZE
from atldiff.image.animator import FaceFrames, to_picture, warp_alone
from atldiff.image.guidance import guide_noise, noise_mask_as_published
from atldiff.image.paper_unet import PaperDiffusionUNet
from atldiff.image.sampler import ddim_sample
from atldiff.image.warp import warp


class PaperFaceAnimator:
    """Moves one face with the paper's image network.

    Clips are as long as those that the network was trained on, 32 frames; a quarter of each, 8 frames, overlaps the
    one before and is faded over. A frame has the same noise in both, and another than every other frame. The last
    clip is filled up with its last landmarks. The flow takes no part in the network's frames: it moves the detail
    of a portrait that is finer than the crop, and the residual is what makes the moved crop the network's.

    Args:
        unet: the image network.
        identity: (S, S, 3) uint8 face crop; the network sees it at 128 pixels.
        landmarks: (68, 2) its landmarks, crop pixels; the network does not see them.
        steps: sampler steps; 0 gives the plain warp of the identity, without the network.
        seed: seeds the noise.
        emotion: one of :data:`~atldiff.options.EMOTIONS`; one that was never learned counts as neutral.
    """

    opens_mouth = False
    """The frames have no layer behind the lips."""

    def __init__(
        self,
        unet: PaperDiffusionUNet,
        identity: np.ndarray,
        landmarks: np.ndarray,
        steps: int,
        seed: int,
        emotion: str = "neutral",
    ) -> None:
        self._unet, self._steps, self._seed = unet, steps, seed
        self._frames = unet.config.frames
        self._overlap = self._frames // 4
        self._device = next(unet.parameters()).device
        self._identity = to_picture(identity, CROP_SIZE).to(self._device)
        self._landmarks = torch.from_numpy(landmarks).float().to(self._device)[None]
        self._emotion = torch.tensor([unet.emotion_number(emotion)], device=self._device)
        with torch.no_grad():
            self._tokens = unet.encode_identity(self._identity[None])

    def stream(self, blocks: Iterable[np.ndarray]) -> Iterator[FaceFrames]:
        """Blocks of landmarks (n, 68, 2) → blocks of frames, the same number in all, whatever the blocks' sizes."""
        first, fading = 0, None
        for landmarks, part in landmark_clips(blocks, self._frames - self._overlap, self._overlap):
            made = self._clip(landmarks, first)
            if fading is not None:
                made = self._fade(fading, made)
            yield made[part]
            first, fading = first + part.stop, made.residual_F3hw[part.stop :]

    def _fade(self, before_F3SS: torch.Tensor, made: FaceFrames) -> FaceFrames:
        """Fade from the last residuals of the clip before to those of this one, which are the same in time."""
        count = min(len(before_F3SS), len(made))
        share = torch.arange(1, count + 1, device=self._device).view(-1, 1, 1, 1) / (len(before_F3SS) + 1)
        residual = made.residual_F3hw.clone()
        residual[:count] = torch.lerp(before_F3SS[:count], residual[:count], share)
        return dataclasses.replace(made, residual_F3hw=residual)

    @torch.no_grad()
    def _clip(self, landmarks: np.ndarray, first: int) -> FaceFrames:
        """Frames for at most a clip's landmarks, of which the first belong to frame ``first`` of the video."""
        points = torch.from_numpy(landmarks).float().to(self._device)
        made = warp_alone(self._landmarks, points)
        if self._steps == 0:
            return made
        filled = torch.cat([points, points[-1:].expand(self._frames - len(points), -1, -1)])
        mask = noise_mask_as_published(filled[None], CROP_SIZE, self._unet.config.mask_kernel)[0, :, None]
        identity = self._identity[:, None]
        start = guide_noise(identity, mask.transpose(0, 1), self._noise(first), scale=1.0)

        def denoise(state_3FSS: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return self._unet(state_3FSS[None], time, self._tokens, self._emotion)[0]

        frames = ddim_sample(denoise, identity, start, self._steps).clamp(0, 1).transpose(0, 1)[: len(points)]
        return dataclasses.replace(made, residual_F3hw=frames - warp(self._identity, made.flow_F2GG, CROP_SIZE))

    def _noise(self, first: int) -> torch.Tensor:
        """(3, F, 128, 128) noise of the frames from ``first`` on; a frame's own is the same in every clip."""
        noises = []
        for frame in range(first, first + self._frames):
            seed = int(np.random.SeedSequence((self._seed, frame)).generate_state(1, np.uint64)[0] >> 1)
            generator = torch.Generator().manual_seed(seed)
            noises.append(torch.randn(3, CROP_SIZE, CROP_SIZE, generator=generator))
        return torch.stack(noises, dim=1).to(self._device)


def landmark_clips(blocks: Iterable[np.ndarray], count: int, after: int) -> Iterator[tuple[np.ndarray, slice]]:
    """Blocks of landmarks (n, 68, 2), of any sizes → the clips that frames are computed in.

    Yields:
        The landmarks of a clip, and which of its frames are shown: ``count`` of them, with ``after`` behind that the
        next clip begins with; in the last clip all that are left.
    """
    held = np.zeros((0, 68, 2), dtype=np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > count + after:
            yield held[: count + after], slice(0, count)
            held = held[count:]
    if len(held):
        yield held, slice(0, len(held))
