"""Small folders of prepared clips for tests, written member by member."""

import contextlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from atldiff.data.encoding import encode_landmarks, encode_sound, encode_video
from atldiff.data.prepared import INDEX_NAME, MEMBERS, SHARDS_NAME
from atldiff.speech import SAMPLE_RATE
from face_shapes import open_face


def write_prepared(
    folder: Path, splits: Sequence[str], frames: int = 20, speakers: int = 2, size: int = 128, fps: int = 25
) -> Path:
    """One clip for each of ``splits``: a moving face of blobs, and noise as loud as the mouth is open."""
    (folder / SHARDS_NAME).mkdir(parents=True)
    rows = []
    for split in sorted(set(splits)):
        shard = f"{split}-000000.tar"
        with tarfile.open(folder / SHARDS_NAME / shard, "w") as archive:
            for number, other in enumerate(splits):
                if other == split:
                    speaker = f"{split}{number % speakers}"
                    members, row = _clip(archive, f"made/{speaker}/{number}", number, frames, size, fps)
                    rows.append(row | {"speaker": speaker, "split": split, "shard": shard} | members)
    parquet.write_table(pa.Table.from_pylist(sorted(rows, key=lambda row: row["key"])), folder / INDEX_NAME)
    return folder


@contextlib.contextmanager
def judged_by_little() -> Iterator[pytest.MonkeyPatch]:
    """Image networks are judged by one batch of the validation clips: eight take longer than a short training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atldiff.training.image.diffusion._VALIDATION_BATCHES", 1)
        patch.setattr("atldiff.training.image.paper_diffusion._VALIDATION_CLIPS", 1)
        yield patch


def _clip(
    archive: tarfile.TarFile, key: str, seed: int, frames: int, size: int, fps: int
) -> tuple[dict[str, int], dict[str, object]]:
    random = np.random.default_rng(seed)
    opening = np.abs(np.sin(np.linspace(0, 6, frames) + seed))
    landmarks = np.repeat(open_face()[None], frames, axis=0) * (size / 128)
    landmarks += random.normal(0, 1, (1, 68, 2)) + 3 * np.sin(np.linspace(0, 3, frames))[:, None, None]
    landmarks[:, 55:60, 1] += 6 * opening[:, None]
    landmarks[:, 65:68, 1] += 6 * opening[:, None]
    loudness = np.repeat(opening, SAMPLE_RATE // fps)
    sound = 0.3 * loudness * random.standard_normal(len(loudness))
    contents = {
        "landmarks": encode_landmarks(landmarks),
        "sound": encode_sound(sound.astype(np.float32)),
        "video": encode_video(_pictures(landmarks, size, random), Fraction(fps)),
    }
    places = {}
    for name, content in contents.items():
        member = tarfile.TarInfo(f"{key}.{MEMBERS[name]}")
        member.size = len(content)
        places |= {f"{name}_offset": archive.offset + 512, f"{name}_size": member.size}
        archive.addfile(member, io.BytesIO(content))
    row: dict[str, object] = {
        "key": key,
        "corpus": "made",
        "emotion": "",
        "rejected": "",
        "frames": frames,
        "fps": float(fps),
    }
    return places, row | {"size": size}


def _pictures(landmarks: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    places = np.arange(size) + 0.5
    colours = random.uniform(-120, 120, (68, 3))
    profiles = np.exp(-0.5 * ((landmarks[..., None] - places) / 4) ** 2)
    columns_FKxc = profiles[:, :, 0, :, None] * colours[:, None]
    blobs = profiles[:, :, 1].transpose(0, 2, 1) @ columns_FKxc.reshape(len(landmarks), 68, -1)
    blobs = blobs.reshape(len(landmarks), size, size, 3)
    return np.clip(128 + blobs, 0, 255).round().astype(np.uint8)
