"""Landmarks → frames of one face: warp, Landmarks-Guide Noise, U-Net, in overlapping clips."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from atldiff.face.crop import CROP_SIZE, PICTURE_SIZE, resized
from atldiff.image.conditioning import Conditions, IdentityFace
from atldiff.image.guidance import guide_noise
from atldiff.image.mouth.geometry import MouthShapes
from atldiff.image.pipelined import one_thread, pipelined
from atldiff.image.precision import in_precision, network_type
from atldiff.image.quantised import quantised
from atldiff.image.sampler import bridge_sample
from atldiff.image.unet import IdentityDiffusionUNet, TemporalMemory
from atldiff.image.warp import thin_plate_flow, warp
from atldiff.image.window import WINDOW_SCALE, WINDOW_SIZE, WORKED_WINDOW

CLIP_FRAMES = 32
HALO_FRAMES = 4
"""Frames computed and dropped on either side of a clip for each step, so that clips join without a seam."""

_LOWER_FACE = [*range(4, 13), *range(55, 60), 65, 66, 67]
_SHOWN_DROPS = (0.0, 3.0, 8.0)
"""By how many crop pixels the lower lip and the chin are drawn down, to see what numbers the network meets."""


@dataclass(frozen=True)
class FaceFrames:
    """Consecutive frames of the face: how the portrait is moved, and what the network adds to that.

    Attributes:
        flow_F2GG: backward flow from the identity crop, crop pixels.
        shapes: the frames' mouths, for the layer behind the lips; None where there is no such layer.
        lids_F: how far each frame's upper eyelids are drawn down, 0 to 1.
        residual_F3hw: what is added to the moved portrait, of pictures in [0, 1].
        corner_F2: left and top of the residual in the crop, in its own pixels.
        per_pixel: pixels of the residual to a crop pixel.
    """

    flow_F2GG: torch.Tensor
    shapes: MouthShapes | None
    lids_F: torch.Tensor
    residual_F3hw: torch.Tensor
    corner_F2: torch.Tensor
    per_pixel: int

    def __getitem__(self, part: slice) -> "FaceFrames":
        return FaceFrames(
            self.flow_F2GG[part],
            self.shapes[part] if self.shapes is not None else None,
            self.lids_F[part],
            self.residual_F3hw[part],
            self.corner_F2[part],
            self.per_pixel,
        )

    def __len__(self) -> int:
        return len(self.flow_F2GG)


class FaceAnimator:
    """Moves one face.

    What the network would add to the identity at rest is taken off everywhere, moved along with the face: a portrait
    that does not move is itself, whatever the network makes of its beard or its light.

    Args:
        unet: the image network.
        identity: (S, S, 3) uint8 face crop; the network sees it at 256 pixels.
        landmarks: (68, 2) its landmarks, crop pixels.
        steps: sampler steps; 0 gives the plain warp of the identity, without the network.
        seed: seeds the noise, which is the same for every frame, so that a face at rest is still.
        precision: of the network, see :func:`atldiff.image.precision.network_type`.

    Attributes:
        opens_mouth: whether the frames have a layer behind the lips.
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
        self._steps = steps
        self._device = next(unet.parameters()).device
        number = network_type(precision, self._device)
        self._unet = in_precision(unet, torch.float32 if number == torch.int8 else number)
        self._landmarks = torch.from_numpy(landmarks).float().to(self._device)[None]
        generator = torch.Generator().manual_seed(seed)
        self.begin_live()
        noise = torch.randn(1, 3, WINDOW_SIZE, WINDOW_SIZE, generator=generator)
        self._noise = noise[..., *WORKED_WINDOW].to(self._device)
        self.opens_mouth = steps > 0 and unet.config.warp
        if steps > 0:
            picture = to_picture(identity, PICTURE_SIZE).to(self._device)
            self._face = IdentityFace(picture, landmarks, unet.config.warp, paints=unet.config.inside > 0)
            with torch.no_grad():
                self._tokens = self._unet.encode_identity(self._face.window_3WW[None])
                if number == torch.int8:
                    self._unet = quantised(self._unet, self._show)
                self._at_rest = self._added_at_rest()

    def stream(self, blocks: Iterable[np.ndarray]) -> Iterator[FaceFrames]:
        """Blocks of landmarks (n, 68, 2) → blocks of frames, the same number in all, whatever the blocks' sizes."""
        halo = HALO_FRAMES * self._steps
        clips = landmark_clips(blocks, CLIP_FRAMES, halo, halo)
        if self._device.type != "cpu" or self._steps == 0:
            yield from itertools.starmap(self.animate, clips)
            return
        given = ((self._conditions(landmarks), kept) for landmarks, kept in clips)
        yield from pipelined(lambda clip: self._finished(*clip), given)

    def begin_live(self) -> None:
        """The frames that :meth:`go_on` makes next follow none."""
        self._memories = [TemporalMemory() for _ in range(self._steps)]

    def go_on(self, landmarks: np.ndarray) -> FaceFrames:
        """Frames for landmarks (F, 68, 2) that follow those of the last call: for live use, it waits for no later
        frame.

        The network's temporal mixing then misses what follows a piece. What it adds around the mouth is then alike
        to that of :meth:`stream` to 58 dB (median of six clips in pieces of two frames; the least 43 dB).
        """
        for memory in self._memories:
            memory.begin_piece()
        return self.animate(landmarks, memories=self._memories)

    @torch.no_grad()
    def animate(
        self, landmarks: np.ndarray, kept: slice | None = None, memories: Sequence[TemporalMemory] = ()
    ) -> FaceFrames:
        """Frames for landmarks (F, 68, 2), all at once; those of ``kept`` alone, if given, the rest lead to them.

        ``memories``, one for each step, hold the frames before these.
        """
        if self._steps == 0:
            return warp_alone(self._landmarks, self._points(landmarks)[kept or slice(None)])
        return self._finished(self._conditions(landmarks), kept or slice(None), memories)

    def _points(self, landmarks: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(landmarks).float().to(self._device)

    @torch.no_grad()
    def _conditions(self, landmarks: np.ndarray) -> Conditions:
        """What the network is given."""
        with one_thread():
            return self._face.conditions(self._points(landmarks), WORKED_WINDOW)

    @torch.no_grad()
    def _finished(self, given: Conditions, kept: slice, memories: Sequence[TemporalMemory] = ()) -> FaceFrames:
        """The frames ``kept``, with what the network adds."""
        kept = slice(*kept.indices(len(given.flow_F2GG))[:2])
        flow, corner = given.flow_F2GG[kept], given.corner_F2[kept]
        left, top = corner.unbind(dim=1)
        height, width = given.warped_F3WW.shape[2:]
        at_rest = warp(self._at_rest, flow, CROP_SIZE, (left, top, width, height))
        return FaceFrames(
            flow_F2GG=flow,
            shapes=given.shapes[kept] if given.shapes is not None else None,
            lids_F=given.lids_F[kept],
            residual_F3hw=self._added(given, kept, memories) - at_rest,
            corner_F2=corner,
            per_pixel=WINDOW_SCALE,
        )

    def _added(self, given: Conditions, kept: slice, memories: Sequence[TemporalMemory] = ()) -> torch.Tensor:
        """What the network adds to the windows of the frames ``kept``, (F, 3, 104, 112)."""
        start = guide_noise(given.warped_F3WW, given.mask_F1WW, self._noise, self._unet.config.noise_scale)
        remembered = iter(memories)

        def denoise(state: torch.Tensor, time: torch.Tensor, part: slice | None = None) -> torch.Tensor:
            conditions = (given.warped_F3WW, given.maps_F8ww, self._tokens, given.region_F2WW)
            return self._unet(state, time, *conditions, part, next(remembered, None))

        windows = bridge_sample(denoise, start, self._steps, partial(denoise, part=kept))
        return windows.clamp(0, 1) - given.warped_F3WW[kept]

    def _show(self, network: IdentityDiffusionUNet) -> None:
        """Run a network on the face at rest and with an open mouth."""
        own, self._unet = self._unet, network
        points = self._landmarks.repeat(len(_SHOWN_DROPS), 1, 1)
        points[:, _LOWER_FACE, 1] += points.new_tensor(_SHOWN_DROPS)[:, None]
        self._added(self._face.conditions(points, WORKED_WINDOW), slice(0, len(points)))
        self._unet = own

    def _added_at_rest(self) -> torch.Tensor:
        """(3, 256, 256) what it adds to the identity where nothing has moved."""
        given = self._face.conditions(self._landmarks, WORKED_WINDOW)
        ((left, top),) = given.corner_F2.tolist()
        added = torch.zeros(3, PICTURE_SIZE, PICTURE_SIZE, device=self._device)
        window = self._added(given, slice(0, 1))[0]
        added[:, top : top + window.shape[1], left : left + window.shape[2]] = window
        return added


def landmark_clips(
    blocks: Iterable[np.ndarray], count: int, before: int, after: int
) -> Iterator[tuple[np.ndarray, slice]]:
    """Blocks of landmarks (n, 68, 2), of any sizes → the clips that frames are computed in.

    Yields:
        The landmarks of a clip, and which of its frames are new: ``count`` of them with ``before`` frames ahead and
        ``after`` behind where there are so many; in the last clip all that are left.
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


def warp_alone(landmarks_1K2: torch.Tensor, points_FK2: torch.Tensor) -> FaceFrames:
    """Frames without the network: the identity moved from its landmarks to those of each frame."""
    frames, device = len(points_FK2), points_FK2.device
    flow = thin_plate_flow(landmarks_1K2, points_FK2, CROP_SIZE)
    still, corner = torch.zeros(frames, device=device), torch.zeros(frames, 2, dtype=torch.long, device=device)
    return FaceFrames(flow, None, still, torch.zeros(frames, 3, CROP_SIZE, CROP_SIZE, device=device), corner, 1)


def to_picture(crop: np.ndarray, size: int) -> torch.Tensor:
    """(S, S, 3) uint8 → (3, size, size) float32 in [0, 1]."""
    if len(crop) != size:
        crop = resized(crop, size)
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255
