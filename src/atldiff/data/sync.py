"""By how much a clip's sound trails its picture, and whether the lips belong to the sound at all.

Two series are set against the mouth opening of the tracked landmarks, at every candidate lag. The lag is judged by a
meter that learned nothing of time (:class:`LagMeter`): how loud the sound is, band by band, at the instant itself.
Whether the lips say what is heard is judged, at that lag, by the package's own landmark generator
(:class:`SyncMeter`). Of each clip only a few sums are kept (:class:`LagTrace`); the lag of a recording set is where
the correlation pooled over its clips peaks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from atldiff.errors import InputError
from atldiff.face.topology import interocular_distance, mouth_opening
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig
from atldiff.speech.waveform import SAMPLE_RATE
from atldiff.speech.whisper import FEATURE_RATE, WhisperEncoder, mel_filters
from atldiff.speech.windows import SpeechWindow, speech_windows
from atldiff.storage.parts import WEIGHTS_FOLDER, load_part

LAGS = np.arange(-30, 31) / 100
"""Candidate lags in seconds; positive: the sound trails the picture."""

SYSTEMATIC_S = 0.01
"""Lags found for whole corpora may be wrong by this much, however many clips there are."""

UNRELATED = 0.45
"""A clip of three seconds or more whose :func:`sync_correlation` is less has lips unrelated to its sound."""

WIDEST_CLEAR_S = 0.08
LEAST_CLEAR_R = 0.3
"""A lag is clear if its 95 % interval is no wider, and the correlation at its peak no less."""

_UNRELATED_PER_SECOND = 0.16
"""Of shorter clips chance reaches more: the threshold is so much for each second."""

_LEAST_SECONDS = 1.0
"""Shorter clips, in seconds, are not judged."""

_LEAST_MOTION = 0.015
"""Nor are those whose mouth opening, in inter-ocular distances, has a smaller standard deviation."""

_LAG_SPREAD_S = 0.05
"""Seconds around the lag in which the best correlation counts."""

_GRID_RATE = 100
"""Values a second of what is expected from the sound; as fine as :data:`LAGS`."""

_LEAST_OVERLAP = 0.5
"""Share of a clip's frames that the sound must cover at a lag for that to count."""

_LEAST_UNITS = 5
"""With fewer clips their pieces are resampled, and with fewer pieces nothing is said."""

_PIECE_SECONDS = 0.5
"""Length of those pieces."""

_RESAMPLES = 500
"""Bootstrap samples for the 95 % interval of a lag."""

_LEAST_VARIATION = 1e-4
"""Sum of squares below which a series does not vary, and correlates with nothing."""

_BAND_WEIGHTS = np.array(
    [0.065, 0.069, -0.124, 0.005, 0.113, 0.047, -0.048, -0.002, 0.058, 0.038]
    + [0.006, 0.009, 0.151, 0.112, 0.032, -0.001, -0.012, 0.036, 0.06, 0.012]
)
"""How much each of twenty bands, alike on the mel scale, says of the mouth's opening at the same instant.

Ridge regression of the opening on the logarithms of the bands' power in the training clips of GRID and of
close-ups; with no memory it cannot learn a lag. What it finds in GRID, recorded in step, is +0.002 s.
"""

_MEL_DECADES = 5.0
"""Powers of ten below the loudest band at which levels are cut off."""

_SMOOTHING = np.hanning(7)[1:-1] / np.hanning(7).sum()
"""Weights over five values, 50 ms."""

_FFT_SIZE = 400
"""Samples of a spectrum: 25 ms."""


@dataclass(frozen=True)
class LagTrace:
    """What the lag is found from: sums over one clip's frames, for every lag of :data:`LAGS`.

    Attributes:
        pieces: (P, 3, len(LAGS)) float32, one row for each half second of picture: the products of the expected and
            the tracked mouth opening, the squares of the expected, the squares of the tracked, all about their means
            over the clip; 0 where the sound covers less than half of the frames.
        motion: standard deviation of the tracked mouth opening, in inter-ocular distances.
        duration_s: seconds of picture.
    """

    pieces: np.ndarray
    motion: float
    duration_s: float

    @property
    def sums(self) -> np.ndarray:
        """(3, len(LAGS)) float64: the same over the whole clip."""
        return self.pieces.sum(axis=0, dtype=np.float64)

    def to_array(self) -> np.ndarray:
        """(P · 3 · len(LAGS) + 2,) float32."""
        return np.append(self.pieces.ravel(), [self.motion, self.duration_s]).astype(np.float32)

    @classmethod
    def from_array(cls, array: np.ndarray) -> Self:
        """What :meth:`to_array` made.

        Raises:
            InputError: it has another length.
        """
        size = 3 * len(LAGS)
        if array.ndim != 1 or len(array) < size + 2 or (len(array) - 2) % size:
            raise InputError(f"a lag trace has shape {array.shape}; expected (n * {size} + 2,)")
        pieces = array[:-2].reshape(-1, 3, len(LAGS)).astype(np.float32)
        return cls(pieces, float(array[-2]), float(array[-1]))


