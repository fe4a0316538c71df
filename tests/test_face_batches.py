"""Batches of the image network: the same values as a plain computation clip by clip, whoever makes them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.data.prepared import PreparedClip, PreparedClips, SpeakerSampler
from atldiff.errors import InputError
from atldiff.face.crop import CROP_SIZE, PICTURE_SIZE
from atldiff.face.topology import MIRROR_68, mouth_opening
from atldiff.image.conditioning import IdentityFace
from atldiff.image.guidance import landmark_maps, noise_mask, residual_region
from atldiff.image.mouth.geometry import MouthGeometry
from atldiff.image.unet import blurred
from atldiff.image.window import WINDOW_SIZE, window_corners, window_fade
from atldiff.training.image.face_batches import Batch, FaceDraws, assemble, tinted
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
    folder = write_prepared(tmp_path_factory.mktemp("prepared") / "data", ["train"] * 5, size=PICTURE_SIZE)
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
    firsts, owns = random.integers(clip.info.frames - count + 1, size=2), random.integers(clip.info.frames, size=2)
    opening = mouth_opening(clip.landmarks())
    first, own = int(firsts[0]), int(owns[0])
    evenly = random.random(2) < 0.5
    if not evenly[0] and opening[firsts[1] : firsts[1] + count].mean() > opening[first : first + count].mean():
        first = int(firsts[1])
    if not evenly[1] and opening[owns[1]] < opening[own]:
        own = int(owns[1])
    chosen = [*range(first, first + count), own]
    pictures = torch.from_numpy(clip.frames()[chosen]).permute(0, 3, 1, 2).float() / 255
    points = torch.from_numpy(clip.landmarks()[chosen]) / 2
    if random.random() < 0.5:
        pictures, points = pictures.flip(-1), points[:, MIRROR_68]
        points = torch.stack([CROP_SIZE - points[..., 0], points[..., 1]], dim=-1)
    gamma, gain = np.exp(random.normal(0, 0.2)), np.exp(random.normal(0, 0.1, size=(3, 1, 1)))
    pictures = (pictures ** float(gamma) * torch.from_numpy(gain).float()).clamp(0, 1)
    saturation = random.uniform(0, 1.2) if random.random() < 0.25 else 1.0
    grey = pictures.mean(dim=1, keepdim=True)
    pictures = (grey + saturation * (pictures - grey)).clamp(0, 1)
    left, top = (2 * (random.random((2, 2)).mean(axis=0) * (WINDOW_SIZE - crop) / 2).round()).astype(int)
    box = (..., slice(top, top + crop), slice(left, left + crop))
    half_box = (..., slice(top // 2, (top + crop) // 2), slice(left // 2, (left + crop) // 2))
    face = IdentityFace(pictures[-1], points[-1].numpy())
    given = face.conditions(points[:-1])
    places = given.corner_F2.tolist()
    clean = [
        picture[:, y : y + WINDOW_SIZE, x : x + WINDOW_SIZE]
        for picture, (x, y) in zip(pictures[:-1], places, strict=True)
    ]
    shifts = given.corner_F2[:, None] / 2
    region = residual_region(points[:-1] - shifts, 64, WINDOW_SIZE)
    paint = (2 * blurred(given.inside_F1WW, 1.5)).clamp(max=1)
    maps = [landmark_maps(each - shifts, 64, 64) for each in (points[:-1], points[-1:].expand(count, -1, -1))]
    return {
        "clean": torch.stack(clean)[box],
        "warped": given.warped_F3WW[box],
        "maps": torch.cat(maps, dim=1)[half_box],
        "mask": noise_mask(points[:-1] - shifts, 64, WINDOW_SIZE)[box],
        "region": (region * window_fade(torch.device("cpu")) * torch.cat([1 - given.inside_F1WW, paint], dim=1))[box],
        "inside": given.inside_F1WW[box],
        "identity": face.window_3WW[None],
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
    for crop in (WINDOW_SIZE, 64):
        draw = FaceDraws(clips, replace(Settings(), clips=1, crop=crop))[1]
        batch = assemble(draw)
        identity, landmarks = tinted(draw["identity"][:, None], draw)[0], draw["landmarks"][0]
        face = IdentityFace(identity, landmarks[-1].numpy())
        given = face.conditions(landmarks[:-1])
        left, top = draw["corner"][0].tolist()
        box = (..., slice(top, top + crop), slice(left, left + crop))
        half_box = (..., slice(top // 2, (top + crop) // 2), slice(left // 2, (left + crop) // 2))
        assert torch.equal(batch["warped"], given.warped_F3WW[box])
        assert torch.equal(batch["maps"], given.maps_F8ww[half_box])
        assert torch.equal(batch["mask"], given.mask_F1WW[box])
        assert torch.equal(batch["region"], given.region_F2WW[box])
        assert torch.equal(batch["identity"][0], face.window_3WW)


def test_the_window_travels_with_the_skull_and_not_with_the_jaw(clips: list[PreparedClip]) -> None:
    landmarks = clips[0].landmarks()[:1] / 2
    geometry = MouthGeometry(landmarks[0])
    spoken, moved = landmarks.copy(), landmarks + np.array([6.0, -3.0], np.float32)
    spoken[:, [*range(5, 12), *range(55, 60), 65, 66, 67], 1] += 8
    own, open_mouth, elsewhere = (
        window_corners(geometry, torch.from_numpy(each)) for each in (landmarks, spoken, moved)
    )
    assert torch.equal(open_mouth, own)
    assert torch.equal(elsewhere, own + torch.tensor([12, -6]))
    far = window_corners(geometry, torch.from_numpy(landmarks + 500))
    assert torch.equal(far, torch.full((1, 2), PICTURE_SIZE - WINDOW_SIZE))


def test_what_is_seen_between_the_lips_is_where_they_are_apart(clips: list[PreparedClip]) -> None:
    landmarks = torch.from_numpy(clips[0].landmarks()[:1] / 2)
    face = IdentityFace(torch.rand(3, PICTURE_SIZE, PICTURE_SIZE), landmarks[0].numpy())
    spoken, shut = landmarks.clone(), landmarks.clone()
    spoken[:, [57, 65, 66, 67], 1] += 6
    shut[:, [67, 66, 65]] = shut[:, [61, 62, 63]]
    given = [face.conditions(points) for points in (spoken, shut)]
    x, y = (2 * spoken[0, [62, 66]].mean(dim=0) - given[0].corner_F2[0]).long().tolist()
    assert given[0].inside_F1WW[0, 0, y, x] == 1
    assert float(given[0].inside_F1WW.mean()) > 0.01
    assert float(given[1].inside_F1WW.max()) == 0
    shaded, painted = given[0].region_F2WW[0, :, y, x]
    assert shaded == 0 and painted > 0.5
    assert float(given[1].region_F2WW[0, 1].max()) == 0


def test_clips_of_128_pixels_give_the_same_places_at_half_the_detail(tmp_path: Path) -> None:
    settings = replace(Settings(), clips=1, crop=WINDOW_SIZE)
    small = PreparedClips.open(write_prepared(tmp_path / "small", ["train"], size=128)).split("train")
    batch = assemble(FaceDraws(small, settings)[0])
    assert batch["clean"].shape == (3, 3, WINDOW_SIZE, WINDOW_SIZE)
    error = (batch["warped"] - batch["clean"]).abs().mean()
    assert error < (batch["warped"].flip(-2) - batch["clean"]).abs().mean() / 2


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
    settings = replace(Settings(), clips=1, frames=20)
    draw = FaceDraws(clips[:1], settings, augment=False)[0]
    assert torch.equal(draw["frames"][0], torch.from_numpy(clips[0].frames()))
    assert torch.all(draw["time"] == 1)


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
    with pytest.raises(InputError, match="64 pixels; expected 128 or more"):
        FaceDraws(small, Settings())
