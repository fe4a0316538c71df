"""Damaged files of every kind end in words or in what can be read of them: never in a crash, and not for ever."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from skimage import data

from fuzzing import FILMS
from media_files import sine, write_sound, write_video

COUNT = 8


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """One small file of each kind."""
    picture = Image.fromarray(data.astronaut()[:128, 128:256])
    for suffix in (".jpg", ".png", ".webp", ".avif", ".gif", ".tiff", ".bmp", ".jp2"):
        picture.save(tmp_path / f"seed{suffix}")
    pillow_heif.from_pillow(picture).save(tmp_path / "seed.heic")
    sound = sine(0.5, 48_000, 2)
    for suffix in (".wav", ".mp3", ".ogg", ".flac", ".m4a"):
        write_sound(tmp_path / f"seed{suffix}", sound, 48_000)
    write_sound(tmp_path / "seed.aiff", sound, 48_000, "pcm_s16be")
    frames = np.stack([np.asarray(picture)] * 6)
    for suffix in FILMS:
        codec = {".webm": "libopus", ".avi": "libmp3lame", ".mkv": "flac"}.get(suffix, "aac")
        video = {".webm": "libvpx"}.get(suffix, "libx264")
        write_video(tmp_path / f"seed{suffix}", frames, 25, sound, 48_000, codec=codec, picture_codec=video)
    return tmp_path


def test_mutated_files_do_no_harm(seeds: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("fuzzing.py")), str(seeds), str(COUNT), "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, (seeds / "at").read_text() + result.stderr[-2000:]
    assert result.stdout == ""
