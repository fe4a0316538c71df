"""A whole model folder: its parts, their licences, and what ``model_index.json`` says of them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from atldiff._version import __version__
from atldiff.errors import ModelError
from atldiff.image.animators import ImageNetwork
from atldiff.landmarks.generator import LandmarkGenerator
from atldiff.models.registry import (
    DISTILLED_FOLDER,
    EMOTION_CLASSIFIER,
    EMOTION_FOLDER,
    LANDMARK_FOLDER,
    STREAMING_FOLDER,
    UNET_FOLDER,
    WAV2VEC2_FOLDER,
    WHISPER,
    AnyLandmarkGenerator,
    SpeechEncoder,
    load_image_network,
    load_landmark_part,
    load_streaming_part,
)
from atldiff.options import GenerationOptions
from atldiff.speech.distilled import DistilledEncoder
from atldiff.speech.emotion import EmotionClassifier
from atldiff.speech.wav2vec2 import Wav2Vec2Encoder
from atldiff.storage.files import read_json, write_atomically, write_json
from atldiff.storage.parts import WEIGHTS_FOLDER, check_model_folder, make_config, save_part

DEFAULT_MODEL = "compact"
INDEX_NAME = "model_index.json"


@dataclass(frozen=True)
class PipelineConfig:
    """What ``model_index.json`` says besides the parts.

    Attributes:
        preset: name of the preset.
        steps: sampler steps where the caller names none.
        speech_encoder: ``whisper-tiny.en``, which comes with a dependency; ``speech_encoder`` (the project's own) or
            ``wav2vec2`` for the folder of that name in the model's; or a hub name of wav2vec2.
        streaming_encoder: the same for the landmark part in the folder ``streaming``, which streaming mode uses;
            empty where there is none.
    """

    preset: str = "compact"
    steps: int = 1
    speech_encoder: str = WHISPER
    streaming_encoder: str = ""


@dataclass(frozen=True)
class Model:
    """The parts of a model.

    Attributes:
        speech_encoder, landmark_generator: what hears, and what makes landmarks of what is heard.
        unet: the image network.
        emotion_classifier: hears the emotion of speech.
        config: what the index says.
        streaming: the encoder and the generator of streaming mode, where it has its own.
        notices: licences and model cards, by their place in the folder.
    """

    speech_encoder: SpeechEncoder
    landmark_generator: AnyLandmarkGenerator
    unet: ImageNetwork
    emotion_classifier: EmotionClassifier
    config: PipelineConfig
    streaming: tuple[SpeechEncoder, LandmarkGenerator] | None = None
    notices: dict[Path, str] = field(default_factory=dict)


def model_folder(name_or_dir: str | Path) -> Path:
    """Where a model lies, see :meth:`~atldiff.pipeline.ATLDiffPipeline.from_pretrained`. Raises ModelError."""
    packaged = WEIGHTS_FOLDER / str(name_or_dir)
    if str(name_or_dir) == DEFAULT_MODEL and packaged.is_dir():
        return packaged
    folder = Path(name_or_dir)
    if not folder.is_dir():
        raise ModelError(f"no model {str(name_or_dir)!r}: expected {DEFAULT_MODEL!r} or a folder with {INDEX_NAME}")
    return folder


def load_model(name_or_dir: str | Path, class_name: str) -> Model:
    """Read all parts of a model, on the CPU.

    Args:
        class_name: of the pipeline that the index must be of.

    Raises:
        ModelError: no such model, or a part of it is missing, corrupt or of the wrong shape.
    """
    folder = model_folder(name_or_dir)
    check_model_folder(folder)
    index = read_json(folder / INDEX_NAME)
    if not isinstance(index, dict) or index.get("_class_name") != class_name:
        raise ModelError(f"{folder / INDEX_NAME} does not describe an {class_name}")
    known = {key: value for key, value in index.items() if not key.startswith("_")}
    config = make_config(folder / INDEX_NAME, known, PipelineConfig)
    GenerationOptions(steps=config.steps)
    encoder, generator = load_landmark_part(folder, config.speech_encoder)
    name = config.streaming_encoder
    return Model(
        speech_encoder=encoder,
        landmark_generator=generator,
        streaming=load_streaming_part(folder, name) if name else None,
        unet=load_image_network(folder),
        emotion_classifier=EMOTION_CLASSIFIER.load(folder / EMOTION_FOLDER),
        config=config,
        notices={path.relative_to(folder): path.read_text() for path in folder.rglob("*.md")},
    )


def save_model(model: Model, folder: Path, class_name: str) -> None:
    """Write the index, the licences, and one folder a part: configuration and weights in fp16."""
    for place, encoder, generator in _landmark_parts(model, folder):
        save_part(place / LANDMARK_FOLDER, generator, generator.config)
        if isinstance(encoder, DistilledEncoder):
            save_part(place / DISTILLED_FOLDER, encoder, encoder.config)
    encoder, config = model.speech_encoder, model.config
    if isinstance(encoder, Wav2Vec2Encoder) and config.speech_encoder == WAV2VEC2_FOLDER:
        encoder.save_pretrained(folder / WAV2VEC2_FOLDER)
    save_part(folder / UNET_FOLDER, model.unet, model.unet.config)
    save_part(folder / EMOTION_FOLDER, model.emotion_classifier, model.emotion_classifier.config)
    for path, text in model.notices.items():
        write_atomically(folder / path, text.encode())
    about = {"_class_name": class_name, "_atldiff_version": __version__}
    write_json(folder / INDEX_NAME, about | asdict(config))


def _landmark_parts(model: Model, folder: Path) -> Iterator[tuple[Path, SpeechEncoder, AnyLandmarkGenerator]]:
    """Where in ``folder`` each landmark part belongs, its encoder and its generator."""
    yield folder, model.speech_encoder, model.landmark_generator
    if model.streaming:
        yield folder / STREAMING_FOLDER, *model.streaming
