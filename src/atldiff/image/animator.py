"""Landmarks → frames of one face: warp, Landmarks-Guide Noise, U-Net, piece by piece."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from atldiff.face.crop import CROP_SIZE, PICTURE_SIZE, resized
from atldiff.image.conditioning import Conditions, IdentityFace
from atldiff.image.frames import FrameRows
from atldiff.image.guidance import guide_noise
from atldiff.image.mouth.geometry import MouthShapes
from atldiff.image.pipelined import one_thread, pipelined
from atldiff.image.precision import in_precision, network_type
from atldiff.image.quantised import quantised
from atldiff.image.sampler import BridgeSampler, PassingDenoiser
from atldiff.image.temporal import TEMPORAL_MIXES, PassingFrames
from atldiff.image.unet import IdentityDiffusionUNet
from atldiff.image.warp import thin_plate_flow, warp
from atldiff.image.window import WINDOW_SCALE, WINDOW_SIZE, WORKED_WINDOW

PIECE_FRAMES = 16
"""Frames that are worked on at a time: a few, so that what lies between stays small and close."""

_LOWER_FACE = [*range(4, 13), *range(55, 60), 65, 66, 67]
_SHOWN_DROPS = (0.0, 3.0, 8.0)
"""By how many crop pixels the lower lip and the chin are drawn down, to see what numbers the network meets."""


@dataclass(frozen=True)
class FaceFrames(FrameRows):
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
        pieces = landmark_pieces(blocks, max(PIECE_FRAMES, 2 * TEMPORAL_MIXES * self._steps + 1))
        if self._steps == 0:
            yield from (self.animate(landmarks) for landmarks, _ in pieces)
            return
        clip = _Clip(self._network, self._steps)
        each = pipelined if self._device.type == "cpu" else map
        yield from each(lambda piece: self._finished(clip, self._conditions(piece[0]), piece[1]), pieces)

    def begin_live(self) -> None:
        """The frames that :meth:`go_on` makes next follow none."""
        self._live = _Clip(self._network, self._steps, looks_ahead=False)

    def go_on(self, landmarks: np.ndarray) -> FaceFrames:
        """Frames for landmarks (F, 68, 2) that follow those of the last call: for live use, it waits for no later
        frame.

        The network's temporal mixing then misses what follows a piece. What it adds around the mouth is then alike
        to that of :meth:`stream` to 58 dB (median of six clips in pieces of two frames; the least 43 dB).
        """
        return self._made(landmarks, self._live)

    def animate(self, landmarks: np.ndarray) -> FaceFrames:
        """Frames for landmarks (F, 68, 2), all at once."""
        return self._made(landmarks, _Clip(self._network, self._steps))

    def _made(self, landmarks: np.ndarray, clip: "_Clip") -> FaceFrames:
        if self._steps == 0:
            return warp_alone(self._landmarks, self._points(landmarks))
        return self._finished(clip, self._conditions(landmarks), last=True)

    def _points(self, landmarks: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(landmarks).float().to(self._device)

    @torch.no_grad()
    def _conditions(self, landmarks: np.ndarray) -> Conditions:
        """What the network is given."""
        with one_thread():
            return self._face.conditions(self._points(landmarks), WORKED_WINDOW)

    @torch.no_grad()
    def _finished(self, clip: "_Clip", given: Conditions, last: bool) -> FaceFrames:
        """The frames of a clip that are done with a piece of it, with what the network adds."""
        done, added = self._added(clip, given, last)
        left, top = done.corner_F2.unbind(dim=1)
        height, width = added.shape[2:]
        at_rest = warp(self._at_rest, done.flow_F2GG, CROP_SIZE, (left, top, width, height))
        return FaceFrames(
            flow_F2GG=done.flow_F2GG,
            shapes=done.shapes,
            lids_F=done.lids_F,
            residual_F3hw=added - at_rest,
            corner_F2=done.corner_F2,
            per_pixel=WINDOW_SCALE,
        )

    def _added(self, clip: "_Clip", given: Conditions, last: bool) -> tuple[Conditions, torch.Tensor]:
        """The frames that are done, and what the network adds to their windows, (F, 3, 104, 112)."""
        start = guide_noise(given.warped_F3WW, given.mask_F1WW, self._noise, self._unet.config.noise_scale)
        seen = given.warped_F3WW, given.maps_F8ww, given.region_F2WW
        windows = clip.sampler.take(start, *seen, last=last)
        done = clip.done(given, len(windows))
        return done, windows.clamp(0, 1) - done.warped_F3WW

    def _network(
        self,
        state_F3HW: torch.Tensor,
        time_1: torch.Tensor,
        warped_F3HW: torch.Tensor,
        maps_F8hw: torch.Tensor,
        region_F2HW: torch.Tensor,
        frames: PassingFrames,
    ) -> torch.Tensor:
        return self._unet(state_F3HW, time_1, warped_F3HW, maps_F8hw, self._tokens, region_F2HW, frames)

    def _show(self, network: IdentityDiffusionUNet) -> None:
        """Run a network on the face at rest and with an open mouth."""
        own, self._unet = self._unet, network
        points = self._landmarks.repeat(len(_SHOWN_DROPS), 1, 1)
        points[:, _LOWER_FACE, 1] += points.new_tensor(_SHOWN_DROPS)[:, None]
        self._added(_Clip(self._network, self._steps), self._face.conditions(points, WORKED_WINDOW), last=True)
        self._unet = own

    def _added_at_rest(self) -> torch.Tensor:
        """(3, 256, 256) what it adds to the identity where nothing has moved."""
        given = self._face.conditions(self._landmarks, WORKED_WINDOW)
        ((left, top),) = given.corner_F2.tolist()
        added = torch.zeros(3, PICTURE_SIZE, PICTURE_SIZE, device=self._device)
        _, (window,) = self._added(_Clip(self._network, self._steps), given, last=True)
        added[:, top : top + window.shape[1], left : left + window.shape[2]] = window
        return added


class _Clip:
    """The state of one clip whose frames come piece by piece: in the sampler, and those that it has not yet done.

    Args:
        network, steps, looks_ahead: of the sampler.
    """

    def __init__(self, network: PassingDenoiser, steps: int, looks_ahead: bool = True) -> None:
        self.sampler = BridgeSampler(network, steps, looks_ahead)
        self._waiting: Conditions | None = None

    def done(self, given: Conditions, count: int) -> Conditions:
        """The next ``count`` frames of those that have been given; these are the latest."""
        held = given if self._waiting is None else Conditions.joined([self._waiting, given])
        self._waiting = held[count:]
        return held[:count]


def landmark_pieces(blocks: Iterable[np.ndarray], count: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Blocks of landmarks (n, 68, 2), of any sizes → pieces of ``count``; whether one is the last, which has up to so
    many. The first has half of them, so that there is something to show early."""
    held, wanted = np.zeros((0, 68, 2), dtype=np.float32), (count + 1) // 2
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > wanted:
            yield held[:wanted], False
            held, wanted = held[wanted:], count
    if len(held):
        yield held, True


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
