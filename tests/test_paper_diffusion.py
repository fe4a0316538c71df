"""The paper preset's image part: guidance by noise alone, DDIM around the identity, training, model folders."""

import csv
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.cli import main
from atldiff.errors import InputError, ModelError
from atldiff.face.crop import CROP_SIZE
from atldiff.image.animator import to_picture
from atldiff.image.guidance import noise_mask_as_published
from atldiff.image.mouth.painter import MouthPainter
from atldiff.image.paper_animator import PaperFaceAnimator
from atldiff.image.paper_unet import PaperDiffusionUNet, PaperUNetConfig
from atldiff.image.resnet import ResNet50
from atldiff.image.sampler import ddim_sample, ddim_signal, ddim_state, ddim_timesteps
from atldiff.image.warp import warp
from atldiff.models.registry import load_image_network
from atldiff.options import EMOTIONS
from atldiff.pipeline import ATLDiffPipeline
from atldiff.storage.parts import save_part
from atldiff.training.assemble import assemble
from atldiff.training.engine.checkpoint import Checkpoints
from atldiff.training.engine.launch import Launch
from atldiff.training.engine.task import Batch
from atldiff.training.image.diffusion import train_diffusion
from atldiff.training.image.paper_diffusion import (
    PaperDiffusionTask,
    PaperDiffusionTraining,
    diffusion_loss,
    paper_preset,
    sample,
)
from face_shapes import open_face
from prepared_files import judged_by_little, write_prepared

torch.set_num_threads(1)

FRAMES = 8
TINY = PaperUNetConfig(
    channels=(8, 8, 8, 16), blocks=1, attention_heads=2, frames=FRAMES, mask_kernel=11, identity_encoder="small"
)
TRAINING = PaperDiffusionTraining(
    steps=4, clips=2, crop=16, warmup=1, report_every=4, learning_rate=3e-3, precision="32-true"
)
FACE = open_face().astype(np.float32)
PICTURE = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)


def awake_unet(config: PaperUNetConfig = TINY) -> PaperDiffusionUNet:
    """A small random network whose zero-initialised layers are not zero, so that every input matters."""
    torch.manual_seed(0)
    unet = PaperDiffusionUNet(config)
    with torch.no_grad():
        for parameter in unet.parameters():
            if parameter.abs().max() == 0 and parameter.ndim > 1:
                parameter.normal_(0, 0.1)
    return unet.eval()


def moving_face(frames: int) -> np.ndarray:
    shift = 3 * np.sin(np.arange(frames) / 3)
    return (FACE + np.stack([shift, shift], axis=1)[:, None]).astype(np.float32)


def inputs(batch: int = 1, frames: int = 4, side: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "noisy_BCFHW": torch.rand(batch, 3, frames, side, side, generator=generator),
        "timestep_B": torch.full((batch,), 900),
        "identity_tokens_BLD": torch.randn(batch, 64, 32, generator=generator),
        "emotion_B": torch.zeros(batch, dtype=torch.long),
    }


