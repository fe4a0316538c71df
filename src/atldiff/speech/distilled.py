"""Speech encoder of our own: small, causal but for a short look-ahead, distilled from Whisper's; it streams.

Log-mel spectrogram with a fixed floor, then residual dilated convolutions over time, 50 features a second. What it
has heard is a state of fixed size, so that each sample is heard once, however the sound comes in.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from atldiff.errors import ModelError
from atldiff.speech.whisper import SAMPLES_PER_FEATURE, mel_filters

_FFT_SIZE = 400
_HOP = 160
_MEL_FRAMES = SAMPLES_PER_FEATURE // _HOP
_MEL_BANDS = 80
_POWER_FLOOR = 1e-8
_REACH = (_MEL_FRAMES - 1) * _HOP + _FFT_SIZE // 2
"""Samples that the spectrogram of a feature lasts beyond the feature's time."""

EncoderState = tuple[torch.Tensor, ...]
"""What later features still need: the last samples, (B, n), and each block's last inputs, (B, T, C)."""


@dataclass(frozen=True)
class DistilledEncoderConfig:
    """Configuration of :class:`DistilledEncoder`.

    Attributes:
        channels: size of a feature vector.
        dilations: features (20 ms) between the three taps of each block's convolution.
        ahead: features that each block's last tap lies after its output; their sum is the look-ahead in features.
        dropout: share of values dropped in training.
    """

    channels: int = 160
    dilations: tuple[int, ...] = (1, 2, 2, 1, 2, 4, 1, 2, 4, 8)
    ahead: tuple[int, ...] = (1, 2, 2, 0, 0, 0, 0, 0, 0, 0)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = (self.channels, *self.dilations)
        if not self.dilations or not all(isinstance(size, int) and 1 <= size <= 4096 for size in sizes):
            raise ModelError(f"sizes of the speech encoder are {sizes}; expected 1 to 4096 each")
        blocks = list(zip(self.ahead, self.dilations, strict=False))
        if len(self.ahead) != len(self.dilations) or not all(0 <= ahead <= 2 * step for ahead, step in blocks):
            raise ModelError(
                f"the speech encoder looks {self.ahead} features ahead with dilations {self.dilations}; expected one "
                "number a dilation, from 0 to twice as much"
            )
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout is {self.dropout}; expected at least 0 and under 1")


