"""Text → speech, sentence by sentence: with the voice of the extra ``tts``, or with any engine that is a callable."""

import contextlib
import os
import re
import tempfile
import wave
import weakref
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from atldiff.errors import InputError
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.voices import DEFAULT_VOICE, voices
from atldiff.speech.waveform import Speech, as_float, check_sample_rate

LONGEST_SENTENCE = 400
"""Characters that are spoken at once; what is longer is cut at a comma or a space."""

_END = re.compile(r"""[.!?…]["'”’)\]]*\s+(?=\S)|[。！？]["'”’）」』]*|\n\s*\n""")
_CLAUSE = re.compile(r"[,;:—、，]\s*|\s+")
_TITLES = frozenset(
    ["Dr", "Mr", "Mrs", "Ms", "Prof", "Rev", "St", "Sr", "Jr", "No", "vs", "cf", "e.g", "i.e", "approx"]
)
_PIECE = 4096
_PCM_PEAK = 32767


class TextToSpeech(Protocol):
    """An engine: a text, a sentence as a rule, → samples (n,), int16 or floats in [-1, 1], and their rate in Hz."""

    def __call__(self, text: str, /) -> tuple[np.ndarray, int]: ...


Voice = str | TextToSpeech
"""The name of a voice of the extra ``tts``, or an engine."""


def open_voice(voice: Voice = DEFAULT_VOICE) -> TextToSpeech:
    """The engine of a name, loaded once; an engine itself is given back as it is.

    Raises:
        InputError: no such voice is here, the extra is not installed, or it is no engine.
    """
    if isinstance(voice, str):
        return _hibari(voice)
    if not callable(voice):
        raise InputError(f"got {type(voice).__name__} as voice; expected a name, or a callable: text → samples, rate")
    return voice


@lru_cache(maxsize=4)
def _hibari(name: str) -> TextToSpeech:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime would write its own record of each run
    try:
        from hibari import Hibari
    except ImportError as error:
        raise InputError('speaking a text needs a voice: pip install "atldiff[tts]", or name an engine') from error
    known = voices()
    if name not in known:
        raise InputError(f"no voice {name!r} is here; expected one of {', '.join(known)}")
    engine = Hibari(name)

    def speak(text: str, /) -> tuple[np.ndarray, int]:
        return engine(text, seed=0), engine.sample_rate

    return speak


def sentences(text: str | Iterable[str]) -> Iterator[str]:
    """A text, or pieces of one as they come, → its sentences, each as soon as what follows it shows its end.

    A blank line ends one too; line breaks within a sentence become spaces. None is longer than
    :data:`LONGEST_SENTENCE`.
    """
    held = ""
    for piece in _pieces(text) if isinstance(text, str) else text:
        held += piece
        while cut := _first_end(held):
            yield from _cut_to_size(held[:cut])
            held = held[cut:]
        if len(held) > 2 * LONGEST_SENTENCE:
            *done, held = _cut_to_size(held)
            yield from done
    yield from _cut_to_size(held)


def _pieces(text: str) -> Iterator[str]:
    return (text[begin : begin + _PIECE] for begin in range(0, len(text), _PIECE))


def _first_end(text: str) -> int:
    """How many characters the first sentence has with what ends it; 0 where no end is to be seen."""
    for end in _END.finditer(text):
        following = text[end.end() : end.end() + 1]
        word = text[: end.start()].rsplit(None, 1)[-1:]
        is_short = bool(word) and (word[0].strip("(\"'“‘") in _TITLES or (len(word[0]) == 1 and word[0].isupper()))
        is_full_stop = text[end.start()] == "."
        if not (is_full_stop and (following.islower() or is_short)):
            return end.end()
    return 0


def _cut_to_size(text: str) -> Iterator[str]:
    text = " ".join(text.split())
    while len(text) > LONGEST_SENTENCE:
        ends = [match.end() for match in _CLAUSE.finditer(text, 0, LONGEST_SENTENCE)]
        cut = max(ends, default=LONGEST_SENTENCE) or LONGEST_SENTENCE
        yield text[:cut].strip()
        text = text[cut:].strip()
    if text:
        yield text


