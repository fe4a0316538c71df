"""Batches of the image network: the same values as a plain computation clip by clip, whoever makes them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.data.prepared import PreparedClip, PreparedClips, SpeakerSampler
from atldiff.diffusion.conditioning import IdentityFace
from atldiff.errors import InputError
from atldiff.face.crop import CROP_SIZE
from atldiff.face.topology import LEFT_EYE, MIRROR_68, MOUTH, RIGHT_EYE
from atldiff.guidance import landmark_maps, noise_mask, residual_region
from atldiff.training.face_batches import Batch, FaceDraws, assemble
from prepared_files import write_prepared

torch.set_num_threads(1)


@dataclass(frozen=True)
class Settings:
    seed: int = 3
    steps: int = 100
    clips: int = 4
    frames: int = 3
    crop: int = 64
    first_step_share: float = 0.6


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedClip]:
    folder = write_prepared(tmp_path_factory.mktemp("prepared") / "data", ["train"] * 5)
    return PreparedClips.open(folder).split("train")


def plain_batch(clips: list[PreparedClip], settings: Settings, step: int) -> Batch:
    """The same step, clip by clip, on whole frames that are cut at the end."""
    random = np.random.default_rng((settings.seed, step))
    sampler = SpeakerSampler(clips, settings.frames)
    parts = [plain_clip(sampler.draw(random), settings, random) for _ in range(settings.clips)]
    batch = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    noise = torch.Generator().manual_seed(int(random.integers(2**62)))
    noises = torch.randn(settings.clips, 3, settings.crop, settings.crop, generator=noise)
    times = []
    for _ in range(settings.clips):
        late = random.random() >= settings.first_step_share
        times.append(float(random.choice([0.25, 0.5, 0.75, 0.125 + 0.875 * random.random()])) if late else 1.0)
    batch["noise"] = noises.repeat_interleave(settings.frames, dim=0)
    batch["time"] = torch.tensor(times).repeat_interleave(settings.frames)
    return batch


def plain_clip(clip: PreparedClip, settings: Settings, random: np.random.Generator) -> Batch:
    count, crop = settings.frames, settings.crop
    first, own = int(random.integers(clip.info.frames - count + 1)), int(random.integers(clip.info.frames))
    chosen = [*range(first, first + count), own]
    pictures = torch.from_numpy(clip.frames()[chosen]).permute(0, 3, 1, 2).float() / 255
    points = torch.from_numpy(clip.landmarks()[chosen])
    if random.random() < 0.5:
        pictures, points = pictures.flip(-1), points[:, MIRROR_68]
        points = torch.stack([CROP_SIZE - points[..., 0], points[..., 1]], dim=-1)
    gamma, gain = np.exp(random.normal(0, 0.2)), np.exp(random.normal(0, 0.1, size=(3, 1, 1)))
    pictures = (pictures ** float(gamma) * torch.from_numpy(gain).float()).clamp(0, 1)
    kind = random.choice(3, p=[0.65, 0.15, 0.2])
    if kind == 0:
        centre = points[:-1, MOUTH].mean(dim=(0, 1)).numpy()
    elif kind == 1:
        centre = points[:-1, RIGHT_EYE if random.random() < 0.5 else LEFT_EYE].mean(dim=(0, 1)).numpy()
    else:
        centre = points[0, random.integers(68)].numpy()
    corner = np.clip(centre + random.uniform(-10, 10, size=2) - crop / 2, 0, CROP_SIZE - crop)
    left, top = (corner // 2 * 2).astype(int)
    box = (..., slice(top, top + crop), slice(left, left + crop))
    half_box = (..., slice(top // 2, (top + crop) // 2), slice(left // 2, (left + crop) // 2))
    maps = landmark_maps(points, CROP_SIZE, CROP_SIZE // 2)
    given = IdentityFace(pictures[-1], points[-1].numpy()).conditions(points[:-1])
    return {
        "clean": pictures[:-1][box],
        "warped": given.warped_F3SS[box],
        "maps": torch.cat([maps[:-1], maps[-1:].expand(count, -1, -1, -1)], dim=1)[half_box],
        "mask": noise_mask(points[:-1], CROP_SIZE)[box],
        "region": residual_region(points[:-1], CROP_SIZE)[box],
        "identity": pictures[-1:],
    }


def test_a_batch_is_what_each_clip_gives_by_itself(clips: list[PreparedClip]) -> None:
    draws = FaceDraws(clips, Settings())
    for step in range(6):
        batch, plain = assemble(draws[step]), plain_batch(clips, Settings(), step)
        assert batch.keys() == plain.keys()
        for name, value in plain.items():
            assert batch[name].shape == value.shape and batch[name].dtype == torch.float32
            assert torch.allclose(batch[name], value, atol=2e-4), name


def test_the_network_is_given_in_training_what_it_is_given_in_generation(clips: list[PreparedClip]) -> None:
    for crop in (CROP_SIZE, 64):
        draw = FaceDraws(clips, replace(Settings(), clips=1, crop=crop))[1]
        batch = assemble(draw)
        landmarks = draw["landmarks"][0]
        given = IdentityFace(batch["identity"][0], landmarks[-1].numpy()).conditions(landmarks[:-1])
        left, top = draw["corner"][0].tolist()
        box = (..., slice(top, top + crop), slice(left, left + crop))
        half_box = (..., slice(top // 2, (top + crop) // 2), slice(left // 2, (left + crop) // 2))
        assert torch.equal(batch["warped"], given.warped_F3SS[box])
        assert torch.equal(batch["maps"], given.maps_F8ss[half_box])
        assert torch.equal(batch["mask"], given.mask_F1SS[box])
        assert torch.equal(batch["region"], given.region_F1SS[box])


def test_a_draw_depends_on_the_seed_and_the_step_alone(clips: list[PreparedClip]) -> None:
    first, second = FaceDraws(clips, Settings()), FaceDraws(clips, Settings())
    _ = second[0], second[7]
    assert all(torch.equal(value, second[5][name]) for name, value in first[5].items())
    assert not torch.equal(first[5]["noise"], first[6]["noise"])
    assert not torch.equal(first[5]["noise"], FaceDraws(clips, Settings(seed=4))[5]["noise"])
    assert len(first) == 100


def test_processes_share_the_batch_of_one(clips: list[PreparedClip]) -> None:
    whole = FaceDraws(clips, Settings())[2]
    parts = [FaceDraws(clips, Settings(), rank, world=2)[2] for rank in range(2)]
    assert all(torch.equal(torch.cat([part[name] for part in parts]), value) for name, value in whole.items())
    batch, shared = assemble(whole), [assemble(part) for part in parts]
    for name, value in batch.items():
        assert torch.allclose(torch.cat([part[name] for part in shared]), value, atol=1e-5), name


def test_without_augmentation_the_frames_are_those_of_the_clip(clips: list[PreparedClip]) -> None:
    settings = replace(Settings(), crop=CROP_SIZE, clips=1, frames=20)
    batch = assemble(FaceDraws(clips[:1], settings, augment=False)[0])
    true = torch.from_numpy(clips[0].frames()).permute(0, 3, 1, 2)
    assert torch.equal((batch["clean"] * 255).round().to(torch.uint8), true)
    assert torch.all(batch["time"] == 1)


def test_a_share_of_the_clips_starts_where_sampling_starts(clips: list[PreparedClip]) -> None:
    for share, expected in ((0.0, 0.0), (1.0, 1.0), (0.6, 0.6)):
        draws = FaceDraws(clips, replace(Settings(), first_step_share=share, clips=2, crop=8, frames=1))
        times = torch.cat([draws[step]["time"] for step in range(60)])
        assert abs(float((times == 1).float().mean()) - expected) < 0.15
        assert times.min() >= 0.125 and times.max() <= 1


def test_what_cannot_make_batches_is_refused(clips: list[PreparedClip], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple of the 3 processes"):
        FaceDraws(clips, Settings(), world=3)
    with pytest.raises(InputError, match="no clip has 21 frames"):
        FaceDraws(clips, replace(Settings(), frames=21))
    small = PreparedClips.open(write_prepared(tmp_path / "small", ["train"], size=64)).split("train")
    with pytest.raises(InputError, match="64 pixels; expected 128"):
        FaceDraws(small, Settings())