@pytest.mark.parametrize(("kernel", "sigma"), [(25, 4.1), (11, 2.0)])
def test_mask_is_the_blurred_pixel_between_a_tenth_and_one_more(kernel: int, sigma: float) -> None:
    landmarks = torch.tensor([[[[40.3, 70.9]], [[-5.0, 20.0]]]])
    mask = noise_mask_as_published(landmarks, 128, kernel)
    assert mask.shape == (1, 2, 128, 128)
    assert mask.max() == mask[0, 0, 70, 40] == pytest.approx(1.1)
    assert mask[0, 0, 70, 44] == pytest.approx(0.1 + np.exp(-0.5 * (4 / sigma) ** 2), rel=1e-4)
    assert mask[0, 0, 70, 40 + kernel // 2 + 1] == pytest.approx(0.1)
    assert torch.all(mask[0, 1] == torch.tensor(0.1)), "a landmark outside the crop leaves no mark"


def test_mask_is_brought_to_the_extremes_of_its_own_clip() -> None:
    sparse, dense = torch.tensor([[40.0, 40.0], [90.0, 90.0]]), torch.tensor([[40.0, 40.0], [41.0, 40.0]])
    alone, beside = noise_mask_as_published(torch.stack([sparse, sparse])[:, None], 128, 11)[0, 0], None
    beside = noise_mask_as_published(torch.stack([sparse, dense])[None], 128, 11)[0]
    assert alone[40, 40] == pytest.approx(1.1)
    assert beside[1].max() == pytest.approx(1.1)
    assert 0.5 < beside[0].max() < 0.8


def test_process_begins_at_the_frames_and_ends_at_the_guided_noise() -> None:
    clean, identity, noise = torch.rand(3, 1, 3, 2, 8, 8)
    signal = ddim_signal()
    assert signal.shape == (1000,) and signal[-1] == 0 and torch.all(signal[1:] < signal[:-1])
    assert torch.equal(ddim_state(clean, identity, noise, signal[-1]), identity + noise)
    assert torch.allclose(ddim_state(clean, identity, noise, signal[0]), clean, atol=0.02)
    assert ddim_timesteps(8) == [999, 874, 749, 624, 499, 374, 249, 124]


@pytest.mark.parametrize("steps", [1, 3, 8, 64])
def test_sampler_with_a_perfect_network_stays_on_the_process(steps: int) -> None:
    clean, identity, noise = torch.rand(3, 1, 3, 2, 8, 8)
    seen = []

    def denoise(state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        expected = ddim_state(clean, identity, noise, ddim_signal()[time])
        seen.append(torch.allclose(state, expected, atol=1e-5))
        return clean

    assert torch.allclose(ddim_sample(denoise, identity, identity + noise, steps), clean, atol=1e-5)
    assert seen == [True] * steps


def test_sampler_is_that_of_diffusers_on_the_difference_to_the_identity() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="linear",
        prediction_type="sample",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    scheduler.set_timesteps(8)
    identity, noise, direction = torch.rand(3, 1, 3, 2, 8, 8)

    def denoise(state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return torch.tanh(state + direction * time / 1000)

    difference = noise
    for time in scheduler.timesteps:
        clean = denoise(identity + difference, time[None])
        difference = scheduler.step(clean - identity, time, difference).prev_sample
    ours = ddim_sample(denoise, identity, identity + noise, 8)
    assert torch.allclose(ours, identity + difference, atol=1e-5)


@torch.no_grad()
def test_published_sizes() -> None:
    _, config = paper_preset()
    assert (config.channels, config.frames, config.identity_encoder) == ((64, 128, 256), 32, "resnet50")
    unet = PaperDiffusionUNet(config)
    tokens = unet.encode_identity(torch.rand(2, 3, 128, 128))
    assert tokens.shape == (2, 64, 32)
    learned = sum(parameter.numel() for parameter in unet.parameters() if parameter.requires_grad)
    assert 15e6 < learned < 25e6
    shapes = inputs(2, frames=2, side=8) | {"identity_tokens_BLD": tokens}
    assert unet(**shapes).shape == (2, 3, 2, 8, 8)


@torch.no_grad()
@pytest.mark.parametrize("name", list(inputs()))
def test_every_input_matters(name: str) -> None:
    unet, given = awake_unet(), inputs()
    changed = given | {name: given[name] - 100 if name == "timestep_B" else given[name] + 1}
    assert (unet(**given) - unet(**changed)).abs().max() > 1e-4


@torch.no_grad()
def test_frames_see_each_other_and_clips_do_not() -> None:
    unet, given = awake_unet(), inputs(batch=2)
    both = unet(**given)
    alone = unet(**{name: value[:1] for name, value in given.items()})
    assert torch.allclose(both[:1], alone, atol=1e-5)
    given["noisy_BCFHW"][0, :, -1] += 1
    assert (unet(**given)[0, :, 0] - both[0, :, 0]).abs().max() > 1e-5


def test_wrong_sizes_are_named() -> None:
    for wrong, words in (
        ({"channels": ()}, "sizes of 1 to 4096"),
        ({"attention_heads": 7}, "multiple of twice the heads"),
        ({"mask_kernel": 12}, "mask_kernel is 12; expected an odd number from 3 to 63"),
        ({"identity_encoder": "vgg"}, "identity_encoder is 'vgg'; expected one of resnet50, small"),
        ({"class_name": "Other"}, "class_name is 'Other'"),
    ):
        with pytest.raises(ModelError, match=words):
            PaperUNetConfig(**wrong)
    with pytest.raises(InputError, match="crop is 200; expected 16 to 128"):
        PaperDiffusionTraining(crop=200)
    with pytest.raises(InputError, match="crop is 17; expected a multiple of 8"):
        PaperDiffusionTask(Path("nowhere"), dataclasses.replace(TRAINING, crop=17), TINY)


@pytest.fixture(scope="module")
def resnet() -> ResNet50:
    torch.manual_seed(0)
    network = ResNet50()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return network


def test_resnet_is_that_of_transformers(resnet: ResNet50) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.ResNetModel(transformers.ResNetConfig()).eval()
    ours = resnet.state_dict()
    theirs.load_state_dict({name: ours[in_torchvision_names(name)] for name in theirs.state_dict()})
    picture = torch.rand(1, 3, 64, 64)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    expected = theirs((picture - mean) / deviation).pooler_output.flatten(1)
    assert expected.std() > 0
    assert torch.allclose(resnet(picture), expected, rtol=1e-3, atol=1e-3 * float(expected.detach().std()))


def in_torchvision_names(name: str) -> str:
    place = re.sub(r"^encoder\.stages\.(\d)\.layers\.", lambda found: f"layer{int(found[1]) + 1}.", name)
    place = place.replace("embedder.embedder.convolution", "conv1").replace("embedder.embedder.normalization", "bn1")
    place = place.replace("shortcut.convolution", "downsample.0").replace("shortcut.normalization", "downsample.1")
    for kind, ours in (("convolution", "conv"), ("normalization", "bn")):
        place = re.sub(rf"layer\.(\d)\.{kind}", lambda found, ours=ours: f"{ours}{int(found[1]) + 1}", place)
    return place


def test_imagenet_weights_are_read_by_path_and_stay_frozen(resnet: ResNet50, tmp_path: Path) -> None:
    torch.save(resnet.state_dict() | {"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "resnet50.pth")
    training = dataclasses.replace(TRAINING, identity_weights=str(tmp_path / "resnet50.pth"))
    task = PaperDiffusionTask(Path("nowhere"), training, dataclasses.replace(TINY, identity_encoder="resnet50"))
    picture = torch.rand(1, 3, 64, 64)
    tokens = task.model.encode_identity(picture)
    assert torch.allclose(tokens.flatten(1), resnet(picture), rtol=1e-4, atol=1e-5)
    task.model.train()
    learned = {id(parameter) for group in task.optimiser.param_groups for parameter in group["params"]}
    for module in task.model.identity_encoder.modules():
        assert not module.training
    for parameter in task.model.identity_encoder.parameters():
        assert id(parameter) not in learned
    for content, words in ((None, "No such file"), ({"a": torch.zeros(1)}, "loading state_dict"), ([1], "list")):
        path = tmp_path / "wrong.pth"
        if content is not None:
            torch.save(content, path)
        with pytest.raises(InputError, match=rf"cannot load ResNet-50 from .*{words}.*identity_encoder=small"):
            resnet.load_imagenet_weights(str(path))


def animator(
    steps: int = 2,
    seed: int = 0,
    landmarks: np.ndarray = FACE,
    picture: np.ndarray = PICTURE,
    emotion: str = "neutral",
) -> PaperFaceAnimator:
    return PaperFaceAnimator(awake_unet(), picture, landmarks, steps, seed, emotion)


def residuals(moved: PaperFaceAnimator, landmarks: np.ndarray) -> torch.Tensor:
    return torch.cat([part.residual_F3hw for part in moved.stream([landmarks])])


def test_frames_do_not_depend_on_how_the_landmarks_arrive() -> None:
    landmarks = moving_face(3 * FRAMES + 3)
    whole = residuals(animator(), landmarks)
    pieces = [landmarks[:5], landmarks[5:6], landmarks[6:19], landmarks[19:]]
    cut = torch.cat([part.residual_F3hw for part in animator().stream(pieces)])
    assert whole.shape == (len(landmarks), 3, 128, 128)
    assert torch.equal(whole, cut)


@pytest.mark.parametrize("frames", [1, 8, 15])
def test_every_frame_is_made_once(frames: int) -> None:
    parts = list(animator(steps=1).stream([moving_face(frames)]))
    assert sum(len(part) for part in parts) == frames
    for part in parts:
        assert part.shapes is None
        assert all(len(each) == len(part) for each in (part.lids_F, part.residual_F3hw, part.corner_F2))


def test_clips_fade_into_each_other() -> None:
    """A network that paints each clip in the number of its call shows where frames come from."""
    moved = animator(steps=1)
    calls = iter([0.0, 1.0, 1.0])
    moved._unet.forward = lambda noisy, *_: torch.full_like(noisy, next(calls))
    shades = residuals(moved, moving_face(14))[:, 0, 0, 0] + PICTURE[0, 0, 0] / 255
    assert torch.allclose(shades, torch.tensor([0.0] * 6 + [1 / 3, 2 / 3] + [1.0] * 6), atol=1e-6)


def test_the_network_sees_landmarks_through_the_noise_alone() -> None:
    landmarks = moving_face(3)
    picture = to_picture(PICTURE, CROP_SIZE)

    def frames(moved: PaperFaceAnimator, points: np.ndarray = landmarks) -> torch.Tensor:
        parts = list(moved.stream([points]))
        return torch.cat([part.residual_F3hw + warp(picture, part.flow_F2GG, CROP_SIZE) for part in parts])

    made = frames(animator())
    assert torch.allclose(made, frames(animator(landmarks=FACE + 5)), atol=1e-6)
    assert not torch.allclose(made, frames(animator(), landmarks + 5), atol=1e-6)
    assert not torch.allclose(made, frames(animator(seed=1)), atol=1e-6)
    assert not torch.allclose(made, frames(animator(emotion="happy")), atol=1e-6)


def test_an_emotion_that_was_never_learned_counts_as_neutral() -> None:
    unet = awake_unet()
    with torch.no_grad():
        unet.emotion.weight[EMOTIONS.index("angry")] = 0
    assert unet.emotion_number("angry") == unet.emotion_number("neutral") == EMOTIONS.index("neutral")
    assert unet.emotion_number("happy") == EMOTIONS.index("happy")
    with pytest.raises(InputError, match="unknown emotion 'auto'; expected one of angry"):
        unet.emotion_number("auto")


def toy_batch(random: torch.Generator, clips: int) -> tuple[Batch, torch.Tensor]:
    """A grey picture that is bright where the landmarks lie, and nothing but the noise tells where that is."""
    centres = torch.randint(6, 26, (clips, 1, 1, 2), generator=random)
    offsets = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))
    masks = noise_mask_as_published((centres + offsets).expand(-1, 2, -1, -1).float(), 32, 11)[:, None]
    still = torch.full((clips, 3, 1, 32, 32), 0.4)
    batch = {
        "clean": still + 0.5 * (masks - 0.1),
        "still": still,
        "guided_noise": masks * torch.randn(clips, 3, 2, 32, 32, generator=random),
        "identity": torch.full((clips, 3, 128, 128), 0.4),
        "timestep": torch.randint(1000, (clips,), generator=random),
        "emotion": torch.full((clips,), 7),
    }
    return batch, centres.view(clips, 2)


def test_a_trained_network_draws_where_the_noise_says() -> None:
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    unet = PaperDiffusionUNet(dataclasses.replace(TINY, channels=(8, 16)))
    optimiser = torch.optim.Adam(unet.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        optimiser.zero_grad()
        loss = diffusion_loss(unet, toy_batch(random, 4)[0])
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.2 * np.mean(losses[:10])
    batch, centres = toy_batch(random, 16)
    brightness = sample(unet, batch).mean(dim=(1, 2))
    brightest = brightness.flatten(1).argmax(dim=1)
    found = torch.stack([brightest % 32, brightest // 32], dim=1)
    assert (found - centres).abs().amax(dim=1).float().median() <= 3
    here, elsewhere = (brightness[torch.arange(16), c[:, 1], c[:, 0]] for c in (centres, centres.roll(1, 0)))
    assert (here - elsewhere).median() > 0.15


@pytest.fixture(autouse=True, scope="module")
def judging() -> Iterator[pytest.MonkeyPatch]:
    with judged_by_little() as patch:
        yield patch


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("clips") / "prepared", ["train"] * 3 + ["val"], frames=12)


def test_training_goes_on_exactly_and_lowers_the_loss(prepared: Path, tmp_path: Path) -> None:
    training = dataclasses.replace(TRAINING, steps=24, crop=64, report_every=8)
    config = dataclasses.replace(TINY, frames=4)
    train_diffusion(prepared, tmp_path / "whole", training, config, Launch("cpu", quiet=True))
    with (tmp_path / "whole" / "log.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[-1]["loss"]) < 0.7 * float(rows[0]["loss"])
    assert {"val_psnr", "val_psnr_static"} <= set(rows[0])
    few = dataclasses.replace(training, steps=3, report_every=3)
    train_diffusion(prepared, tmp_path / "once", few, config, Launch("cpu", quiet=True))
    for _ in range(3):
        train_diffusion(prepared, tmp_path / "pieces", few, config, Launch("cpu", max_seconds=1e-9, quiet=True))
    once, pieces = (Checkpoints(tmp_path / name, keep=1).latest() for name in ("once", "pieces"))
    assert once is not None and pieces is not None and once["step"] == pieces["step"] == 3
    for name in ("model", "average", "optimiser"):
        torch.testing.assert_close(once[name], pieces[name], rtol=0, atol=0)


def test_a_share_of_the_batch_is_the_same_part_of_it(prepared: Path) -> None:
    task = PaperDiffusionTask(prepared, TRAINING, TINY)
    task.open(torch.device("cpu"))
    whole, second = (task.assemble(task.draws(share, shares)[1]) for share, shares in ((0, 1), (1, 2)))
    assert whole["clean"].shape == whole["guided_noise"].shape == (2, 3, FRAMES, 16, 16)
    assert whole["still"].shape == (2, 3, 1, 16, 16)
    for name, value in second.items():
        assert torch.equal(value, whole[name][1:])


def test_clips_that_are_too_short_are_told(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no clip has 32 frames; the longest has 12"):
        config = dataclasses.replace(TINY, frames=32)
        train_diffusion(prepared, tmp_path / "run", TRAINING, config, Launch("cpu", quiet=True))


@pytest.fixture(scope="module")
def model(prepared: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose image part was trained from the command line."""
    folder = tmp_path_factory.mktemp("paper")
    sizes = ["model.channels=8,8,8,16", "model.blocks=1", "model.attention_heads=2", f"model.frames={FRAMES}"]
    few = ["steps=2", "clips=1", "crop=16", "report_every=2", "model.identity_encoder=small", *sizes]
    command = ["train", "diffusion", str(prepared), "--preset", "paper", "--accelerator", "cpu", "-q"]
    assert main([*command, "-o", str(folder / "run"), "--set", *few]) == 0
    assert main(["assemble", str(folder / "run"), "-o", str(folder / "model"), "--base", str(tiny_model)]) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def pipeline(model: Path) -> Iterator[ATLDiffPipeline]:
    pipeline = ATLDiffPipeline.from_pretrained(model, device="cpu")
    yield pipeline
    pipeline.close()


def test_a_trained_model_speaks_in_eight_steps(pipeline: ATLDiffPipeline, portrait: Path, word: Path) -> None:
    assert pipeline.config.steps == 8
    assert isinstance(pipeline.unet, PaperDiffusionUNet)
    video = pipeline(portrait, word, fps=10, steps=1)
    assert video.frames.shape == (12, 512, 512, 3)
    assert np.ptp(video.frames.astype(int), axis=0).max() > 0


def test_talk_gives_the_frames_of_given_landmarks(pipeline: ATLDiffPipeline, word: Path) -> None:
    spoken = pipeline.talk(PICTURE, FACE, word, fps=10, steps=1, emotion="happy")
    landmarks = pipeline.speech_landmarks(FACE, word, fps=10, emotion="happy")
    assert np.array_equal(spoken, pipeline.animate(PICTURE, FACE, landmarks, steps=1, emotion="happy"))
    warped = pipeline.animate(PICTURE, FACE, landmarks, steps=0)
    assert warped.shape == spoken.shape and not np.array_equal(warped, spoken)


def test_live_use_is_refused_before_the_portrait_is_read(pipeline: ATLDiffPipeline) -> None:
    with pytest.raises(InputError, match="makes frames in long clips; expected compact for live use"):
        pipeline.live("nobody.jpg")


def test_no_mouth_is_made_for_a_network_that_paints_none(
    pipeline: ATLDiffPipeline, tiny_pipeline: ATLDiffPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: object, **__: object) -> None:
        raise AssertionError("a mouth painter was made")

    warped = tiny_pipeline.animate(PICTURE, FACE, moving_face(2), steps=0)
    painted = tiny_pipeline.animate(PICTURE, FACE, moving_face(2), steps=1)
    monkeypatch.setattr(MouthPainter, "__init__", made)
    assert np.array_equal(tiny_pipeline.animate(PICTURE, FACE, moving_face(2), steps=0), warped)
    assert not np.array_equal(warped, painted)
    pipeline.animate(PICTURE, FACE, moving_face(2), steps=1)
    with pytest.raises(AssertionError):
        tiny_pipeline.animate(PICTURE, FACE, moving_face(2), steps=1)


def test_saving_and_loading_changes_nothing(pipeline: ATLDiffPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "saved")
    values = json.loads((tmp_path / "saved" / "unet" / "config.json").read_text())
    assert (values["class_name"], values["identity_encoder"]) == ("PaperDiffusionUNet", "small")
    again = ATLDiffPipeline.from_pretrained(tmp_path / "saved", device="cpu")
    assert again.config == pipeline.config
    before, after = (each.animate(PICTURE, FACE, moving_face(3), steps=2) for each in (pipeline, again))
    assert np.array_equal(before, after)


def test_a_frozen_encoder_travels_with_the_part(tmp_path: Path) -> None:
    unet = awake_unet(dataclasses.replace(TINY, identity_encoder="resnet50")).half().float()
    save_part(tmp_path / "unet", unet, unet.config)
    loaded = load_image_network(tmp_path)
    picture = torch.rand(1, 3, 128, 128)
    assert torch.equal(loaded.encode_identity(picture), unet.encode_identity(picture))


def test_the_compact_network_takes_its_own_steps_again(model: Path, tiny_model: Path, tmp_path: Path) -> None:
    back = assemble([tiny_model], tmp_path / "back", model)
    assert ATLDiffPipeline.from_pretrained(back, device="cpu").config.steps == 1


def test_an_unknown_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"class_name": "Other"}')
    with pytest.raises(ModelError, match="'Other'; expected one of IdentityDiffusionUNet, PaperDiffusionUNet"):
        load_image_network(tmp_path)
