"""Sampler and U-Net: known answers, and what the design promises of them."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from atldiff.errors import InputError
from atldiff.image.animator import PIECE_FRAMES, FaceAnimator, landmark_pieces
from atldiff.image.layers import SumConv
from atldiff.image.precision import network_type
from atldiff.image.quantised import Levels, QuantisedConv
from atldiff.image.sampler import BridgeSampler, bridge_state, bridge_times
from atldiff.image.temporal import TEMPORAL_MIXES, PassingFrames
from atldiff.image.unet import IdentityDiffusionUNet, UNetConfig, blurred
from test_warp import face_like_points

torch.set_num_threads(1)


def awake_unet(residual_blur: float = 0.0, inside: float = 0.0) -> IdentityDiffusionUNet:
    """A small random network whose zero-initialised layers are not zero, so that every input matters."""
    torch.manual_seed(0)
    sizes = UNetConfig(channels=(8, 16), time_features=16, attention_heads=2)
    unet = IdentityDiffusionUNet(dataclasses.replace(sizes, residual_blur=residual_blur, inside=inside))
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
    sampler = BridgeSampler(lambda state, time, frames: clean, steps)
    assert torch.allclose(sampler.take(start, last=True), clean, atol=1e-6)


def test_sampler_states_lie_on_the_bridge() -> None:
    clean, start = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    seen = []

    def denoise(state: torch.Tensor, time: torch.Tensor, frames: PassingFrames) -> torch.Tensor:
        seen.append(torch.allclose(state, bridge_state(clean, start, time), atol=1e-6))
        return clean

    BridgeSampler(denoise, 5).take(start, last=True)
    assert seen == [True] * 5


def unet_inputs(frames: int, height: int = 32, width: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "noisy_N3HW": torch.rand(frames, 3, height, width, generator=generator),
        "time_N": torch.ones(1),
        "warped_N3HW": torch.rand(frames, 3, height, width, generator=generator),
        "maps_NMhw": torch.rand(frames, 8, height // 2, width // 2, generator=generator),
        "region_N2HW": torch.tensor([1.0, 0.0])[:, None, None].expand(frames, 2, height, width).clone(),
    }


def test_untrained_network_gives_the_warped_picture() -> None:
    unet = IdentityDiffusionUNet(UNetConfig(channels=(8, 16), time_features=16, attention_heads=2))
    inputs = unet_inputs(2)
    tokens = unet.encode_identity(torch.rand(1, 3, 128, 128))
    assert torch.equal(unet(**inputs, identity_tokens_BLC=tokens), inputs["warped_N3HW"])


@torch.no_grad()
def test_network_runs_on_any_size_and_changes_nothing_outside_the_region() -> None:
    unet = awake_unet()
    tokens = unet.encode_identity(torch.rand(1, 3, 128, 128))
    inputs = unet_inputs(3, 40, 24)
    inputs["region_N2HW"][..., :20, :] = 0
    made = unet(**inputs, identity_tokens_BLC=tokens)
    assert torch.equal(made[..., :20, :], inputs["warped_N3HW"][..., :20, :])
    assert (made - inputs["warped_N3HW"])[..., 20:, :].abs().max() > 1e-4


def test_a_blur_keeps_what_is_even_and_evens_what_is_not() -> None:
    even, step = torch.full((1, 3, 32, 32), 0.3), torch.zeros(1, 3, 32, 32)
    step[..., 16:] = 1.0
    assert torch.allclose(blurred(even, 2.0)[..., 8:-8, 8:-8], even[..., 8:-8, 8:-8], atol=1e-6)
    assert torch.equal(blurred(step, 0.0), step)
    slopes = [blurred(step, sigma)[0, 0, 16].diff().abs()[8:-8].max() for sigma in (1.0, 2.0, 4.0)]
    for sigma, slope in zip((1.0, 2.0, 4.0), slopes, strict=True):
        assert abs(float(slope) - 1 / (sigma * math.sqrt(2 * math.pi))) < 0.06


@torch.no_grad()
def test_what_the_network_adds_is_as_soft_as_it_says() -> None:
    made = {}
    for sigma in (0.0, 2.0):
        unet = awake_unet(residual_blur=sigma)
        inputs = unet_inputs(2)
        tokens = unet.encode_identity(torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
        made[sigma] = unet(**inputs, identity_tokens_BLC=tokens) - inputs["warped_N3HW"]
    assert torch.allclose(blurred(made[0.0], 2.0), made[2.0], atol=1e-5)
    assert made[2.0].diff(dim=-1).abs().mean() < 0.5 * made[0.0].diff(dim=-1).abs().mean()


@torch.no_grad()
def test_between_the_lips_it_paints_as_much_as_it_may_and_unblurred() -> None:
    added = {}
    for inside in (0.0, 0.5, 1.0):
        unet = awake_unet(residual_blur=2.0, inside=inside)
        inputs = unet_inputs(2)
        inputs["region_N2HW"] = 1 - inputs["region_N2HW"]
        tokens = unet.encode_identity(torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
        added[inside] = unet(**inputs, identity_tokens_BLC=tokens) - inputs["warped_N3HW"]
    assert float(added[0.0].abs().max()) == 0
    assert torch.allclose(added[0.5], added[1.0] / 2, atol=1e-6)
    assert added[1.0].diff(dim=-1).abs().mean() > 2 * blurred(added[1.0], 2.0).diff(dim=-1).abs().mean()


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


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[], [5], [5, 6], [8, 9, 15], [11]])
def test_pieces_that_pass_are_those_of_the_whole_clip(cuts: list[int]) -> None:
    unet, inputs = awake_unet(), unet_inputs(16)
    tokens = unet.encode_identity(torch.rand(1, 3, 128, 128))
    whole = unet(**inputs, identity_tokens_BLC=tokens)
    passing, made = PassingFrames(), []
    for first, stop in itertools.pairwise([0, *cuts, 16]):
        passing.begin_piece(last=stop == 16)
        piece = {name: value if name == "time_N" else value[first:stop] for name, value in inputs.items()}
        made.append(unet(**piece, identity_tokens_BLC=tokens, passing=passing))
        assert sum(map(len, made)) == (16 if stop == 16 else stop - TEMPORAL_MIXES)
    assert (torch.cat(made) - whole).abs().max() < 1e-5


def test_landmarks_come_in_pieces_of_which_the_last_is_known() -> None:
    landmarks = swaying(23)
    for blocks in ([landmarks], [landmarks[:3], landmarks[3:4], landmarks[4:4], landmarks[4:]]):
        pieces = list(landmark_pieces(blocks, 8))
        assert [(len(piece), last) for piece, last in pieces] == [(4, False), (8, False), (8, False), (3, True)]
        assert np.array_equal(np.concatenate([piece for piece, _ in pieces]), landmarks)
    assert list(landmark_pieces([landmarks[:0]], 8)) == []


def test_pieces_that_follow_each_other_are_nearly_the_whole() -> None:
    landmarks, face = swaying(24), animator()
    whole = face.animate(landmarks).residual_F3hw
    pieces = torch.cat([face.go_on(piece).residual_F3hw for piece in np.split(landmarks, 12)])
    alone = torch.cat([face.animate(piece).residual_F3hw for piece in np.split(landmarks, 12)])
    assert (pieces - whole).square().mean() < 0.7 * (alone - whole).square().mean()
    face.begin_live()
    assert torch.equal(face.go_on(landmarks[:2]).residual_F3hw, pieces[:2])
    two_steps = animator(steps=2)
    assert not torch.equal(two_steps.go_on(landmarks[:4]).residual_F3hw, two_steps.go_on(landmarks[:4]).residual_F3hw)


@torch.no_grad()
def test_a_frame_depends_on_as_many_neighbours_as_there_are_temporal_mixes() -> None:
    unet, inputs = awake_unet(), unet_inputs(13)
    tokens = unet.encode_identity(torch.rand(1, 3, 128, 128))
    before = unet(**inputs, identity_tokens_BLC=tokens)
    inputs["maps_NMhw"][6] = 1 - inputs["maps_NMhw"][6]
    changed = (unet(**inputs, identity_tokens_BLC=tokens) - before).abs().amax(dim=(1, 2, 3)) > 0
    assert torch.nonzero(changed).flatten().tolist() == list(range(6 - TEMPORAL_MIXES, 7 + TEMPORAL_MIXES))


def test_training_makes_no_difference_nor_does_a_time_for_each_frame() -> None:
    unet, inputs = awake_unet(), unet_inputs(7)
    tokens = unet.encode_identity(torch.rand(1, 3, 128, 128))
    learning = unet(**inputs, identity_tokens_BLC=tokens)
    with torch.no_grad():
        running = unet(**inputs, identity_tokens_BLC=tokens)
    inputs["time_N"] = inputs["time_N"].expand(7)
    each = unet(**inputs, identity_tokens_BLC=tokens)
    assert (learning - running).abs().max() < 1e-5
    assert (learning - each).abs().max() < 1e-5


def animator(seed: int = 0, steps: int = 1, precision: str = "float32") -> FaceAnimator:
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    return FaceAnimator(awake_unet(), picture, face_like_points().numpy(), steps, seed, precision)


def swaying(count: int) -> np.ndarray:
    return (face_like_points().numpy() + np.sin(np.arange(count) / 3)[:, None, None]).astype(np.float32)


@pytest.mark.parametrize("steps", [1, 4])
def test_bfloat16_is_within_a_level_on_average(steps: int) -> None:
    exact, rounded = (animator(steps=steps, precision=name).animate(swaying(6)) for name in ("float32", "bfloat16"))
    assert exact.residual_F3hw.abs().mean() * 255 > 1
    difference = (exact.residual_F3hw - rounded.residual_F3hw).abs() * 255
    assert 0 < difference.mean() < 1


has_vnni = network_type("auto", torch.device("cpu")) == torch.int8


@pytest.mark.skipif(not has_vnni, reason="needs a CPU with AVX-512 VNNI")
@pytest.mark.parametrize("steps", [1, 4])
def test_eight_bits_are_near_the_exact_network(steps: int) -> None:
    """Of random weights, whose output is far rougher than what a trained network adds."""
    exact, rounded = (animator(steps=steps, precision=name).animate(swaying(6)) for name in ("float32", "int8"))
    difference = (exact.residual_F3hw - rounded.residual_F3hw).square().mean() * 255**2
    assert 0 < difference < 9
    assert exact.residual_F3hw.square().mean() * 255**2 > 50 * difference


@pytest.mark.skipif(not has_vnni, reason="needs a CPU with AVX-512 VNNI")
def test_eight_bits_do_not_depend_on_the_frames_beside() -> None:
    face, landmarks = animator(precision="int8"), swaying(2 * PIECE_FRAMES + 3)
    passing = torch.cat([each.residual_F3hw for each in face.stream([landmarks])])
    assert (face.animate(landmarks).residual_F3hw - passing).abs().max() < 1e-5


@pytest.mark.skipif(not has_vnni, reason="needs a CPU with AVX-512 VNNI")
def test_a_quantised_convolution_is_near_the_exact_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 24, 12, 10).contiguous(memory_format=torch.channels_last)
    for conv in (nn.Conv2d(24, 32, 3, padding=1), nn.Conv2d(24, 32, 2, stride=2), nn.Conv2d(24, 16, 1)):
        with torch.no_grad():
            exact = conv(x)
            whole, narrow = (Levels.between(reach * float(x.min()), reach * float(x.max())) for reach in (1.0, 0.3))
            near, cut = (QuantisedConv(conv, levels)(levels.of(x)) for levels in (whole, narrow))
        assert (near - exact).square().mean() < 1e-3 * exact.square().mean()
        assert (cut - exact).square().mean() > 1e-2 * exact.square().mean()


@pytest.mark.skipif(not has_vnni, reason="needs a CPU with AVX-512 VNNI")
@pytest.mark.parametrize("rectified", [False, True])
@torch.no_grad()
def test_a_quantised_sum_is_near_the_exact_one(rectified: bool) -> None:
    torch.manual_seed(0)
    layer, bias = SumConv(24, 16, 3, padding=1, rectified=rectified), torch.randn(1, 16)
    x, plus = (torch.randn(2, c, 12, 10).contiguous(memory_format=torch.channels_last) for c in (24, 16))
    exact = layer(x, plus, bias)
    taken, made = (Levels.between(float(each.min()), float(each.max())) for each in (x, torch.cat([exact, plus])))
    levels = made.of(plus)
    near = made.numbers(QuantisedConv(layer, taken, made)(taken.of(x), levels, bias))
    assert (near - exact).square().mean() < 1e-3 * exact.square().mean()
    assert torch.equal(levels, made.of(plus))
    assert (near.min() < -made.scale) != rectified


def test_levels_span_the_values_and_some_room() -> None:
    levels, x = Levels.between(-1.0, 3.0), torch.linspace(-1, 3, 1000)
    assert (levels.numbers(levels.of(x)) - x).abs().max() <= 0.51 * levels.scale
    assert levels.of(torch.tensor([-9.0, 0.0, 9.0])).tolist() == [0, levels.zero, 255]
    assert Levels.between(0.0, 2.0).zero == 0


def test_the_precision_is_chosen_for_the_device() -> None:
    cpu = torch.device("cpu")
    assert network_type("auto", cpu) in (torch.float32, torch.bfloat16, torch.int8)
    with pytest.raises(InputError, match=r"precision is 'int8' on meta; expected a CPU with AVX-512 VNNI"):
        network_type("int8", torch.device("meta"))
    assert network_type("float32", cpu) == torch.float32
    assert network_type("bfloat16", cpu) == torch.bfloat16
    with pytest.raises(InputError, match="half"):
        network_type("half", cpu)


def test_frames_do_not_depend_on_how_the_landmarks_arrive() -> None:
    landmarks = swaying(43)
    whole = torch.cat([part.residual_F3hw for part in animator().stream([landmarks])])
    pieces = [landmarks[:5], landmarks[5:6], landmarks[6:30], landmarks[30:]]
    cut = torch.cat([part.residual_F3hw for part in animator().stream(pieces)])
    assert whole.shape == (43, 3, 104, 112)
    assert torch.equal(whole, cut)


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("count", [1, 4, 3 * PIECE_FRAMES + 5])
def test_a_stream_is_the_whole_clip_made_at_once(steps: int, count: int) -> None:
    face, landmarks = animator(steps=steps), swaying(count)
    parts, at_once = list(face.stream([landmarks])), face.animate(landmarks)
    for name in ("flow_F2GG", "lids_F", "residual_F3hw", "corner_F2"):
        passing = torch.cat([getattr(part, name) for part in parts])
        assert passing.shape == getattr(at_once, name).shape
        assert (passing - getattr(at_once, name)).abs().max() < 1e-4


def test_a_face_at_rest_is_the_portrait_itself() -> None:
    """What the network would add where nothing has moved is taken off, and moved along where something has."""
    rest = face_like_points().numpy().astype(np.float32)
    face = animator()
    assert face.animate(np.repeat(rest[None], 5, axis=0)).residual_F3hw.abs().max() < 1e-5
    assert face.animate(swaying(5)).residual_F3hw.abs().max() > 1e-3
    assert face._at_rest.abs().max() > 1e-2


def test_seed_decides_the_noise() -> None:
    landmarks = swaying(3)
    first, again, other = (animator(seed).animate(landmarks).residual_F3hw for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