@dataclass(frozen=True)
class LagEstimate:
    """The lag of a recording set.

    Attributes:
        lag_s: the sound trails the picture by this many seconds.
        r: pooled correlation of the expected and the tracked mouth opening at that lag.
        low_s, high_s: 95 % interval: bootstrap over clips, or over half seconds where there are fewer than five
            clips, :data:`SYSTEMATIC_S` wider to either side; the whole range of :data:`LAGS` where there are fewer
            than five of these too.
    """

    lag_s: float
    r: float
    low_s: float
    high_s: float

    @property
    def is_clear(self) -> bool:
        """Whether the peak is high and sharp enough to be taken for the lag."""
        return self.high_s - self.low_s <= WIDEST_CLEAR_S and self.r >= LEAST_CLEAR_R


class LagMeter:
    """Sets how loud the sound is against the tracked mouth."""

    def trace(self, landmarks: np.ndarray, waveform: np.ndarray, fps: float) -> LagTrace:
        """The trace of one clip, from which its lag is found.

        Args:
            landmarks: (F, 68, 2) in any unit, without gaps.
            waveform: (samples,) 16 kHz mono; sample 0 goes with frame 0 but for the lag.
            fps: frames per second.

        Raises:
            InputError: a landmark is not finite, there is no frame, or no sound.
        """
        _check(landmarks, waveform)
        return _trace(voiced_level(waveform), landmarks, fps)


