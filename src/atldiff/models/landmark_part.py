"""The landmark part of a model folder: which generator it has, and the speech encoder that this one hears through."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atldiff.errors import ModelError
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig
from atldiff.landmarks.kfusion import KFusionConfig, KFusionGenerator
from atldiff.motion.living import FaceMotion
from atldiff.motion.windowed import WindowedMotion
from atldiff.speech.distilled import DistilledEncoder, DistilledEncoderConfig
from atldiff.speech.wav2vec2 import Wav2Vec2Encoder
from atldiff.speech.whisper import WhisperEncoder
from atldiff.storage.files import read_json
from atldiff.storage.parts import CONFIG_NAME, load_part

LANDMARK_FOLDER = "landmark_generator"
WAV2VEC2_FOLDER = "wav2vec2"
"""Folder of the speech encoder in transformers' format, and its name in ``model_index.json``."""

DISTILLED_FOLDER = "speech_encoder"
"""Folder of the speech encoder of our own, and its name in ``model_index.json``."""

STREAMING_FOLDER = "streaming"
"""Folder of the speech encoder and the landmark generator that streaming mode has for itself."""

WHISPER = "whisper-tiny.en"

SpeechEncoder = WhisperEncoder | DistilledEncoder | Wav2Vec2Encoder


@dataclass(frozen=True)
class LandmarkPart:
    """A kind of landmark generator with its configuration, the motion made of it, and names of its speech encoders.

    Without such names its encoder is wav2vec2.
    """

    generator: Any
    config: Any
    motion: Any
    encoders: tuple[str, ...] = ()


LANDMARK_PARTS = {
    "LandmarkGenerator": LandmarkPart(
        LandmarkGenerator, LandmarkGeneratorConfig, FaceMotion, (WHISPER, DISTILLED_FOLDER)
    ),
    "KFusionGenerator": LandmarkPart(KFusionGenerator, KFusionConfig, WindowedMotion),
}
"""By the ``class_name`` in ``config.json``; without one it is the first."""


def load_landmark_part(folder: Path, encoder_name: str) -> tuple[Any, Any]:
    """The speech encoder and the landmark generator of a model folder.

    Args:
        encoder_name: ``whisper-tiny.en``; ``speech_encoder`` or ``wav2vec2`` for the folder of that name in the
            model folder; otherwise wav2vec2's hub name.

    Raises:
        InputError: transformers is needed and not installed.
        ModelError: a part is missing or corrupt, or the encoder is not one for this generator.
    """
    values = read_json(folder / LANDMARK_FOLDER / CONFIG_NAME)
    name = values.get("class_name", "LandmarkGenerator") if isinstance(values, dict) else None
    if name not in LANDMARK_PARTS:
        known = ", ".join(LANDMARK_PARTS)
        raise ModelError(
            f"{folder / LANDMARK_FOLDER / CONFIG_NAME} names the class {name!r}; expected one of {known}"
        )
    part = LANDMARK_PARTS[name]
    if encoder_name not in part.encoders if part.encoders else encoder_name in (WHISPER, DISTILLED_FOLDER):
        wanted = " or ".join(map(repr, part.encoders)) or f"{WAV2VEC2_FOLDER!r} or a hub name"
        raise ModelError(f"the speech encoder of {folder} is {encoder_name!r}; expected {wanted} for a {name}")
    generator = load_part(folder / LANDMARK_FOLDER, part.generator, part.config)
    encoder = _load_encoder(folder, encoder_name)
    if encoder.feature_size != generator.config.features:
        sizes = f"{encoder.feature_size} features; expected {generator.config.features}"
        raise ModelError(f"the speech encoder {encoder_name!r} of {folder} gives {sizes}")
    return encoder, generator.eval()


def _load_encoder(folder: Path, name: str) -> SpeechEncoder:
    if name == WHISPER:
        return WhisperEncoder.from_package()
    if name == DISTILLED_FOLDER:
        return load_part(folder / DISTILLED_FOLDER, DistilledEncoder, DistilledEncoderConfig).eval()
    if name != WAV2VEC2_FOLDER:
        return Wav2Vec2Encoder.from_pretrained(name)
    read_json(folder / WAV2VEC2_FOLDER / CONFIG_NAME)
    return Wav2Vec2Encoder.from_pretrained(folder / WAV2VEC2_FOLDER, use_safetensors=True)