class LookAheadBlock(nn.Module):
    """Residual convolution over time; output i hears the inputs i − 2 · dilation + ahead to i + ahead."""

    def __init__(self, channels: int, dilation: int, ahead: int, dropout: float) -> None:
        super().__init__()
        self.dilation, self.before = dilation, 2 * dilation - ahead
        self.norm = nn.LayerNorm(channels)
        self.taps = nn.Linear(3 * channels, channels)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTC: torch.Tensor, held_BTC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The next inputs, and those held back → the outputs that are complete, and the inputs to hold."""
        joined, step = torch.cat([held_BTC, x_BTC], dim=1), self.dilation
        count = joined.shape[1] - 2 * step
        if count <= 0:
            return x_BTC[:, :0], joined
        normed = self.norm(joined)
        hidden = self.taps(torch.cat([normed[:, tap * step : tap * step + count] for tap in range(3)], dim=2))
        kept = joined[:, self.before : self.before + count]
        return kept + self.out(self.dropout(F.gelu(hidden))), joined[:, count:]


class DistilledEncoder(nn.Module):
    """Speech of any length → features at 50 Hz, each of which hears at most :attr:`look_ahead` samples more."""

    def __init__(self, config: DistilledEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or DistilledEncoderConfig()
        channels, dropout = self.config.channels, self.config.dropout
        self.mel_in = nn.Linear(_MEL_FRAMES * _MEL_BANDS, channels)
        blocks = zip(self.config.dilations, self.config.ahead, strict=True)
        self.blocks = nn.ModuleList(LookAheadBlock(channels, step, ahead, dropout) for step, ahead in blocks)
        self.norm = nn.LayerNorm(channels)

    @property
    def feature_size(self) -> int:
        """Size of a feature vector."""
        return self.config.channels

    @property
    def look_ahead(self) -> int:
        """Samples: feature i depends on those before sample 320 · i + ``look_ahead`` alone."""
        return _REACH + sum(self.config.ahead) * SAMPLES_PER_FEATURE

    @property
    def context_features(self) -> int:
        """Features before its own time whose sound a feature depends on."""
        return 2 * sum(self.config.dilations) - sum(self.config.ahead)

    def forward(self, waveform_BN: torch.Tensor) -> torch.Tensor:
        """(B, samples) float32 at 16 kHz → (B, ceil(samples / 320), C); silence lies before and after it.

        Feature i is that of the sound at i / 50 s.
        """
        count = -(-waveform_BN.shape[1] // SAMPLES_PER_FEATURE)
        heard = (count - 1) * SAMPLES_PER_FEATURE + self.look_ahead
        padded = F.pad(waveform_BN, (0, heard - waveform_BN.shape[1]))
        return self.advance(padded, self.start(waveform_BN))[0]

    def start(self, like_BN: torch.Tensor) -> EncoderState:
        """The state after long silence, for as many recordings as ``like_BN`` has rows, on its device."""
        rows, channels = len(like_BN), self.config.channels
        heard = (2 * sum(self.config.dilations) + 1) * SAMPLES_PER_FEATURE + _REACH
        nothing = (like_BN.new_zeros(1, 0), *(like_BN.new_zeros(1, 0, channels) for _ in self.blocks))
        _, (_, *states) = self.advance(like_BN.new_zeros(1, heard), nothing)
        inputs = zip(self._blocks(), states, strict=True)
        held = like_BN.new_zeros(rows, _FFT_SIZE // 2)
        return (held, *(state[:, -1:].expand(rows, block.before, channels) for block, state in inputs))

    def advance(self, samples_BN: torch.Tensor, state: EncoderState) -> tuple[torch.Tensor, EncoderState]:
        """Hear the next samples.

        Args:
            samples_BN: (B, n), of any number.
            state: from :meth:`start`, or what was returned for the samples before; it stays as it is.

        Returns:
            The features that are complete now, (B, T, C), perhaps none, and the next state.
        """
        held, *states = state
        joined = torch.cat([held, samples_BN], dim=1)
        count = max(0, (joined.shape[1] - _FFT_SIZE - (_MEL_FRAMES - 1) * _HOP) // SAMPLES_PER_FEATURE + 1)
        hidden = self.mel_in(self._log_mel(joined, count))
        following = [joined[:, count * SAMPLES_PER_FEATURE :]]
        for block, inputs in zip(self._blocks(), states, strict=True):
            hidden, inputs = block(hidden, inputs)
            following.append(inputs)
        return self.norm(hidden), tuple(following)

    def _blocks(self) -> list[LookAheadBlock]:
        return list(self.blocks)  # pyright: ignore[reportReturnType]

    def _log_mel(self, samples_BN: torch.Tensor, count: int) -> torch.Tensor:
        """(B, count, 160): two frames of the log-mel spectrogram a feature; its floor is fixed."""
        if not count:
            return samples_BN.new_zeros(len(samples_BN), 0, _MEL_FRAMES * _MEL_BANDS)
        used = samples_BN[:, : (count - 1) * SAMPLES_PER_FEATURE + (_MEL_FRAMES - 1) * _HOP + _FFT_SIZE]
        window = torch.hann_window(_FFT_SIZE, device=used.device)
        power = torch.fft.rfft(used.unfold(1, _FFT_SIZE, _HOP) * window).abs().square()
        with torch.autocast(used.device.type, enabled=False):
            mel = power @ mel_filters().to(used.device).T
        return ((torch.log10(mel.clamp_min(_POWER_FLOOR)) + 4) / 4).unflatten(1, (count, _MEL_FRAMES)).flatten(2)


class FeatureStream:
    """The features of one recording whose sound comes in pieces."""

    def __init__(self, encoder: DistilledEncoder) -> None:
        self._encoder = encoder
        self._state = encoder.start(next(encoder.parameters()).new_zeros(1, 0))
        self._features = next(encoder.parameters()).new_zeros(1, 0, encoder.config.channels)
        self.first = 0
        """Number of the first feature that is kept."""

    @torch.no_grad()
    def hear(self, samples: torch.Tensor) -> None:
        """Take in the next (n,) samples."""
        made, self._state = self._encoder.advance(samples[None], self._state)
        self._features = torch.cat([self._features, made], dim=1)

    def forget(self, number: int) -> None:
        """Keep no feature before that number."""
        dropped = min(max(0, number - self.first), self._features.shape[1])
        self._features, self.first = self._features[:, dropped:], self.first + dropped

    @torch.no_grad()
    def features(self, end: int) -> torch.Tensor:
        """Features :attr:`first` to ``end``, (1, T, C); for those not complete yet, silence is taken to follow."""
        lacking = end - self.first - self._features.shape[1]
        if lacking <= 0:
            return self._features[:, : end - self.first]
        silence = self._state[0].new_zeros(1, lacking * SAMPLES_PER_FEATURE + self._encoder.look_ahead)
        made, _ = self._encoder.advance(silence, self._state)
        return torch.cat([self._features, made[:, :lacking]], dim=1)