def speak(text: str | Iterable[str], voice: Voice = DEFAULT_VOICE) -> Iterator[tuple[np.ndarray, int]]:
    """The sentences of a text as (n,) float32 samples and their rate in Hz, each as soon as it is spoken.

    What the engine has no sound for is left out.

    Raises:
        InputError: the voice is not here, or the engine gives something else than samples and a rate.
    """
    engine = open_voice(voice)
    for sentence in sentences(text):
        samples, rate = _checked(engine(sentence))
        if len(samples):
            yield samples, rate


def _checked(spoken: object) -> tuple[np.ndarray, int]:
    try:
        samples, rate = spoken  # pyright: ignore[reportGeneralTypeIssues]
        samples, rate = np.asarray(samples), int(rate)
    except (TypeError, ValueError) as error:
        got = type(spoken).__name__
        raise InputError(f"the text-to-speech engine gave {got}; expected samples and their rate in Hz") from error
    if samples.ndim != 1 or (samples.dtype != np.int16 and samples.dtype.kind != "f"):
        got = f"samples of shape {samples.shape} and type {samples.dtype}"
        raise InputError(f"the text-to-speech engine gave {got}; expected (n,) int16, or floats in [-1, 1]")
    check_sample_rate(rate)
    samples = as_float(samples)
    if not np.isfinite(samples).all():
        raise InputError("the text-to-speech engine gave NaN or infinite samples; expected finite numbers")
    return samples, rate


def spoken(text: str | Iterable[str], voice: Voice = DEFAULT_VOICE) -> Speech:
    """A text, or pieces of one as they come, as a recording; memory does not grow with its length.

    Every sentence is spoken once; the sound lies in a temporary file for as long as the recording is in use.

    Raises:
        InputError: see :func:`write_spoken`.
    """
    handle, name = tempfile.mkstemp(prefix="atldiff-", suffix=".wav")
    os.close(handle)
    path = Path(name)
    try:
        write_spoken(text, path, voice)
        speech = Speech.open(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    weakref.finalize(speech, path.unlink, missing_ok=True)
    return speech


def write_spoken(
    text: str | Iterable[str], path: Path, voice: Voice = DEFAULT_VOICE, most_s: float = float("inf")
) -> None:
    """Write a text, or pieces of one as they come, as a WAV file of 16 bits; samples beyond [-1, 1] are cut off.

    Args:
        text: what is to be said.
        voice: see :func:`open_voice`.
        most_s: seconds that it may last.

    Raises:
        InputError: there is nothing to say in it, it lasts longer, or see :func:`speak`.
    """
    if not isinstance(text, Iterable):
        raise InputError(f"got {type(text).__name__} as text; expected a text, or pieces of one")
    sample_rate = written = 0
    with path.open("wb") as stream, contextlib.closing(wave.Wave_write(stream)) as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        for samples, rate in speak(text, voice):
            if not written:
                file.setframerate(rate)
                sample_rate = rate
            if rate != sample_rate:
                was = f"the text-to-speech engine changed from {sample_rate} to {rate} Hz"
                raise InputError(f"{was}; expected one rate")
            file.writeframes(np.round(np.clip(samples, -1, 1) * _PCM_PEAK).astype("<i2").tobytes())
            written += len(samples)
            if written > most_s * rate:
                raise InputError(f"the text takes longer than {most_s:g} s to say; expected at most that")
    if not written:
        raise InputError("the text has nothing that the voice can say; expected words")


def speech_or_text(
    speech: Any, text: str | Iterable[str] | None, voice: Voice, sample_rate: float | None, track: int | None
) -> Speech:
    """The sound of what was given, one of speech and text.

    Args:
        speech, sample_rate, track: see :meth:`~atldiff.speech.waveform.Speech.coerce`.
        text, voice: see :func:`spoken`.

    Raises:
        InputError: both were given, or neither, or what was given cannot be used.
    """
    if speech is not None and text is not None:
        raise InputError("got speech and text; expected one of them")
    if text is not None:
        return spoken(text, voice)
    if speech is None:
        raise InputError("got neither speech nor text; expected one of them")
    return Speech.coerce(speech, sample_rate, track)
