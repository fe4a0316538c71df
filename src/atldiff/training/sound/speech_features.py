"""Speech features of the training clips, computed once and kept: the sound as it is, and changed in many ways.

A clip that was cut out of longer speech must not be recognised by its cut ends: a generator that hears where a clip
begins learns what mouths do at the beginning of such clips. So the changed sounds lie inside other speech, or
between silences of random length, and never at the same place of the encoder's frames. All of it is as loud as what
is heard when a video is made.
"""

import functools
import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from atldiff.data.prepared import PreparedClip
from atldiff.errors import InputError, OutputError
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.distortion import change_speed, distort, drawn
from atldiff.speech.loudness import at_target
from atldiff.speech.whisper import FEATURE_RATE, SAMPLES_PER_FEATURE, WhisperEncoder
from atldiff.speech.windows import speech_windows
from atldiff.storage.files import write_atomically

FOLDER_NAME = "features"
VARIANTS = 3
"""Changed versions of each training clip: the first between silences, the others inside other speech."""

MARGIN = 24
"""Features kept before and after the clip's own, where the sound goes on."""

_LONGEST_NEIGHBOUR = 3 * SAMPLE_RATE


@dataclass(frozen=True)
class SpeechVariant:
    """Features of one version of a clip's sound.

    Attributes:
        features: (T, C) float16 at 50 Hz.
        start: where the clip's first sample lies among them, in features.
        speed: how much faster (and higher) than the original it is spoken.
    """

    features: np.ndarray
    start: float
    speed: float

    def positions(self, frames: np.ndarray, fps: float) -> np.ndarray:
        """Where video frames, given by their numbers, lie among the features: frame k shows the sound at k / fps."""
        return self.start + frames * (FEATURE_RATE / fps / self.speed)


@dataclass(frozen=True)
class SpokenClip:
    """A clip with its landmarks (F, 68, 2) and the features of one or more versions of its sound."""

    clip: PreparedClip
    variants: tuple[SpeechVariant, ...]

    @cached_property
    def landmarks(self) -> np.ndarray:
        """(F, 68, 2) float32, crop pixels."""
        return self.clip.landmarks()


def cache_features(clips: Sequence[PreparedClip], folder: Path, seed: int | None = None) -> list[SpokenClip]:
    """The features of every clip, read from ``folder/features`` or computed and kept there.

    Args:
        clips: of one split; with a seed they lend each other speech to lie in and voices to babble.
        folder: of the prepared clips.
        seed: of :data:`VARIANTS` changed versions a clip; None for the sound as it is, alone.

    Raises:
        InputError: a kept file is damaged.
        OutputError: the folder cannot be written.
    """
    load = functools.cache(WhisperEncoder.from_package)

    def encode(clip: PreparedClip) -> Sequence[SpeechVariant]:
        if seed is None:
            return [SpeechVariant(encode_speech(load(), at_target(clip.waveform())), start=0.0, speed=1.0)]
        return _changed_variants(load(), clips, clip, seed)

    return keep_variants(clips, folder / FOLDER_NAME / ("levelled" if seed is None else f"levelled-{seed}"), encode)


def keep_variants(
    clips: Sequence[PreparedClip], cache: Path, encode: Callable[[PreparedClip], Sequence[SpeechVariant]]
) -> list[SpokenClip]:
    """The clips with what ``encode`` makes of each, read from the folder ``cache`` or made now and kept there.

    Raises:
        InputError: a kept file is damaged.
        OutputError: the folder cannot be written.
    """
    spoken, made = [], 0
    for number, clip in enumerate(clips, start=1):
        path = cache / f"{clip.info.key}.npz"
        variants = _kept(path, clip)
        if variants is None:
            if not made:
                print(f"making speech features of {len(clips)} clips, which are kept in {cache}", flush=True)
            made += 1
            variants = tuple(encode(clip))
            try:
                write_atomically(path, _to_bytes(variants, clip))
            except OSError as error:
                raise OutputError(f"cannot keep speech features in {cache} ({error.strerror})") from error
            if number % 200 == 0:
                print(f"speech features of {number} of {len(clips)} clips", flush=True)
        spoken.append(SpokenClip(clip, variants))
    return spoken


def _to_bytes(variants: Sequence[SpeechVariant], clip: PreparedClip) -> bytes:
    stream = io.BytesIO()
    arrays = {f"features{index}": variant.features for index, variant in enumerate(variants)}
    starts, speeds = ([getattr(variant, name) for variant in variants] for name in ("start", "speed"))
    np.savez(stream, allow_pickle=False, starts=starts, speeds=speeds, sound=_fingerprint(clip), **arrays)
    return stream.getvalue()


def _fingerprint(clip: PreparedClip) -> int:
    return zlib.crc32(clip.member("sound"))


def _kept(path: Path, clip: PreparedClip) -> tuple[SpeechVariant, ...] | None:
    """The variants in a kept file; None where there is none, or where it was made of another sound."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as arrays:
            if clip.has("sound") and int(arrays["sound"]) != _fingerprint(clip):
                return None
            return tuple(
                SpeechVariant(arrays[f"features{index}"], float(start), float(speed))
                for index, (start, speed) in enumerate(zip(arrays["starts"], arrays["speeds"], strict=True))
            )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}); delete it, and it is made again") from error


def _changed_variants(
    encoder: WhisperEncoder, clips: Sequence[PreparedClip], clip: PreparedClip, seed: int
) -> tuple[SpeechVariant, ...]:
    random = np.random.default_rng([seed, *sha256(clip.info.key.encode()).digest()])
    variants = []
    for index in range(VARIANTS):
        speed = float(np.exp(random.uniform(-0.12, 0.12))) if random.random() < 0.5 else 1.0
        own = change_speed(at_target(clip.waveform()), speed)
        if index == 0:
            before, after = (np.zeros(int(random.uniform(0, 0.6) * SAMPLE_RATE), np.float32) for _ in range(2))
        else:
            before, after = (at_target(drawn(clips, random).waveform())[:_LONGEST_NEIGHBOUR] for _ in range(2))
            before = before[int(random.integers(0, len(before) + 1)) :]
        joined = distort(np.concatenate([before, own, after]), clips, random)
        variants.append(_encode(encoder, joined, len(before), len(own), speed))
    return tuple(variants)


def _encode(
    encoder: WhisperEncoder, sound: np.ndarray, own_start: int, own_length: int, speed: float
) -> SpeechVariant:
    features = encode_speech(encoder, sound)
    first = max(0, own_start // SAMPLES_PER_FEATURE - MARGIN)
    last = -(-(own_start + own_length) // SAMPLES_PER_FEATURE) + MARGIN
    return SpeechVariant(features[first:last], own_start / SAMPLES_PER_FEATURE - first, speed)


@torch.no_grad()
def encode_speech(encoder: WhisperEncoder, sound: np.ndarray) -> np.ndarray:
    """(samples,) float32 at 16 kHz, of any length → (T, C) float16, in the windows in which generation hears it."""
    pieces = []
    for window in speech_windows([sound]):
        offset = window.start // SAMPLES_PER_FEATURE
        first = round(window.begin * FEATURE_RATE) - offset
        last = None if math.isinf(window.end) else round(window.end * FEATURE_RATE) - offset
        pieces.append(encoder(torch.from_numpy(window.samples)[None])[0, first:last].numpy())
    return np.concatenate(pieces).astype(np.float16)
