"""Landmarks → frames of one face: warp, Landmarks-Guide Noise, U-Net, in overlapping windows of frames."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch

from atldiff.diffusion.precision import network_type
from atldiff.diffusion.sampler import bridge_sample
from atldiff.diffusion.unet import IdentityDiffusionUNet
from atldiff.face.crop import CROP_SIZE
from atldiff.face.lids import Eyelids, lid_closure, open_lids
from atldiff.face.lips import shut_lips, shut_share
from atldiff.guidance import guide_noise, landmark_maps, noise_mask, residual_region
from atldiff.warp import FLOW_GRID, thin_plate_flow, warp

WINDOW_FRAMES = 32
HALO_FRAMES = 4
"""Frames computed and dropped on either side of a window, so that windows join without a seam."""

LIVE_HALO_FRAMES = 1
"""Frames computed and dropped before a window in live use, where none after it are at hand."""


@dataclass(frozen=True)
class FaceFrames:
    """Consecutive frames of the face crop.

    Attributes:
        flow_F2GG: backward flow from the identity crop, crop pixels.
        shut_F: how far each frame draws from the picture with its lips together, 0 to 1.
        lids_F: how far each frame's upper eyelids are drawn down, 0 to 1.
        warped_F3SS: the identity crop through the flow, values in [0, 1].
        frames_F3SS: the finished frames, values in [0, 1].
    """

    flow_F2GG: torch.Tensor
    shut_F: torch.Tensor
    lids_F: torch.Tensor
    warped_F3SS: torch.Tensor
    frames_F3SS: torch.Tensor

    def __getitem__(self, part: slice) -> "FaceFrames":
        return FaceFrames(*(getattr(self, each.name)[part] for each in fields(self)))

    def to_pictures(self) -> np.ndarray:
        """(F, 128, 128, 3) uint8."""
        return (self.frames_F3SS * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


class FaceAnimator:
    """Moves one face.

    Args:
        unet: the image network.
        identity: (128, 128, 3) uint8 face crop.
        landmarks: (68, 2) its landmarks, crop pixels.
        steps: sampler steps; 0 gives the plain warp of the identity, without the network.
        seed: seeds the noise, which is the same for every frame, so that a face at rest is still.
        precision: of the network's convolutions, see :func:`atldiff.diffusion.precision.network_type`.
    """

    def __init__(
        self,
        unet: IdentityDiffusionUNet,
        identity: np.ndarray,
        landmarks: np.ndarray,
        steps: int,
        seed: int,
        precision: str = "auto",
    ) -> None:
        self._unet = unet
        self._steps = steps
        self._device = next(unet.parameters()).device
        self._type = network_type(precision, self._device)
        self._identity = to_picture(identity).to(self._device)
        self._landmarks = torch.from_numpy(landmarks).float().to(self._device)[None]
        places, to_image = _crop_places(self._device)
        self._shut_identity = shut_lips(self._identity, places, to_image, landmarks)
        self._lids = Eyelids(places, to_image, landmarks)
        self._maps = landmark_maps(self._landmarks, CROP_SIZE, CROP_SIZE // 2)
        generator = torch.Generator().manual_seed(seed)
        self._noise = torch.randn(1, 3, CROP_SIZE, CROP_SIZE, generator=generator).to(self._device)
        with torch.no_grad():
            self._tokens = unet.encode_identity(self._identity[None])

    def stream(self, blocks: Iterable[np.ndarray]) -> Iterator[FaceFrames]:
        """Blocks of landmarks (n, 68, 2) → blocks of frames, the same number in all, whatever the blocks' sizes."""
        for landmarks, part in landmark_windows(blocks, WINDOW_FRAMES, HALO_FRAMES, HALO_FRAMES):
            yield self.animate(landmarks, part)

    @torch.no_grad()
    def animate(self, landmarks: np.ndarray, kept: slice | None = None) -> FaceFrames:
        """Frames for landmarks (F, 68, 2), all at once; those of ``kept`` alone, if given, the rest lead to them."""
        points = torch.from_numpy(landmarks).float().to(self._device)
        kept = slice(*(kept or slice(None)).indices(len(points))[:2])
        if self._steps == 0:
            return warp_alone(self._identity, self._landmarks, points[kept])
        if self._unet.config.warp:
            flow, shut, lids, warped = self._bent(points)
        else:
            flow, shut, lids, warped = self._unbent(points)
        own_maps = landmark_maps(points, CROP_SIZE, CROP_SIZE // 2)
        maps = torch.cat([own_maps, self._maps.expand(len(points), -1, -1, -1)], dim=1)
        region = residual_region(points, CROP_SIZE)
        start = guide_noise(warped, noise_mask(points, CROP_SIZE), self._noise, self._unet.config.noise_scale)

        def denoise(state: torch.Tensor, time: torch.Tensor, part: slice | None = None) -> torch.Tensor:
            with torch.autocast(self._device.type, self._type, enabled=self._type != torch.float32):
                return self._unet(state, time, warped, maps, self._tokens, region, part)

        finish = partial(denoise, part=kept)
        frames = bridge_sample(denoise, start, self._steps, finish).clamp(0, 1)
        return FaceFrames(flow[kept], shut[kept], lids[kept], warped[kept], frames)

    def _bent(self, points_FK2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Flow, shares of shut lips and lids, and the identity bent to each frame's landmarks."""
        own = self._landmarks[0]
        shut, lids = shut_share(own, points_FK2), lid_closure(own, points_FK2)
        flow = thin_plate_flow(self._landmarks, open_lids(own, points_FK2, lids), CROP_SIZE)
        identities = torch.lerp(self._identity, self._shut_identity, shut[:, None, None, None])
        for frame in torch.nonzero(lids).flatten():
            identities[frame] = self._lids.draw(identities[frame], lids[frame])
        return flow, shut, lids, warp(identities, flow, CROP_SIZE)

    def _unbent(self, points_FK2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same for a network that begins at the identity as it is."""
        frames = len(points_FK2)
        none = torch.zeros(frames, device=self._device)
        flow = torch.zeros(frames, 2, FLOW_GRID, FLOW_GRID, device=self._device)
        return flow, none, none, self._identity.expand(frames, -1, -1, -1)


def landmark_windows(
    blocks: Iterable[np.ndarray], count: int, before: int, after: int
) -> Iterator[tuple[np.ndarray, slice]]:
    """Blocks of landmarks (n, 68, 2), of any sizes → the windows that frames are computed in.

    Yields:
        The landmarks of a window, and which of its frames are new: ``count`` of them with ``before`` frames ahead and
        ``after`` behind where there are so many; in the last window all that are left.
    """
    held, start, done = np.zeros((0, 68, 2), dtype=np.float32), 0, 0
    for block in blocks:
        held = np.concatenate([held, block])
        while start + len(held) > done + count + after:
            yield held[: done + count + after - start], slice(done - start, done + count - start)
            done += count
            dropped = max(0, done - before - start)
            held, start = held[dropped:], start + dropped
    if start + len(held) > done:
        yield held, slice(done - start, len(held))


def prompt_windows(blocks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, slice]]:
    """Like :func:`landmark_windows`, each block at once, for live use: it waits for no later frame.

    The network's temporal mixing then misses what follows a block. Against the windows of :meth:`FaceAnimator.stream`
    the mouth is alike to 51 dB with one frame before the block, no more with more of them, and to 48 dB with none;
    two frames after the block would make that 70 dB, and every frame 80 ms later.
    """
    past = np.zeros((0, 68, 2), dtype=np.float32)
    for block in blocks:
        held = np.concatenate([past, block])
        yield held, slice(len(past), len(held))
        past = held[-LIVE_HALO_FRAMES:]


def warp_alone(identity_3SS: torch.Tensor, landmarks_1K2: torch.Tensor, points_FK2: torch.Tensor) -> FaceFrames:
    """Frames without the network: the identity moved from its landmarks to those of each frame."""
    flow = thin_plate_flow(landmarks_1K2, points_FK2, CROP_SIZE)
    warped, none = warp(identity_3SS, flow, CROP_SIZE), torch.zeros(len(points_FK2), device=points_FK2.device)
    return FaceFrames(flow, none, none, warped, warped)


def to_picture(crop: np.ndarray) -> torch.Tensor:
    """(S, S, 3) uint8 → (3, S, S) float32 in [0, 1]."""
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255


def _crop_places(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, S, 2) the pixels' places in the crop, and the way (2, 3) from there to [-1, 1]."""
    steps = torch.arange(CROP_SIZE, device=device) + 0.5
    places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    return places, torch.tensor([[2 / CROP_SIZE, 0.0, -1.0], [0.0, 2 / CROP_SIZE, -1.0]], device=device)
