"""The parts of a model on a device, read from a folder and written to one; the pipeline is what they do together."""

import os
from pathlib import Path
from typing import Any, Self

import torch

from atldiff.errors import at_fault
from atldiff.face.detection import FaceDetector
from atldiff.face.portrait import Judge
from atldiff.face.prepared import prepared
from atldiff.image.animators import ImageNetwork
from atldiff.image.precision import network_type
from atldiff.landmarks.generator import LandmarkGenerator
from atldiff.landmarks.kfusion import KFusionGenerator
from atldiff.models.device import choose_device
from atldiff.models.loading import DEFAULT_MODEL, Model, PipelineConfig, load_model, save_model
from atldiff.models.registry import SpeechEncoder
from atldiff.speech.emotion import EmotionClassifier
from atldiff.speech.whisper import WhisperEncoder


class PretrainedPipeline:
    """The parts of a pipeline: what hears, what makes landmarks, what makes pictures, what finds faces."""

    def __init__(
        self,
        speech_encoder: SpeechEncoder,
        landmark_generator: LandmarkGenerator | KFusionGenerator,
        unet: ImageNetwork,
        emotion_classifier: EmotionClassifier,
        config: PipelineConfig | None = None,
        device: str | torch.device = "auto",
        streaming: tuple[SpeechEncoder, LandmarkGenerator] | None = None,
        precision: str = "auto",
    ) -> None:
        self.config = config or PipelineConfig()
        self.speech_encoder, self.landmark_generator = speech_encoder.eval(), landmark_generator.eval()
        self.streaming = streaming and (streaming[0].eval(), streaming[1].eval())
        self.unet, self.emotion_classifier = unet.eval(), emotion_classifier.eval()
        self._precision = precision
        self._detector: FaceDetector | None = None
        self._whisper: WhisperEncoder | None = None
        self._notices: dict[Path, str] = {}
        self._process = os.getpid()
        self.to(device)

    def to(self, device: str | torch.device) -> Self:
        """Move all parts to a device, see :meth:`from_pretrained`. Raises InputError: unknown, or not there."""
        self.device = choose_device(device)
        network_type(self._precision, self.device)
        parts = [self.speech_encoder, self.landmark_generator, self.emotion_classifier, *(self.streaming or ())]
        for part in parts:
            part.to(self.device)
        if self._whisper is not None:
            self._whisper.to(self.device)
        self.unet.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(preset {self.config.preset!r}, device {str(self.device)!r})"

    @classmethod
    def from_pretrained(
        cls, name_or_dir: str | Path = DEFAULT_MODEL, device: str | torch.device = "auto", precision: str = "auto"
    ) -> Self:
        """Load a pipeline.

        Args:
            name_or_dir: ``compact``, whose weights are in the package, or a folder that
                :meth:`save_pretrained` wrote.
            device: ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``, a ``torch.device``.
            precision: of the compact image network: ``float32``, ``bfloat16``, ``int8`` (its convolutions, on CPUs
                with AVX-512 VNNI), or ``auto``: the quickest of them that the device multiplies by itself.

        Raises:
            ModelError: no such model, or a part of it is missing, corrupt or of the wrong shape.
            InputError: the device is unknown or not there, or the precision is unknown.
        """
        model = load_model(name_or_dir, cls.__name__)
        parts = (model.speech_encoder, model.landmark_generator, model.unet, model.emotion_classifier)
        pipeline = cls(*parts, model.config, device, model.streaming, precision)
        pipeline._notices = model.notices
        return pipeline

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``model_index.json``, the licences, and one folder a part: configuration and weights in fp16."""
        model = Model(
            self.speech_encoder,
            self.landmark_generator,
            self.unet,
            self.emotion_classifier,
            self.config,
            self.streaming,
            self._notices,
        )
        save_model(model, Path(folder), type(self).__name__)

    def close(self) -> None:
        """Free the face detector; the pipeline makes a new one if it is used again."""
        if self._detector is not None:
            self._detector.close()
            self._detector = None

    def _judged(self, portrait: Any) -> tuple[Any, Judge]:
        """A portrait, and what finds its face: a prepared one needs no detector."""
        with at_fault("portrait"):
            known = prepared(portrait)
        return (portrait, self._face_detector()) if known is None else (known.picture, known)

    def _emotion_encoder(self) -> WhisperEncoder:
        """What the emotion is heard with: the speech encoder itself, or one that is read at the first need."""
        if isinstance(self.speech_encoder, WhisperEncoder):
            return self.speech_encoder
        if self._whisper is None:
            self._whisper = WhisperEncoder.from_package().to(self.device)
        return self._whisper

    def _face_detector(self) -> FaceDetector:
        if self._detector is None:
            self._detector = FaceDetector()
        return self._detector
