"""The parts that a model can be made of: for each kind its class, its configuration, and how it is read.

A part that is there in more than one kind says in its ``config.json`` which it is: ``class_name``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from torch import nn

from atldiff.errors import ModelError
from atldiff.image.animators import ImageNetwork
from atldiff.image.paper_unet import PaperDiffusionUNet, PaperUNetConfig
from atldiff.image.unet import IdentityDiffusionUNet, UNetConfig
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig
from atldiff.landmarks.kfusion import KFusionConfig, KFusionGenerator
from atldiff.motion.living import FaceMotion, Motion
from atldiff.motion.windowed import WindowedMotion
from atldiff.speech.distilled import DistilledEncoder, DistilledEncoderConfig
from atldiff.speech.emotion import EmotionClassifier, EmotionClassifierConfig
from atldiff.speech.wav2vec2 import Wav2Vec2Encoder
from atldiff.speech.whisper import WhisperEncoder
from atldiff.storage.files import read_json
from atldiff.storage.parts import CONFIG_NAME, load_part

UNET_FOLDER = "unet"
LANDMARK_FOLDER = "landmark_generator"
EMOTION_FOLDER = "emotion_classifier"

WAV2VEC2_FOLDER = "wav2vec2"
"""Folder of the speech encoder in transformers' format, and its name in ``model_index.json``."""

DISTILLED_FOLDER = "speech_encoder"
"""Folder of the speech encoder of our own, and its name in ``model_index.json``."""

STREAMING_FOLDER = "streaming"
"""Folder of the speech encoder and the landmark generator that streaming mode has for itself."""

WHISPER = "whisper-tiny.en"

SpeechEncoder = WhisperEncoder | DistilledEncoder | Wav2Vec2Encoder
AnyLandmarkGenerator = LandmarkGenerator | KFusionGenerator

Network = TypeVar("Network", bound=nn.Module, covariant=True)


@dataclass(frozen=True)
class PartKind(Generic[Network]):
    """A kind of part: the class of its network and of the configuration that this one is made from."""

    network: Callable[..., Network]
    config: Callable[..., object]

    def load(self, folder: Path) -> Network:
        """Such a part, in evaluation mode. Raises ModelError: it is missing or corrupt."""
        return load_part(folder, self.network, self.config).eval()


@dataclass(frozen=True)
class ImageKind(PartKind[Network]):
    """A kind of image network, and the sampler steps that suit it."""

    steps: int


@dataclass(frozen=True)
class LandmarkKind(PartKind[Network]):
    """A kind of landmark generator, the motion made of it, and the names of its speech encoders.

    Without such names its encoder is wav2vec2.
    """

    motion: Callable[..., Motion]
    encoders: tuple[str, ...] = ()


IMAGE_NETWORKS: dict[str, ImageKind[ImageNetwork]] = {
    "IdentityDiffusionUNet": ImageKind(IdentityDiffusionUNet, UNetConfig, steps=1),
    "PaperDiffusionUNet": ImageKind(PaperDiffusionUNet, PaperUNetConfig, steps=8),
}
LANDMARK_GENERATORS: dict[str, LandmarkKind[AnyLandmarkGenerator]] = {
    "LandmarkGenerator": LandmarkKind(
        LandmarkGenerator, LandmarkGeneratorConfig, FaceMotion, (WHISPER, DISTILLED_FOLDER)
    ),
    "KFusionGenerator": LandmarkKind(KFusionGenerator, KFusionConfig, WindowedMotion),
}
"""By the ``class_name``; without one it is the first."""

DISTILLED_ENCODER = PartKind(DistilledEncoder, DistilledEncoderConfig)
EMOTION_CLASSIFIER = PartKind(EmotionClassifier, EmotionClassifierConfig)

Kind = TypeVar("Kind")


def _kind_in(folder: Path, kinds: Mapping[str, Kind]) -> tuple[str, Kind]:
    """Which of several kinds the part in ``folder`` is, and its name. Raises ModelError."""
    path = folder / CONFIG_NAME
    values = read_json(path)
    name = values.get("class_name", next(iter(kinds))) if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in kinds:
        raise ModelError(f"{path} names the class {name!r}; expected one of {', '.join(kinds)}")
    return name, kinds[name]


def image_kind(folder: Path) -> ImageKind[ImageNetwork]:
    """What kind of image network a model folder has.

    Raises:
        ModelError: its configuration is missing or names an unknown class.
    """
    return _kind_in(folder / UNET_FOLDER, IMAGE_NETWORKS)[1]


def load_image_network(folder: Path) -> ImageNetwork:
    """The image network of a model folder.

    Raises:
        ModelError: it is missing or corrupt.
    """
    return image_kind(folder).load(folder / UNET_FOLDER)


def load_landmark_part(folder: Path, encoder_name: str) -> tuple[SpeechEncoder, AnyLandmarkGenerator]:
    """The speech encoder and the landmark generator of a model folder.

    Args:
        encoder_name: ``whisper-tiny.en``; ``speech_encoder`` or ``wav2vec2`` for the folder of that name in the
            model folder; otherwise wav2vec2's hub name.

    Raises:
        InputError: transformers is needed and not installed.
        ModelError: a part is missing or corrupt, or the encoder is not one for this generator.
    """
    name, kind = _kind_in(folder / LANDMARK_FOLDER, LANDMARK_GENERATORS)
    if encoder_name not in kind.encoders if kind.encoders else encoder_name in (WHISPER, DISTILLED_FOLDER):
        wanted = " or ".join(map(repr, kind.encoders)) or f"{WAV2VEC2_FOLDER!r} or a hub name"
        raise ModelError(f"the speech encoder of {folder} is {encoder_name!r}; expected {wanted} for a {name}")
    generator = kind.load(folder / LANDMARK_FOLDER)
    encoder = _load_encoder(folder, encoder_name)
    if encoder.feature_size != generator.config.features:
        sizes = f"{encoder.feature_size} features; expected {generator.config.features}"
        raise ModelError(f"the speech encoder {encoder_name!r} of {folder} gives {sizes}")
    return encoder, generator


def load_streaming_part(folder: Path, encoder_name: str) -> tuple[SpeechEncoder, LandmarkGenerator]:
    """The same of streaming mode, from the model folder. Raises as :func:`load_landmark_part` does."""
    place = folder / STREAMING_FOLDER
    encoder, generator = load_landmark_part(place, encoder_name)
    if not isinstance(generator, LandmarkGenerator):
        raise ModelError(f"{place} holds a {type(generator).__name__}; expected a LandmarkGenerator")
    return encoder, generator


def _load_encoder(folder: Path, name: str) -> SpeechEncoder:
    if name == WHISPER:
        return WhisperEncoder.from_package()
    if name == DISTILLED_FOLDER:
        return DISTILLED_ENCODER.load(folder / DISTILLED_FOLDER)
    if name != WAV2VEC2_FOLDER:
        return Wav2Vec2Encoder.from_pretrained(name)
    read_json(folder / WAV2VEC2_FOLDER / CONFIG_NAME)
    return Wav2Vec2Encoder.from_pretrained(folder / WAV2VEC2_FOLDER, use_safetensors=True)
