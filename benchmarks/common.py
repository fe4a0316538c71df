"""What the benchmarks share: their input, the machine they ran on, how they print."""

import json
import os
import platform
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import atldiff
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import read_waveform

ASSETS = Path(atldiff.__file__).parent / "assets"


def portrait(height: int) -> np.ndarray:
    """The bundled portrait at a height, (height, W, 3) uint8."""
    picture = Image.open(ASSETS / "portrait.jpg").convert("RGB")
    width = round(picture.width * height / picture.height)
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))


def speech(seconds: float) -> np.ndarray:
    """The bundled speech over and over, (samples,) float32 at 16 kHz."""
    return np.resize(read_waveform(ASSETS / "speech.flac"), round(seconds * SAMPLE_RATE))


def write_speech(path: Path, seconds: float) -> Path:
    """A wav file of the bundled speech over and over, written piece by piece."""
    sound = (read_waveform(ASSETS / "speech.flac") * 32767).astype("<i2")
    left = round(seconds * SAMPLE_RATE)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        while left:
            piece = sound[:left]
            file.writeframes(piece.tobytes())
            left -= len(piece)
    return path


def machine(device: Any) -> dict[str, Any]:
    """What a figure was measured on, and how busy that was."""
    import torch

    about: dict[str, Any] = {"device": str(device), "processor": _processor(), "threads": torch.get_num_threads()}
    if getattr(device, "type", "") == "cuda":
        about["gpu"] = torch.cuda.get_device_name(device)
    about["torch"] = torch.__version__
    about["load_before"] = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return about


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def show(result: dict[str, Any], header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a result as JSON, and what matters of it as a table."""
    print(json.dumps(result, indent=2))
    print()
    print("| " + " | ".join(header) + " |")
    print("| --- |" + " ---: |" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row) + " |")
