"""ATLDiffPipeline: a portrait and a speech recording in, a talking head out."""

import dataclasses
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
import torch

from atldiff._version import __version__
from atldiff.dub.dubber import MOUTH_FPS, DubbedVideo, dub_film
from atldiff.dub.options import DubOptions
from atldiff.dub.survey import survey_film
from atldiff.errors import InputError, ModelError
from atldiff.face.crop import CROP_SIZE, whole_crop
from atldiff.face.detection import FaceDetector, check_not_forked
from atldiff.face.portrait import Judge, prepare_portrait
from atldiff.face.prepared import PreparedPortrait, prepared
from atldiff.face.sitter import read_sitter
from atldiff.image.animator import FaceAnimator
from atldiff.image.animators import ImageNetwork
from atldiff.image.precision import network_type
from atldiff.image.scene import Scene, make_crop_scene, make_scene
from atldiff.landmarks.generator import LandmarkGenerator
from atldiff.landmarks.kfusion import KFusionGenerator
from atldiff.live.face import LiveFace
from atldiff.live.session import LiveSession, check_live
from atldiff.media.files import frame_rate
from atldiff.media.film import Film
from atldiff.models.image_part import UNET_FOLDER, load_image_network
from atldiff.models.landmark_part import (
    DISTILLED_FOLDER,
    LANDMARK_FOLDER,
    LANDMARK_PARTS,
    STREAMING_FOLDER,
    WAV2VEC2_FOLDER,
    WHISPER,
    SpeechEncoder,
    load_landmark_part,
)
from atldiff.motion.living import Motion
from atldiff.options import (
    AUTO_EMOTION,
    GenerationArguments,
    GenerationOptions,
    MotionArguments,
    OptionArguments,
)
from atldiff.results import FrameStream, Progress, TalkingHead
from atldiff.speech.activity import activity_threshold
from atldiff.speech.distilled import DistilledEncoder
from atldiff.speech.emotion import EmotionClassifier, EmotionClassifierConfig, classify_speech
from atldiff.speech.loudness import levelled_live
from atldiff.speech.text import Voice, spoken
from atldiff.speech.voices import DEFAULT_VOICE
from atldiff.speech.wav2vec2 import Wav2Vec2Encoder
from atldiff.speech.waveform import SAMPLE_RATE, Speech
from atldiff.speech.whisper import WhisperEncoder
from atldiff.storage.files import read_json, write_atomically, write_json
from atldiff.storage.parts import WEIGHTS_FOLDER, check_model_folder, load_part, make_config, save_part

DEFAULT_MODEL = "compact"
INDEX_NAME = "model_index.json"

PortraitInput = Any
"""What :func:`~atldiff.face.portrait.load_portrait` takes: a path, bytes, an open file, a picture, an array …"""

SpeechInput = Any
"""What :meth:`~atldiff.speech.waveform.Speech.coerce` takes: a path, bytes, an open file, an array and its rate …"""


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


