"""Sampler and U-Net: known answers, and what the design promises of them."""

import numpy as np
import pytest
import torch

from atldiff.diffusion.animator import HALO_FRAMES, WINDOW_FRAMES, FaceAnimator
from atldiff.diffusion.sampler import bridge_sample, bridge_state, bridge_times
from atldiff.diffusion.unet import IdentityDiffusionUNet, UNetConfig
from test_warp import face_like_points

torch.set_num_threads(1)


def awake_unet() -> IdentityDiffusionUNet:
    """A small random network whose zero-initialised layers are not zero, so that every input matters."""
    torch.manual_seed(0)
    unet = IdentityDiffusionUNet(UNetConfig(channels=(8, 16, 16), time_features=16, attention_heads=2))
    with torch.no_grad():
        for parameter in unet.parameters():
            if parameter.abs().max() == 0 and parameter.ndim > 1:
                parameter.normal_(0, 0.05)
    return unet.eval()


def test_sampler_visits_equal_steps() -> None:
    assert bridge_times(4) == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_sampler_with_a_perfect_network_gives_the_clean_frames(steps: int) -> None:
    clean, start = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    assert torch.allclose(bridge_sample(lambda state, time: clean, start, steps), clean, atol=1e-6)


def test_sampler_states_lie_on_the_bridge() -> None:
    clean, start = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    seen = []

    def denoise(state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        seen.append(torch.allclose(state, bridge_state(clean, start, time), atol=1e-6))
        return clean

    bridge_sample(denoise, start, 5)
    assert seen == [True] * 5


def unet_inputs(frames: int, height: int = 32, width: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "noisy_N3HW": torch.rand(frames, 3, height, width, generator=generator),
        "time_N": torch.ones(1),
        "warped_N3HW": torch.rand(frames, 3, height, width, generator=generator),
        "maps_NMhw": torch.rand(frames, 8, height // 2, width // 2, generator=generator),
        "region_N1HW": torch.ones(frames, 1, height, width),
    }


def test_untrained_network_gives_the_warped_picture() -> None:
    unet = IdentityDiffusionUNet(UNetConfig(channels=(8, 16, 16), time_features=16, attention_heads=2))
    inputs = unet_inputs(2)
    tokens = unet.encode_identity(torch.rand(1, 3, 128, 128))
    assert torch.equal(unet(**inputs, identity_tokens_BLC=tokens), inputs["warped_N3HW"])


@torch.no_grad()
def test_network_runs_on_any_size_and_changes_nothing_outside_the_region() -> None:
    unet = awake_unet()
    tokens = unet.encode_identity(torch.rand(1, 3, 128, 128))
    inputs = unet_inputs(3, 40, 24)
    inputs["region_N1HW"][..., :20, :] = 0
    made = unet(**inputs, identity_tokens_BLC=tokens)
    assert torch.equal(made[..., :20, :], inputs["warped_N3HW"][..., :20, :])
    assert (made - inputs["warped_N3HW"])[..., 20:, :].abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("name", ["noisy_N3HW", "warped_N3HW", "maps_NMhw", "time_N", "identity"])
def test_every_input_matters(name: str) -> None:
    unet = awake_unet()
    identity = torch.rand(1, 3, 128, 128)
    inputs = unet_inputs(2)
    before = unet(**inputs, identity_tokens_BLC=unet.encode_identity(identity)) - inputs["warped_N3HW"]
    if name == "identity":
        identity = 1 - identity
    else:
        inputs[name] = inputs[name] * 0.5
    after = unet(**inputs, identity_tokens_BLC=unet.encode_identity(identity)) - inputs["warped_N3HW"]
    assert (after - before).abs().max() > 1e-6


@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other() -> None:
    unet = awake_unet()
    identity = torch.rand(2, 3, 128, 128)
    inputs = unet_inputs(6)
    both = unet(**inputs, identity_tokens_BLC=unet.encode_identity(identity))
    first = {name: value if name == "time_N" else value[:3] for name, value in inputs.items()}
    alone = unet(**first, identity_tokens_BLC=unet.encode_identity(identity[:1]))
    assert torch.allclose(both[:3], alone, atol=1e-5)


def animator(seed: int = 0) -> FaceAnimator:
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    return FaceAnimator(awake_unet(), picture, face_like_points().numpy(), steps=1, seed=seed)


def test_frames_do_not_depend_on_how_the_landmarks_arrive() -> None:
    count = WINDOW_FRAMES + 2 * HALO_FRAMES + 3
    steps = np.arange(count)[:, None, None]
    landmarks = (face_like_points().numpy() + np.sin(steps / 3)).astype(np.float32)
    whole = np.concatenate([part.to_pictures() for part in animator().stream([landmarks])])
    pieces = [landmarks[:5], landmarks[5:6], landmarks[6:30], landmarks[30:]]
    cut = np.concatenate([part.to_pictures() for part in animator().stream(pieces)])
    assert whole.shape == (count, 128, 128, 3)
    assert np.array_equal(whole, cut)


def test_windows_join_without_a_seam() -> None:
    count = WINDOW_FRAMES + 8
    landmarks = (face_like_points().numpy() + np.sin(np.arange(count) / 3)[:, None, None]).astype(np.float32)
    windows = torch.cat([part.frames_F3SS for part in animator().stream([landmarks])])
    at_once = animator().animate(landmarks).frames_F3SS
    assert (windows - at_once).abs().max() < 1e-4


def test_seed_decides_the_noise() -> None:
    landmarks = face_like_points().numpy()[None]
    first, again, other = (animator(seed).animate(landmarks).frames_F3SS for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
