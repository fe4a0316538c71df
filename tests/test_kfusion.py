"""The published landmark module: shapes, sequence-first behaviour, emotion, loss."""

import dataclasses
from typing import Any

import pytest
import torch

from atldiff.errors import InputError, ModelError
from atldiff.landmarks.kfusion import KFusionConfig, KFusionGenerator, landmark_loss_as_published

SMALL = KFusionConfig(features=32, feed_forward=16, fusion_channels=8, mouth_channels=8, kan_hidden=12)


def generator(**changes: Any) -> KFusionGenerator:
    torch.manual_seed(0)
    return KFusionGenerator(dataclasses.replace(SMALL, **changes)).eval()


def inputs(batch: int, features: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(1)
    speech = torch.randn(batch, 49, features, generator=source)
    return speech, torch.rand(batch, 68, 2, generator=source), torch.arange(batch)


def test_default_is_the_published_size() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in KFusionGenerator().state_dict().items()}
    assert shapes["trans_ct.transformer_encoder.0.layers.0.self_attn.in_proj_weight"] == (2304, 768)
    assert shapes["trans_gb.transformer_encoder.0.layers.0.linear1.weight"] == (2048, 768)
    assert shapes["trans_gb.transformer_encoder.1.weight"] == (136, 768)
    assert shapes["trans_gbm.transformer_decoder.layers.0.multihead_attn.in_proj_weight"] == (120, 40)
    assert shapes["trans_gbm.conv.weight"] == (49, 1, 1)
    assert shapes["lstm.weight_ih_l0_reverse"] == (272, 768)
    assert shapes["mouth.weight_hh_l0"] == (80, 20)
    assert shapes["R1.0.weight"] == (256, 147, 3, 3)
    assert shapes["R1.2.weight"] == (256, 256, 1, 1)
    assert shapes["R1.4.weight"] == (30, 256, 3, 3)
    assert shapes["R2.0.weight"] == (30, 147, 1, 1)
    assert shapes["R3.0.weight"] == (128, 98, 3, 3)
    assert shapes["R3.4.weight"] == (30, 128, 3, 3)
    assert shapes["KAN.layers.0.spline_weight"] == (512, 68, 8)
    assert shapes["KAN.layers.1.spline_scaler"] == (68, 512)
    assert shapes["KAN.layers.1.grid"] == (512, 12)
    assert len(shapes) == 140


@pytest.mark.parametrize("batch", [1, 3])
def test_output_is_thirty_landmark_sets(batch: int) -> None:
    with torch.no_grad():
        assert generator()(*inputs(batch)).shape == (batch, 30, 68, 2)


def test_heads_are_one_for_the_context_and_two_for_the_global_domain() -> None:
    model = generator()
    for part, heads in ((model.trans_ct, 1), (model.trans_gb, 2), (model.trans_gbm, 2)):
        assert part.transformer_encoder[0].layers[0].self_attn.num_heads == heads  # pyright: ignore
        assert part.transformer_decoder.layers[0].multihead_attn.num_heads == heads  # pyright: ignore


@torch.no_grad()
@pytest.mark.parametrize("sequence_first", [True, False])
def test_sequence_first_at_batch_one_every_token_stands_alone(sequence_first: bool) -> None:
    model = generator(sequence_first=sequence_first)
    speech, identity, _ = inputs(1)
    other = speech.clone()
    other[:, 20] += 1
    for part in (model.trans_ct, model.trans_gb):
        change = (part(speech, identity.flatten(1)) - part(other, identity.flatten(1))).abs().amax(dim=(0, 2))
        alone = torch.cat([change[:20], change[21:]])
        assert change[20] > 1e-3
        assert bool((alone == 0).all()) if sequence_first else bool((alone > 0).all())


@torch.no_grad()
def test_sequence_first_items_of_a_batch_see_each_other_and_batch_first_do_not() -> None:
    speech, identity, emotion = inputs(2)
    for sequence_first in (True, False):
        model = generator(sequence_first=sequence_first, emotions=8)
        together, alone = model(speech, identity, emotion), model(speech[:1], identity[:1], emotion[:1])
        assert torch.allclose(together[:1], alone, atol=1e-6) != sequence_first