class ATLDiffPipeline:
    """The whole path from a portrait and speech to frames (ATL-Diff, arXiv 2507.12804, figure 2).

    Load one with :meth:`from_pretrained` and call it; :meth:`stream` does the same in constant memory.
    """

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
        self.unet.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ATLDiffPipeline(preset {self.config.preset!r}, device {str(self.device)!r})"

    @classmethod
    def from_pretrained(
        cls, name_or_dir: str | Path = DEFAULT_MODEL, device: str | torch.device = "auto", precision: str = "auto"
    ) -> Self:
        """Load a pipeline.

        Args:
            name_or_dir: ``compact``, whose weights are in the package, or a folder that
                :meth:`save_pretrained` wrote.
            device: ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``, a ``torch.device``.
            precision: of the compact image network: ``auto`` (bfloat16 where the device multiplies it by itself),
                ``float32`` or ``bfloat16``.

        Raises:
            ModelError: no such model, or a part of it is missing, corrupt or of the wrong shape.
            InputError: the device is unknown or not there, or the precision is unknown.
        """
        folder = model_folder(name_or_dir)
        check_model_folder(folder)
        index = read_json(folder / INDEX_NAME)
        if not isinstance(index, dict) or index.get("_class_name") != cls.__name__:
            raise ModelError(f"{folder / INDEX_NAME} does not describe an {cls.__name__}")
        known = {key: value for key, value in index.items() if not key.startswith("_")}
        config = make_config(folder / INDEX_NAME, known, PipelineConfig)
        GenerationOptions(steps=config.steps)
        encoder, generator = load_landmark_part(folder, config.speech_encoder)
        name = config.streaming_encoder
        streaming = load_landmark_part(folder / STREAMING_FOLDER, name) if name else None
        unet = load_image_network(folder)
        classifier = load_part(folder / "emotion_classifier", EmotionClassifier, EmotionClassifierConfig)
        pipeline = cls(encoder, generator, unet, classifier, config, device, streaming, precision)
        pipeline._notices = {path.relative_to(folder): path.read_text() for path in folder.rglob("*.md")}
        return pipeline

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``model_index.json``, the licences, and one folder a part: configuration and weights in fp16."""
        folder = Path(folder)
        for place, encoder, generator in self._landmark_parts(folder):
            save_part(place / LANDMARK_FOLDER, generator, generator.config)
            if isinstance(encoder, DistilledEncoder):
                save_part(place / DISTILLED_FOLDER, encoder, encoder.config)
        if isinstance(self.speech_encoder, Wav2Vec2Encoder) and self.config.speech_encoder == WAV2VEC2_FOLDER:
            self.speech_encoder.save_pretrained(folder / WAV2VEC2_FOLDER)
        save_part(folder / UNET_FOLDER, self.unet, self.unet.config)
        save_part(folder / "emotion_classifier", self.emotion_classifier, self.emotion_classifier.config)
        for path, text in self._notices.items():
            write_atomically(folder / path, text.encode())
        settings = {"preset": self.config.preset, "steps": self.config.steps}
        settings |= {"speech_encoder": self.config.speech_encoder, "streaming_encoder": self.config.streaming_encoder}
        about = {"_class_name": type(self).__name__, "_atldiff_version": __version__}
        write_json(folder / INDEX_NAME, about | settings)

    def __call__(
        self,
        portrait: PortraitInput,
        speech: SpeechInput | None = None,
        *,
        text: str | Iterable[str] | None = None,
        voice: Voice = DEFAULT_VOICE,
        progress: Progress | None = None,
        **options: Unpack[OptionArguments],
    ) -> TalkingHead:
        """Make the whole video in memory.

        Args:
            progress: called with (frames done, frames in all) after each frame.
            portrait, speech, text, voice, options: those of :meth:`stream`.
        """
        stream = self.stream(portrait, speech, text=text, voice=voice, **options)
        frames = np.empty((stream.frames, stream.height, stream.width, 3), dtype=np.uint8)
        for index, frame in enumerate(stream):
            frames[index] = frame
            if progress is not None:
                progress(index + 1, stream.frames)
        return TalkingHead(frames, stream.fps, stream.audio, stream.seed)

    def stream(
        self,
        portrait: PortraitInput,
        speech: SpeechInput | None = None,
        *,
        text: str | Iterable[str] | None = None,
        voice: Voice = DEFAULT_VOICE,
        fps: float = 25.0,
        steps: int | None = None,
        seed: int | None = None,
        emotion: str = "neutral",
        intensity: float = 0.5,
        head_motion: float = GenerationOptions.head_motion,
        blink: str = "auto",
        mouth: float = 1.0,
        look_ahead_s: float | None = None,
        face: int | None = None,
        crop_only: bool = False,
        max_size: int | None = None,
        aspect: str | None = None,
        background: str | None = None,
        sample_rate: float | None = None,
        audio_track: int | None = None,
    ) -> FrameStream:
        """Make the video frame by frame, in constant memory whatever its length.

        Args:
            portrait: a picture (path, bytes, open file, array, tensor or Pillow image), or a video with a face in it,
                see :func:`~atldiff.face.portrait.load_portrait`; or what :meth:`prepare` gave, or its file.
            speech: a recording (path, bytes, open file, array, ``(rate, array)``, a data set's dictionary …), see
                :meth:`~atldiff.speech.waveform.Speech.coerce`.
            text: what is to be said, whole or in pieces, in the place of ``speech``.
            voice: says it: a name of the extra ``tts``, or any callable text → samples, rate in Hz.
            fps: frames per second, 1 to 120.
            steps: sampler steps, 1 to 64; the model's default if None.
            seed: the same seed gives the same frames; None draws one from what is in portrait and speech.
            emotion: one of :data:`~atldiff.options.EMOTIONS`, or ``auto`` to hear it from the speech.
            intensity: strength of the expression, 0 to 1.
            head_motion: strength of the head's own motion, 0 (still) to 1.
            blink: ``auto``, or ``off`` for eyes that stay as they are.
            mouth: how far the mouth moves with the speech, 0 (shut) to 1.5; 1 as predicted.
            look_ahead_s: streaming mode: seconds of the following sound that a frame's landmarks may hear, 0.08 to 1.
            face: which face, counted from the left from 1; the largest if None.
            crop_only: give the square face crop, of the image network's ``picture_size``, not the whole portrait.
            max_size: longest side of the video in pixels, 64 to 4096; 1920 if None.
            aspect: cut the portrait to this shape around the face: ``9:16``, ``1:1``, ``16:9`` …
            background: behind a transparent portrait: a colour, ``blur`` or ``keep``; mid-grey if None.
            sample_rate: of speech that is an array, in Hz.
            audio_track: which sound track of a file, from 1; the file's default if None.

        Raises:
            InputError: an argument cannot be used; the text says which and what was expected.
            FaceError: no usable face in the portrait.
        """
        options = self._options(
            fps=fps,
            steps=steps,
            seed=seed,
            emotion=emotion,
            intensity=intensity,
            head_motion=head_motion,
            blink=blink,
            mouth=mouth,
            look_ahead_s=look_ahead_s,
        )
        audio = _speech_or_text(speech, text, voice, sample_rate, audio_track)
        sitter = read_sitter(*self._judged(portrait), face, max_size, aspect, background)
        options = self._with_heard_emotion(sitter.settle(options, seed, audio.digest), audio)
        scene = self._scene(sitter.picture, sitter.landmarks, options, crop_only)
        coming: deque[np.ndarray] = deque()

        def landmark_blocks() -> Iterator[np.ndarray]:
            for block in self._landmarks(scene.points, audio, options):
                coming.extend(scene.place(block))
                yield block

        return FrameStream(
            width=scene.width,
            height=scene.height,
            fps=options.fps,
            frames=audio.frames_at(options.fps),
            audio=audio,
            emotion=options.emotion,
            seed=options.seed,
            portrait_size=sitter.read_size,
            _pictures=scene.pictures(scene.animator.stream(landmark_blocks())),
            _coming=coming,
        )

    def prepare(
        self, portrait: PortraitInput, *, face: int | None = None, background: str | None = None
    ) -> PreparedPortrait:
        """Find the face in a portrait once, for all the videos to come; ``.save("face.atl")`` keeps it.

        Args:
            portrait, face, background: as for :meth:`stream`.

        Raises:
            InputError: the portrait cannot be used.
            FaceError: no usable face in it.
        """
        return prepare_portrait(portrait, self._face_detector, face, background)

    def live(
        self,
        portrait: PortraitInput,
        *,
        sample_rate: int = SAMPLE_RATE,
        max_delay_s: float | None = 1.0,
        idle_s: float | None = 0.3,
        look_ahead_s: float = 0.2,
        face: int | None = None,
        crop_only: bool = False,
        max_size: int | None = None,
        aspect: str | None = None,
        background: str | None = None,
        **options: Unpack[MotionArguments],
    ) -> LiveSession:
        """Start a live session: it takes sound as it comes and gives frames while it is still being spoken.

        Args:
            portrait: as for :meth:`stream`.
            sample_rate: of the sound that will be fed, in Hz.
            max_delay_s: frames later than this are dropped, see :class:`~atldiff.live.session.LiveSession`; None
                keeps all.
            idle_s: seconds without sound after which silence is put in its place, so that the face goes on living;
                None waits for sound for ever.
            look_ahead_s: seconds of the following sound that a frame waits for, 0.08 to 1.
            face, crop_only, max_size, aspect, background: as for :meth:`stream`.
            options: those of :meth:`stream` that say how the face moves; no ``auto`` emotion, which needs a whole
                recording.

        Raises:
            InputError: an argument cannot be used, or the image network is one that works in long clips.
            FaceError: no usable face in the portrait.
        """
        settled = self._options(look_ahead_s=look_ahead_s, **options)
        check_live(settled, sample_rate, max_delay_s, idle_s)
        sitter = read_sitter(*self._judged(portrait), face, max_size, aspect, background)
        settled = sitter.settle(settled, options.get("seed"))
        scene = self._scene(sitter.picture, sitter.landmarks, settled, crop_only)
        if not isinstance(scene.animator, FaceAnimator):
            raise InputError(f"preset {self.config.preset} makes frames in long clips; expected compact for live use")
        motion = self._motion(scene.points, None, settled)
        living = LiveFace(motion, scene.animator, scene.pictures, settled.fps, sample_rate)
        if max_delay_s is not None:
            living.catch_up()
        return LiveSession(living, scene.width, scene.height, max_delay_s, idle_s)

    def dub(
        self,
        video: str | Path,
        speech: SpeechInput | None = None,
        *,
        text: str | Iterable[str] | None = None,
        voice: Voice = DEFAULT_VOICE,
        longer: str = DubOptions.longer,
        shorter: str = DubOptions.shorter,
        background: float = DubOptions.background,
        mouth: float = GenerationOptions.mouth,
        face: int | None = None,
        sample_rate: float | None = None,
        audio_track: int | None = None,
        progress: Progress | None = None,
    ) -> DubbedVideo:
        """Put other words into the mouth of a person in a video; everything else in it stays.

        The video is read once before this returns; its frames are made as they are asked for, in constant memory.

        Args:
            video: a file with a face in it.
            speech, text, voice, mouth, sample_rate, audio_track: as for :meth:`stream`.
            longer: for a speech longer than the video: ``hold`` (its last second is played to and fro), ``loop`` or
                ``error``.
            shorter: for a shorter one: ``keep`` (the mouth rests to the end) or ``cut``.
            background: how loud the video's own sound is under the speech, 0 to 1.
            face: which face of the first frame that shows one, counted from the left from 1; the largest if None.
            progress: called with (frames read, frames in all, or about) at the first reading.

        Raises:
            InputError: the video cannot be read, or an argument cannot be used.
            FaceError: no face in it that can be dubbed.
        """
        asked = DubOptions(longer, shorter, background, face)
        settled = self._options(fps=MOUTH_FPS, head_motion=0.0, blink="off", mouth=mouth)
        film = Film.open(video)
        audio = _speech_or_text(speech, text, voice, sample_rate, audio_track)
        survey = survey_film(film, self._face_detector(), face, progress)
        return dub_film(film, survey, audio, lambda rest: self._landmarks(rest, audio, settled), asked)

    def talk(
        self,
        identity: np.ndarray,
        identity_landmarks: np.ndarray,
        speech: SpeechInput,
        **options: Unpack[GenerationArguments],
    ) -> np.ndarray:
        """A face crop with known landmarks and speech → frames of the crop, without any detection.

        Args:
            identity: (S, S, 3) uint8 crop, see :func:`atldiff.face.crop.face_crop`.
            identity_landmarks: (68, 2) its landmarks, pixels of the crop as given.
            speech: as for :meth:`stream`.
            options: those of :meth:`stream`; here ``head_motion`` is 0 and ``blink`` off unless given.

        Returns:
            (F, S, S, 3) uint8, what ``stream(crop_only=True)`` gives for the same options, a crop of
            ``picture_size`` of the image network, and landmarks that
            :func:`atldiff.image.mouth.settle.settle_lips` has laid on the portrait's lips.

        Raises:
            InputError: an argument cannot be used.
        """
        audio, settled = self._settle(speech, options)
        scale = len(identity) / CROP_SIZE
        landmarks = scale * np.concatenate(list(self._landmarks(identity_landmarks / scale, audio, settled)))
        return self.animate(identity, identity_landmarks, landmarks, settled.steps, settled.seed, settled.emotion)

    def speech_landmarks(
        self, identity_landmarks: np.ndarray, speech: SpeechInput, **options: Unpack[GenerationArguments]
    ) -> np.ndarray:
        """The landmark part alone, for a face of 128 crop pixels.

        Args:
            identity_landmarks: (68, 2) crop pixels.
            speech, options: as for :meth:`talk`.

        Returns:
            (F, 68, 2) float32 crop pixels.
        """
        audio, settled = self._settle(speech, options)
        return np.concatenate(list(self._landmarks(identity_landmarks, audio, settled)))

    def animate(
        self,
        identity: np.ndarray,
        identity_landmarks: np.ndarray,
        landmarks: np.ndarray,
        steps: int | None = None,
        seed: int = 0,
        emotion: str = "neutral",
    ) -> np.ndarray:
        """The image part alone: a face crop and given landmarks → frames of the crop.

        Args:
            identity: (S, S, 3) uint8 crop, see :func:`atldiff.face.crop.face_crop`.
            identity_landmarks: (68, 2) its landmarks, pixels of the crop as given.
            landmarks: (F, 68, 2) the frames' landmarks, pixels of the crop as given.
            steps: sampler steps; 0 gives the warped crop without the network, None the model's default.
            seed: the same seed gives the same frames.
            emotion: class label for a network that takes one; no ``auto``.

        Returns:
            (F, S, S, 3) uint8.
        """
        steps = self.config.steps if steps is None else steps
        scene = make_crop_scene(self.unet, identity, identity_landmarks, steps, seed, emotion, self._precision)
        points = whole_crop(len(identity)).to_crop(landmarks)
        return np.stack(list(scene.pictures(scene.animator.stream([points]))))

    def close(self) -> None:
        """Free the face detector; the pipeline makes a new one if it is used again."""
        if self._detector is not None:
            self._detector.close()
            self._detector = None

    def _options(self, steps: int | None = None, seed: int | None = None, **given: Any) -> GenerationOptions:
        """The options checked, the model's own steps where none are given, the frame rate exact."""
        check_not_forked(self._process, "pipeline")
        own = {"steps": self.config.steps if steps is None else steps, "seed": 0 if seed is None else seed}
        options = GenerationOptions(**own, **given)
        return dataclasses.replace(options, fps=float(frame_rate(options.fps)))

    def _settle(self, speech: SpeechInput, options: GenerationArguments) -> tuple[Speech, GenerationOptions]:
        """The sound, and the options of :meth:`talk`, checked, with the emotion heard if that was asked for."""
        still: GenerationArguments = {"head_motion": 0.0, "blink": "off"}
        audio = Speech.coerce(speech)
        return audio, self._with_heard_emotion(self._options(**{**still, **options}), audio)

    def _with_heard_emotion(self, options: GenerationOptions, audio: Speech) -> GenerationOptions:
        if options.emotion != AUTO_EMOTION:
            return options
        encoder = self.speech_encoder
        if not isinstance(encoder, WhisperEncoder):
            encoder = WhisperEncoder.from_package().to(self.device)
        heard, _ = classify_speech(self.emotion_classifier, encoder, audio.blocks())
        return dataclasses.replace(options, emotion=heard)

    def _landmarks(self, identity: np.ndarray, audio: Speech, options: GenerationOptions) -> Iterator[np.ndarray]:
        """Blocks of the frames' landmarks for identity landmarks in crop pixels."""
        threshold = None if options.look_ahead_s else activity_threshold(audio.levelled_blocks())
        blocks = levelled_live(audio.blocks()) if options.look_ahead_s else audio.levelled_blocks()
        return self._motion(identity, threshold, options).landmarks(blocks, audio.frames_at(options.fps))

    def _motion(self, identity: np.ndarray, threshold: float | None, options: GenerationOptions) -> Motion:
        encoder, generator = self.speech_encoder, self.landmark_generator
        if options.look_ahead_s and self.streaming:
            encoder, generator = self.streaming
        motion_class = LANDMARK_PARTS[type(generator).__name__].motion
        return motion_class(encoder, generator, identity, threshold, options)

    def _landmark_parts(self, folder: Path) -> Iterator[tuple[Path, SpeechEncoder, Any]]:
        """Where in ``folder`` each landmark part belongs, its encoder and its generator."""
        yield folder, self.speech_encoder, self.landmark_generator
        if self.streaming:
            yield folder / STREAMING_FOLDER, *self.streaming

    def _scene(
        self, picture: np.ndarray, landmarks: np.ndarray, options: GenerationOptions, crop_only: bool
    ) -> Scene:
        return make_scene(self.unet, picture, landmarks, options, crop_only, self._precision)

    def _judged(self, portrait: PortraitInput) -> tuple[PortraitInput, Judge]:
        """A portrait, and what finds its face: a prepared one needs no detector."""
        known = prepared(portrait)
        return (portrait, self._face_detector()) if known is None else (known.picture, known)

    def _face_detector(self) -> FaceDetector:
        if self._detector is None:
            self._detector = FaceDetector()
        return self._detector


def model_folder(name_or_dir: str | Path) -> Path:
    """Where a model lies, see :meth:`ATLDiffPipeline.from_pretrained`. Raises ModelError."""
    packaged = WEIGHTS_FOLDER / str(name_or_dir)
    if str(name_or_dir) == DEFAULT_MODEL and packaged.is_dir():
        return packaged
    folder = Path(name_or_dir)
    if not folder.is_dir():
        raise ModelError(f"no model {str(name_or_dir)!r}: expected {DEFAULT_MODEL!r} or a folder with {INDEX_NAME}")
    return folder


def _speech_or_text(
    speech: SpeechInput | None, text: str | Iterable[str] | None, voice: Voice, rate: float | None, track: int | None
) -> Speech:
    if speech is not None and text is not None:
        raise InputError("got speech and text; expected one of them")
    if text is not None:
        return spoken(text, voice)
    if speech is None:
        raise InputError("got neither speech nor text; expected one of them")
    return Speech.coerce(speech, rate, track)


def choose_device(device: str | torch.device) -> torch.device:
    """The device of a name, see :meth:`ATLDiffPipeline.from_pretrained`. Raises InputError: unknown, or not there."""
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if counts[kind]))
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"unknown device {device!r}; expected auto, cpu, cuda, cuda:1 … or mps") from error
    if chosen.type not in counts:
        raise InputError(f"unknown device {str(device)!r}; expected auto, cpu, cuda, cuda:1 … or mps")
    if (chosen.index or 0) >= counts[chosen.type]:
        raise InputError(f"device {str(device)!r} is not available on this machine; use auto or cpu")
    return chosen