def voiced_level(waveform: np.ndarray) -> np.ndarray:
    """How open the mouth should be by the bands' levels at every instant, up to a constant and a factor.

    Args:
        waveform: (samples,) 16 kHz mono.

    Returns:
        (n,) float64, one every 10 ms from the first sample on.
    """
    step = SAMPLE_RATE // _GRID_RATE
    padded = np.pad(waveform.astype(np.float64), (_FFT_SIZE // 2, _FFT_SIZE // 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _FFT_SIZE)[::step] * np.hanning(_FFT_SIZE)
    mel = np.abs(np.fft.rfft(windows)) ** 2 @ mel_filters().numpy().T.astype(np.float64)
    bands = mel.reshape(len(mel), len(_BAND_WEIGHTS), -1).mean(axis=2)
    levels = np.log10(bands + 1e-10)
    levels = np.maximum(levels, levels.max() - _MEL_DECADES)
    return np.convolve(np.pad(levels @ _BAND_WEIGHTS, len(_SMOOTHING) // 2, mode="edge"), _SMOOTHING, "valid")


class SyncMeter:
    """Sets the mouth that the sound lets expect, as the landmark generator hears it, against the tracked one.

    Args:
        encoder, generator: on the same device.
    """

    def __init__(self, encoder: WhisperEncoder, generator: LandmarkGenerator) -> None:
        self._encoder = encoder
        self._generator = generator.eval()

    @classmethod
    def from_package(cls) -> Self:
        """With the weights that come with the package, on the CPU."""
        folder = WEIGHTS_FOLDER / "compact" / "landmark_generator"
        generator = load_part(folder, LandmarkGenerator, LandmarkGeneratorConfig)
        return cls(WhisperEncoder.from_package(), generator)

    def trace(self, landmarks: np.ndarray, waveform: np.ndarray, fps: float) -> LagTrace:
        """The trace of one clip; arguments and errors as for :meth:`LagMeter.trace`."""
        _check(landmarks, waveform)
        return _trace(self._expected_opening(np.mean(landmarks, axis=0), waveform), landmarks, fps)

    def _expected_opening(self, identity: np.ndarray, waveform: np.ndarray) -> np.ndarray:
        """Mouth opening every 10 ms as long as there is sound."""
        times = np.arange(len(waveform) * _GRID_RATE // SAMPLE_RATE + 1) / _GRID_RATE
        return np.concatenate(
            [
                self._window_opening(identity, window, times[(times >= window.begin) & (times < window.end)])
                for window in speech_windows([waveform.astype(np.float32)])
            ]
        )

    @torch.no_grad()
    def _window_opening(self, identity: np.ndarray, window: SpeechWindow, times: np.ndarray) -> np.ndarray:
        features = self._encoder(torch.from_numpy(window.samples)[None])
        positions = torch.from_numpy((times - window.start / SAMPLE_RATE) * FEATURE_RATE)[None]
        moved = self._generator(features, positions, torch.from_numpy(identity).float()[None])[0].numpy()
        return mouth_opening(identity + moved * interocular_distance(identity))


def _check(landmarks: np.ndarray, waveform: np.ndarray) -> None:
    if not len(landmarks) or not len(waveform) or not np.isfinite(landmarks).all():
        raise InputError(
            f"expected finite landmarks and sound to find the lag; got landmarks of shape {landmarks.shape} "
            f"({np.isnan(landmarks).sum()} NaN) and {len(waveform)} samples"
        )


def _trace(expected: np.ndarray, landmarks: np.ndarray, fps: float) -> LagTrace:
    tracked = mouth_opening(landmarks).astype(np.float64)
    pieces = _centred_sums(expected, tracked, fps)
    return LagTrace(pieces, float(np.float32(tracked.std())), float(np.float32(len(tracked) / fps)))


def _centred_sums(expected: np.ndarray, tracked: np.ndarray, fps: float) -> np.ndarray:
    """:attr:`LagTrace.pieces` of (n,) openings at 100 Hz and (F,) at ``fps``."""
    places = (np.arange(len(tracked)) / fps + LAGS[:, None]) * _GRID_RATE
    heard = (places >= 0) & (places <= len(expected) - 1)
    at_frames = np.interp(places, np.arange(len(expected)), expected)
    counts = heard.sum(axis=1, keepdims=True)

    def about_mean(values: np.ndarray) -> np.ndarray:
        return (values - (values * heard).sum(axis=1, keepdims=True) / np.maximum(counts, 1)) * heard

    made, true = about_mean(at_frames), about_mean(np.broadcast_to(tracked, heard.shape))
    products = np.stack([made * true, made**2, true**2]) * (counts >= _LEAST_OVERLAP * len(tracked))
    starts = np.unique((np.arange(0, len(tracked) / fps, _PIECE_SECONDS) * fps).round().astype(int))
    starts = starts[starts < len(tracked)]
    return np.add.reduceat(products, starts, axis=2).transpose(2, 0, 1).astype(np.float32)


def estimate_lag(traces: Sequence[LagTrace]) -> LagEstimate:
    """The lag that the clips of one recording set share; where the mouth moves more and longer counts more.

    Raises:
        InputError: there is no trace.
    """
    if not traces:
        raise InputError("expected at least one clip to find the lag of, got none")
    sums = np.stack([trace.sums for trace in traces])
    lag, r = _peak(sums.sum(axis=0))
    units = sums if len(traces) >= _LEAST_UNITS else np.concatenate([trace.pieces for trace in traces])
    if len(units) < _LEAST_UNITS:
        return LagEstimate(lag, r, float(LAGS[0]), float(LAGS[-1]))
    counts = np.random.default_rng(0).multinomial(len(units), np.full(len(units), 1 / len(units)), size=_RESAMPLES)
    lags = [_peak(resampled)[0] for resampled in np.tensordot(counts, units.astype(np.float64), axes=1)]
    low, high = np.percentile(lags, [2.5, 97.5])
    return LagEstimate(lag, r, float(low) - SYSTEMATIC_S, float(high) + SYSTEMATIC_S)


def sync_correlation(trace: LagTrace, lag_s: float) -> float:
    """How well one clip's lips follow its sound: the greatest correlation within 50 ms of ``lag_s``.

    Returns:
        -1 to 1; 0 where the mouth or the sound does not vary, or the sound is too short.

    Raises:
        InputError: ``lag_s`` is not in the range of :data:`LAGS`.
    """
    if not LAGS[0] <= lag_s <= LAGS[-1]:
        raise InputError(f"lag_s is {lag_s}; expected {LAGS[0]} to {LAGS[-1]} seconds")
    near = np.abs(LAGS - lag_s) <= _LAG_SPREAD_S + 1e-9
    return float(_correlations(trace.sums)[near].max())


def lips_unrelated(trace: LagTrace, lag_s: float) -> bool:
    """Whether the lips do not follow the sound at ``lag_s``.

    Never so for less than a second of picture, for a mouth that hardly moves, or where the sound covers less than
    half of the frames. Short clips correlate less surely, so below three seconds the threshold is lower than
    :data:`UNRELATED`, in proportion to the length.
    """
    covered = trace.sums[2].any()
    if not covered or trace.duration_s < _LEAST_SECONDS or trace.motion < _LEAST_MOTION:
        return False
    return sync_correlation(trace, lag_s) < min(UNRELATED, _UNRELATED_PER_SECOND * trace.duration_s)


def _correlations(sums: np.ndarray) -> np.ndarray:
    """(3, len(LAGS)) → (len(LAGS),); 0 where one of the two does not vary."""
    products, made, true = sums
    varies = (made > _LEAST_VARIATION) & (true > _LEAST_VARIATION)
    return np.where(varies, products / np.sqrt(np.where(varies, made * true, 1)), 0.0)


def _peak(sums: np.ndarray) -> tuple[float, float]:
    """Lag and correlation at the peak, by the parabola through the best candidate and its neighbours."""
    r = _correlations(sums)
    best = int(r.argmax())
    step = LAGS[1] - LAGS[0]
    offset = 0.0
    if 0 < best < len(r) - 1:
        before, here, after = r[best - 1 : best + 2]
        bend = before - 2 * here + after
        offset = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(LAGS[best] + offset * step), float(r[best])
