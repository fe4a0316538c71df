"""ATLDiffPipeline: a portrait and a speech recording in, a talking head out."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from atldiff.dub.dubber import MOUTH_FPS, DubbedVideo, dub_film
from atldiff.dub.options import DubOptions
from atldiff.dub.survey import survey_film
from atldiff.errors import InputError
from atldiff.face.crop import CROP_SIZE, whole_crop
from atldiff.face.detection import check_not_forked
from atldiff.face.portrait import prepare_portrait
from atldiff.face.prepared import PreparedPortrait
from atldiff.face.sitter import read_sitter
from atldiff.image.animator import FaceAnimator
from atldiff.image.scene import Scene, make_crop_scene, make_scene
from atldiff.image.unet import IdentityDiffusionUNet
from atldiff.live.face import LiveFace
from atldiff.live.session import LiveSession, check_live
from atldiff.media.files import frame_rate
from atldiff.media.film import Film
from atldiff.media.framing import check_framing
from atldiff.models.pretrained import PretrainedPipeline
from atldiff.models.registry import LANDMARK_GENERATORS
from atldiff.motion.living import Motion
from atldiff.options import AUTO_EMOTION, GenerationArguments, GenerationOptions, MotionArguments, OptionArguments
from atldiff.results import Frame, FrameStream, Progress, TalkingHead
from atldiff.speech.activity import activity_threshold
from atldiff.speech.emotion import classify_speech
from atldiff.speech.loudness import levelled_live
from atldiff.speech.text import Voice, speech_or_text
from atldiff.speech.voices import DEFAULT_VOICE
from atldiff.speech.waveform import SAMPLE_RATE, Speech

PortraitInput = Any
"""What :func:`~atldiff.face.portrait.load_portrait` takes: a path, bytes, an open file, a picture, an array …"""

SpeechInput = Any
"""What :meth:`~atldiff.speech.waveform.Speech.coerce` takes: a path, bytes, an open file, an array and its rate …"""


class ATLDiffPipeline(PretrainedPipeline):
    """The whole path from a portrait and speech to frames (ATL-Diff, arXiv 2507.12804, figure 2).

    Load one with :meth:`from_pretrained` and call it; :meth:`stream` does the same in constant memory.
    """

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
        audio = speech_or_text(speech, text, voice, sample_rate, audio_track)
        sitter = read_sitter(*self._judged(portrait), face, max_size, aspect, background)
        options = self._with_heard_emotion(sitter.fitted_options(options, seed, audio.digest), audio)
        scene = make_scene(self.unet, sitter.picture, sitter.landmarks, options, crop_only, self._precision)
        return FrameStream(
            width=scene.width,
            height=scene.height,
            fps=options.fps,
            frames=audio.frames_at(options.fps),
            audio=audio,
            emotion=options.emotion,
            seed=options.seed,
            portrait_size=sitter.read_size,
            _made=self._frames(scene, audio, options),
        )

    def _frames(self, scene: Scene, audio: Speech, options: GenerationOptions) -> Iterator[Frame]:
        """The way through the paper: speech → landmarks → guided noise → frames."""
        # Landmark Generation Module: atldiff.landmarks predicts what is spoken, atldiff.motion acts the rest
        blocks = self._landmarks(scene.points, audio, options)
        # Landmarks-Guide Noise and 3D Identity Diffusion U-Net meet in atldiff.image.animator; the scene puts the
        # face back into its portrait
        for number, (picture, landmarks) in enumerate(scene.frames(blocks)):
            yield Frame(number, number / options.fps, picture, landmarks)

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
        check_framing(face=face, background=background)
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
        if not isinstance(self.unet, IdentityDiffusionUNet):
            raise InputError(f"preset {self.config.preset} makes frames in long clips; expected compact for live use")
        motion_options = self._options(look_ahead_s=look_ahead_s, **options)
        check_live(motion_options, sample_rate, max_delay_s, idle_s)
        sitter = read_sitter(*self._judged(portrait), face, max_size, aspect, background)
        motion_options = sitter.fitted_options(motion_options, options.get("seed"))
        scene = make_scene(self.unet, sitter.picture, sitter.landmarks, motion_options, crop_only, self._precision)
        assert isinstance(scene.animator, FaceAnimator)
        motion = self._motion(scene.points, None, motion_options)
        living = LiveFace(motion, scene.animator, scene.pictures, scene.place, motion_options.fps, sample_rate)
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
        old_sound: float = DubOptions.old_sound,
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
            old_sound: how loud the video's own sound is under the speech, 0 to 1.
            face: which face of the first frame that shows one, counted from the left from 1; the largest if None.
            progress: called with (frames read, frames in all, or about) at the first reading.

        Raises:
            InputError: the video cannot be read, or an argument cannot be used.
            FaceError: no face in it that can be dubbed.
        """
        asked = DubOptions(longer, shorter, old_sound, face)
        spoken = self._options(fps=MOUTH_FPS, head_motion=0.0, blink="off", mouth=mouth)
        film = Film.open(video)
        audio = speech_or_text(speech, text, voice, sample_rate, audio_track)
        survey = survey_film(film, self._face_detector(), face, progress)
        return dub_film(film, survey, audio, lambda rest: self._landmarks(rest, audio, spoken, rest), asked)

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
            options: those of :meth:`stream`; here ``head_motion`` and ``seed`` are 0 and ``blink`` off unless given.

        Returns:
            (F, S, S, 3) uint8, what ``stream(crop_only=True)`` gives for the same options, a crop of
            ``picture_size`` of the image network, and landmarks that
            :func:`atldiff.image.mouth.settle.settle_lips` has laid on the portrait's lips.

        Raises:
            InputError: an argument cannot be used.
        """
        audio, checked = self._audio_and_options(speech, options)
        scale = len(identity) / CROP_SIZE
        landmarks = scale * np.concatenate(list(self._landmarks(identity_landmarks / scale, audio, checked)))
        return self.animate(identity, identity_landmarks, landmarks, checked.steps, checked.seed, checked.emotion)

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
        audio, checked = self._audio_and_options(speech, options)
        return np.concatenate(list(self._landmarks(identity_landmarks, audio, checked)))

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

        Raises:
            InputError: an argument cannot be used.
        """
        landmarks = np.asarray(landmarks)
        if landmarks.ndim != 3 or landmarks.shape[1:] != (68, 2) or not len(landmarks):
            raise InputError(f"landmarks are of shape {landmarks.shape}; expected (F, 68, 2) with a frame or more")
        if emotion == AUTO_EMOTION:
            raise InputError(
                f"emotion is {emotion!r}, which hears speech; expected a name where there is none", "emotion"
            )
        checked = self._options(steps=steps or None, emotion=emotion)
        steps = 0 if steps == 0 else checked.steps
        scene = make_crop_scene(self.unet, identity, identity_landmarks, steps, seed, emotion, self._precision)
        points = whole_crop(len(identity)).to_crop(landmarks)
        return np.stack(list(scene.pictures(scene.animator.stream([points]))))

    def _options(self, steps: int | None = None, seed: int | None = None, **given: Any) -> GenerationOptions:
        """The options checked, the model's own steps where none are given, the frame rate exact."""
        check_not_forked(self._process, "pipeline")
        own = {"steps": self.config.steps if steps is None else steps, "seed": 0 if seed is None else seed}
        options = GenerationOptions(**own, **given)
        return dataclasses.replace(options, fps=float(frame_rate(options.fps)))

    def _audio_and_options(
        self, speech: SpeechInput, options: GenerationArguments
    ) -> tuple[Speech, GenerationOptions]:
        """The sound, and the options of :meth:`talk`, checked, with the emotion heard if that was asked for."""
        still: GenerationArguments = {"head_motion": 0.0, "blink": "off"}
        audio = Speech.coerce(speech)
        return audio, self._with_heard_emotion(self._options(**{**still, **options}), audio)

    def _with_heard_emotion(self, options: GenerationOptions, audio: Speech) -> GenerationOptions:
        if options.emotion != AUTO_EMOTION:
            return options
        heard, _ = classify_speech(self.emotion_classifier, self._emotion_encoder(), audio.blocks())
        return dataclasses.replace(options, emotion=heard)

    def _landmarks(
        self, identity: np.ndarray, audio: Speech, options: GenerationOptions, speaking: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Blocks of the frames' landmarks for identity landmarks, and those of the speaking face, in crop pixels."""
        threshold = None if options.look_ahead_s else activity_threshold(audio.levelled_blocks())
        blocks = levelled_live(audio.blocks()) if options.look_ahead_s else audio.levelled_blocks()
        return self._motion(identity, threshold, options, speaking).landmarks(blocks, audio.frames_at(options.fps))

    def _motion(
        self,
        identity: np.ndarray,
        threshold: float | None,
        options: GenerationOptions,
        speaking: np.ndarray | None = None,
    ) -> Motion:
        encoder, generator = self.speech_encoder, self.landmark_generator
        if options.look_ahead_s and self.streaming:
            encoder, generator = self.streaming
        motion_class = LANDMARK_GENERATORS[type(generator).__name__].motion
        return motion_class(encoder, generator, identity, threshold, options, speaking)
