"""LSE-C and LSE-D: how well SyncNet believes lips and sound (Chung & Zisserman, "Out of time", 2016).

The network and the way it is called are those of its published weights ``syncnet_v2.model``, see docs/evaluation.md.
"""

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from atldiff.errors import InputError
from atldiff.speech import SAMPLE_RATE

FPS = 25.0
"""The only frame rate that SyncNet knows."""

_WINDOW = 5
"""Frames that the network sees at a time, of"""

_PICTURE_SIZE = 224
"""so many pixels a side, as published."""

_REACH = 15
"""Frames early or late at which sound and lips are compared, as published."""

_BATCH = 16
"""Windows at a time; it bounds memory alone."""

_MFCC_PER_FRAME = 4
_SAMPLES_PER_FRAME = 640


_Size = int | tuple[int, ...]


def _convolution(
    dimensions: int, channels: tuple[int, int], kernel: _Size, stride: _Size = 1, padding: _Size = 0
) -> list[nn.Module]:
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimensions]
    return [convolution(*channels, kernel, stride, padding), norm(channels[1]), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


class SyncNet(nn.Module):
    """Embeds 0.2 s of sound and 5 frames of a face into one space; parameter names are those of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_convolution(2, (1, 64), 3, padding=1),
            nn.Identity(),
            *_convolution(2, (64, 192), 3, padding=1),
            nn.MaxPool2d(3, (1, 2)),
            *_convolution(2, (192, 384), 3, padding=1),
            *_convolution(2, (384, 256), 3, padding=1),
            *_convolution(2, (256, 256), 3, padding=1),
            nn.MaxPool2d(3, 2),
            *_convolution(2, (256, 512), (5, 4)),
        )
        within = (0, 1, 1)
        self.netcnnlip = nn.Sequential(
            *_convolution(3, (3, 96), (_WINDOW, 7, 7), (1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(3, (96, 256), (1, 5, 5), (1, 2, 2), within),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), within),
            *_convolution(3, (256, 256), (1, 3, 3), 1, within),
            *_convolution(3, (256, 256), (1, 3, 3), 1, within),
            *_convolution(3, (256, 256), (1, 3, 3), 1, within),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(3, (256, 512), (1, 6, 6)),
        )
        self.netfcaud = _head()
        self.netfclip = _head()

    def embed_sound(self, mfcc_B1CT: torch.Tensor) -> torch.Tensor:
        """(B, 1, 13, 20) MFCC windows → (B, 1024)."""
        return self.netfcaud(self.netcnnaud(mfcc_B1CT).flatten(1))

    def embed_lips(self, frames_3FHW: torch.Tensor) -> torch.Tensor:
        """(3, F, 224, 224) BGR from 0 to 255 → (F - 4, 1024), one for each window of 5 frames."""
        features_CF = self.netcnnlip(frames_3FHW[None])[0].flatten(1)
        return self.netfclip(features_CF.T)


class SyncNetMeter:
    """Measures LSE-C and LSE-D of face crops with their sound.

    Args:
        path: ``syncnet_v2.model``, a state dictionary.
        device: where the network runs.

    Raises:
        InputError: the file cannot be used.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        if not path.is_file():
            raise InputError(f"there are no weights at {path}; docs/evaluation.md says where they are published")
        self._device = device
        self._network = SyncNet().eval()
        try:
            self._network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (RuntimeError, TypeError, pickle.UnpicklingError, EOFError, OSError) as error:
            raise InputError(f"{path} does not hold the weights of SyncNet: {error}") from error
        self._network.to(device)

    @torch.inference_mode()
    def score(self, frames: np.ndarray, waveform: np.ndarray, fps: float) -> dict[str, float]:
        """``lse_d``: least mean distance over shifts of ±15 frames; ``lse_c``: median over shifts minus that.

        Both are NaN unless the video has 25 frames a second and its sound six frames or more.

        Args:
            frames: (F, H, W, 3) uint8 face crops.
            waveform: (samples,) float32 at 16 kHz; sample 0 belongs to frame 0.
            fps: frames per second.
        """
        windows = min(len(frames), len(waveform) // _SAMPLES_PER_FRAME) - _WINDOW
        if abs(fps - FPS) > 0.01 or windows < 1:
            return {"lse_c": float("nan"), "lse_d": float("nan")}
        lips = self._embed_lips(frames[: windows + _WINDOW - 1])
        mfcc = torch.from_numpy(mel_cepstrum(waveform)).float().T
        slices = mfcc.unfold(1, _WINDOW * _MFCC_PER_FRAME, _MFCC_PER_FRAME)[:, :windows]
        sound = self._network.embed_sound(slices.permute(1, 0, 2)[:, None].to(self._device))
        shifted = functional.pad(sound, (0, 0, _REACH, _REACH)).unfold(0, 2 * _REACH + 1, 1).movedim(2, 1)
        distances = functional.pairwise_distance(lips[:, None], shifted).mean(dim=0)
        least = distances.min()
        return {"lse_c": float(distances.median() - least), "lse_d": float(least)}

    def _embed_lips(self, frames: np.ndarray) -> torch.Tensor:
        windows = len(frames) - _WINDOW + 1
        embedded = []
        for start in range(0, windows, _BATCH):
            piece = np.ascontiguousarray(frames[start : min(start + _BATCH, windows) + _WINDOW - 1, ..., ::-1])
            pictures_F3HW = torch.from_numpy(piece).permute(0, 3, 1, 2).to(self._device).float()
            pictures_F3HW = functional.interpolate(pictures_F3HW, size=(_PICTURE_SIZE,) * 2, mode="bilinear")
            embedded.append(self._network.embed_lips(pictures_F3HW.transpose(0, 1)))
        return torch.cat(embedded)


def mel_cepstrum(waveform: np.ndarray) -> np.ndarray:
    """The 13 mel-frequency cepstral coefficients that SyncNet was trained on, 100 a second.

    Windows of 25 ms without taper, pre-emphasis 0.97, 26 triangular mel filters over 512 FFT points, orthonormal
    DCT, lifter of 22; the first coefficient is replaced by the window's log energy.

    Args:
        waveform: (samples,) float32 in [-1, 1] at 16 kHz.

    Returns:
        (windows, 13) float64.
    """
    length, step, points, filters, lifter = 400, 160, 512, 26, 22
    samples = np.round(waveform.astype(np.float64) * 32767)
    samples = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    count = 1 + max(0, -(-(len(samples) - length) // step))
    samples = np.pad(samples, (0, max(0, (count - 1) * step + length - len(samples))))
    windows = np.lib.stride_tricks.sliding_window_view(samples, length)[::step][:count]
    power = np.abs(np.fft.rfft(windows, points)) ** 2 / points
    tiny = np.finfo(float).eps
    mel = np.log(np.maximum(power @ _mel_filters(filters, points).T, tiny))
    order, band = np.arange(13)[:, None], np.arange(filters)[None]
    cosine = np.sqrt(2 / filters) * np.cos(np.pi * order * (2 * band + 1) / (2 * filters))
    cepstrum = mel @ cosine.T * (1 + lifter / 2 * np.sin(np.pi * np.arange(13) / lifter))
    cepstrum[:, 0] = np.log(np.maximum(power.sum(axis=1), tiny))
    return cepstrum


def _mel_filters(count: int, points: int) -> np.ndarray:
    """(count, points // 2 + 1) triangles whose corners lie evenly in mel between 0 Hz and 8 kHz, on whole bins."""
    highest = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, highest, count + 2) / 2595) - 1)
    corners = np.floor((points + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(points // 2 + 1)
    left, middle, right = (corners[start : start + count, None] for start in range(3))
    rising, falling = (bins - left) / (middle - left), (right - bins) / (right - middle)
    return np.where((bins >= left) & (bins < middle), rising, 0) + np.where(
        (bins >= middle) & (bins < right), falling, 0
    )
