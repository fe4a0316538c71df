"""Frozen speech encoder of the paper preset: wav2vec2-base (Baevski et al. 2020), 768 features at 50 Hz.

The network is Hugging Face's ``Wav2Vec2Model`` (extra ``paper``). The published module gives it the waveform as it
is, values in [-1, 1], without normalising it to zero mean and unit variance, and so does this one.
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from atldiff.errors import InputError, ModelError
from atldiff.storage.files import read_json, write_atomically
from atldiff.storage.parts import CONFIG_NAME, WEIGHTS_NAME

HUB_NAME = "facebook/wav2vec2-base"

_SHORTEST = 400
_MOST = {
    "hidden_size": 2048,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "intermediate_size": 8192,
    "num_conv_pos_embeddings": 1024,
    "conv_dim": 2048,
    "conv_kernel": 64,
    "conv_stride": 64,
}
"""What a configuration may ask for, also in each entry of a list: some times what the largest wav2vec2 has."""

_MOST_LAYERS = 32


class Wav2Vec2Encoder(nn.Module):
    """wav2vec2's last hidden state, without gradient and always in evaluation mode."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(cls, name_or_dir: str | Path = HUB_NAME, use_safetensors: bool | None = None) -> Self:
        """Load the weights of a hub name or of a folder in transformers' format.

        Args:
            use_safetensors: True refuses pickled weights, None takes what is there.

        Raises:
            InputError: transformers is not installed.
            ModelError: there are no such weights, or they are not those of a wav2vec2 model.
        """
        model_class = _transformers().Wav2Vec2Model
        if Path(name_or_dir).is_dir():
            check_config(Path(name_or_dir) / CONFIG_NAME)
        try:
            model, report = model_class.from_pretrained(
                str(name_or_dir), output_loading_info=True, use_safetensors=use_safetensors
            )
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise ModelError(
                f"cannot load wav2vec2 from {str(name_or_dir)!r}: {reason} "
                "(expected a hub name or a folder in transformers' format)"
            ) from error
        missing = sorted(set(report["missing_keys"]) - {"masked_spec_embed"})
        if missing:
            raise ModelError(f"{str(name_or_dir)!r} is no whole wav2vec2 model: missing {missing[:3]}")
        return cls(model)

    @classmethod
    def from_config(cls, **settings: Any) -> Self:
        """An encoder with random weights; ``settings`` are those of ``Wav2Vec2Config``, by default the base size."""
        transformers = _transformers()
        return cls(transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**settings)))

    @property
    def feature_size(self) -> int:
        """Size of a feature vector."""
        return self.model.config.hidden_size

    def save_pretrained(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` in transformers' format, weights in their own precision."""
        from safetensors.torch import save

        state = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        write_atomically(folder / WEIGHTS_NAME, save(state, metadata={"format": "pt"}))
        write_atomically(folder / CONFIG_NAME, self.model.config.to_json_string().encode())

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: the encoder is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, waveform_BN: torch.Tensor) -> torch.Tensor:
        """(B, samples) float32 at 16 kHz → (B, T, features): T is 49 for one second, one more every 320 samples.

        Feature i sees the samples 320·i to 320·i + 400, and its surroundings through the transformer.

        Raises:
            InputError: the waveform is not (B, samples), or shorter than 400 samples.
        """
        if waveform_BN.ndim != 2 or waveform_BN.shape[1] < _SHORTEST:
            shape = tuple(waveform_BN.shape)
            raise InputError(f"the waveform has the shape {shape}; expected (batch, at least {_SHORTEST} samples)")
        return self.model(waveform_BN).last_hidden_state


def check_config(path: Path) -> None:
    """Raise ModelError for a ``config.json`` that is not wav2vec2's, or whose network nobody would make."""
    values = read_json(path)
    if not isinstance(values, dict) or values.get("model_type") != "wav2vec2":
        raise ModelError(f"{path} does not describe a wav2vec2; expected model_type wav2vec2")
    for name, most in _MOST.items():
        value = values.get(name, 1)
        numbers = value if isinstance(value, list) and 0 < len(value) <= _MOST_LAYERS else [value]
        if not all(type(number) is int and 1 <= number <= most for number in numbers):
            raise ModelError(f"{path}: {name} is {str(value)[:80]}; expected whole numbers from 1 to {most}")


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise InputError("wav2vec2 needs the extra `paper`: pip install 'atldiff[paper]'") from error
    return transformers
