"""The frozen speech encoder: its spectrogram, its weights, its timing."""

import numpy as np
import pytest
import torch

from atldiff.speech.waveform import SAMPLE_RATE
from atldiff.speech.whisper import FEATURE_RATE, FEATURE_SIZE, WhisperEncoder, log_mel_spectrogram

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    return WhisperEncoder.from_package()


def test_a_tone_lights_the_band_of_its_pitch() -> None:
    times = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    mel = log_mel_spectrogram(torch.sin(2 * np.pi * 1000 * times)[None])[0]
    assert mel.shape == (80, 100)
    loudest = int(mel[:, 50].argmax())
    slaney_bands = torch.linspace(0, 15 + 27 * np.log(8.0) / np.log(6.4), 82)
    assert abs(float(slaney_bands[loudest + 1]) - 15.0) < 0.6


def test_features_come_at_fifty_hertz_for_any_length(encoder: WhisperEncoder) -> None:
    for samples in (320, 321, 3200, 19_200, 5 * SAMPLE_RATE):
        features = encoder(torch.zeros(1, samples))
        assert features.shape == (1, max(1, -(-samples // 320)), FEATURE_SIZE)


def test_features_change_where_the_sound_changes(encoder: WhisperEncoder) -> None:
    generator = torch.Generator().manual_seed(0)
    sound = 0.1 * torch.randn(1, 4 * SAMPLE_RATE, generator=generator)
    burst = sound.clone()
    burst[0, 2 * SAMPLE_RATE : 2 * SAMPLE_RATE + 1600] += 0.5
    change = (encoder(burst) - encoder(sound)).norm(dim=2)[0]
    assert abs(int(change.argmax()) - 2.05 * FEATURE_RATE) <= 5
    assert change[95:110].mean() > 3 * change[:60].mean()


def test_weights_are_frozen_and_not_the_initial_ones(encoder: WhisperEncoder) -> None:
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert all(float(block.attention_norm.weight.std()) > 0 for block in encoder.blocks)
    assert float(encoder.positions.abs().max()) > 0.5