@torch.no_grad()
def test_same_weights_batch_first_give_another_output() -> None:
    published, corrected = generator(), generator(sequence_first=False)
    corrected.load_state_dict(published.state_dict())
    assert (published(*inputs(1)) - corrected(*inputs(1))).abs().max() > 1e-4


@torch.no_grad()
def test_published_emotion_has_no_effect_at_batch_one() -> None:
    model = generator()
    speech, identity, _ = inputs(1)
    outputs = [model(speech, identity, torch.tensor([emotion])) for emotion in (0, 7)]
    assert torch.equal(outputs[0], outputs[1])
    speech, identity, _ = inputs(2)
    assert not torch.allclose(
        model(speech, identity, torch.tensor([0, 0])), model(speech, identity, torch.tensor([0, 5]))
    )


@torch.no_grad()
def test_learned_emotion_starts_neutral_and_then_has_an_effect_at_batch_one() -> None:
    model, published = generator(emotions=8), generator()
    speech, identity, _ = inputs(1)
    happy, angry = torch.tensor([4]), torch.tensor([0])
    model.load_state_dict(published.state_dict(), strict=False)
    assert torch.allclose(model(speech, identity, happy), published(speech, identity, happy), atol=1e-6)
    torch.nn.init.normal_(model.emotion.weight)
    assert not torch.allclose(model(speech, identity, happy), model(speech, identity, angry))


def test_mouth_stream_overwrites_the_mouth_points_in_published_order() -> None:
    """The mouth stack gives points 49…67, 48; a KAN that passes its input on shows where they land."""
    model = generator()
    model.KAN = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    model.R2 = torch.nn.Sequential(_Constant(torch.zeros(30, 2, 68)))
    model.R3 = torch.nn.Sequential(_Constant(torch.arange(20.0).expand(30, 2, 20)))
    with torch.no_grad():
        output = model(*inputs(1))
    assert bool((output[:, :, :48] == 0).all())
    assert output[0, 0, 48:, 0].tolist() == [19.0, *map(float, range(19))]


class _Constant(torch.nn.Module):
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value.expand(len(x), *self.value.shape)


def test_every_parameter_learns() -> None:
    for changes in ({}, {"sequence_first": False, "emotions": 8}):
        model = generator(**changes).train()
        loss = landmark_loss_as_published(model(*inputs(2)), torch.rand(2, 30, 68, 2), model.KAN)
        loss.backward()
        still = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
        assert not still


def test_loss_is_one_fifth_of_all_points_and_four_fifths_of_the_mouth() -> None:
    target = torch.zeros(2, 30, 68, 2)
    jaw, lips = target.clone(), target.clone()
    jaw[:, :, :17] = 2.0
    lips[:, :, 48:] = 2.0
    assert landmark_loss_as_published(jaw, target).item() == pytest.approx(0.2 * 4 * 17 / 68)
    assert landmark_loss_as_published(lips, target).item() == pytest.approx(0.2 * 4 * 20 / 68 + 0.8 * 4)
    kan = generator().KAN
    added = landmark_loss_as_published(target, target, kan, kan_weight=0.5).item()
    assert added == pytest.approx(0.5 * kan.regularisation_loss().item())


def test_wrong_shapes_are_named() -> None:
    model = generator()
    speech, identity, emotion = inputs(1)
    with pytest.raises(InputError, match=r"features have the shape \(1, 48, 32\); expected \(1, 49, 32\)"):
        model(speech[:, 1:], identity, emotion)
    with pytest.raises(InputError, match=r"identity landmarks have the shape \(1, 2, 68\)"):
        model(speech, identity.transpose(1, 2), emotion)
    with pytest.raises(InputError, match=r"emotions have the shape \(2,\); expected \(1,\)"):
        model(speech, identity, torch.tensor([1, 2]))


@pytest.mark.parametrize("changes", [{"features": 0}, {"features": 33}, {"dropout": 1.0}, {"emotions": -1}])
def test_impossible_configurations(changes: dict[str, float]) -> None:
    with pytest.raises(ModelError):
        generator(**changes)
