"""Loudness of speech after ITU-R BS.1770, and speech brought to the loudness that the networks know."""

from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np

from atldiff.speech import SAMPLE_RATE

TARGET_LUFS = -18.0
"""What speech is brought to before the networks hear it: about the median of the clips that they learned from."""

MOST_GAIN_DB = 60.0
"""Speech is raised, or lowered, by no more than this."""

_HOP = SAMPLE_RATE // 10
"""Samples of the step between two blocks,"""

_HOPS_PER_BLOCK = 4
"""and how many steps a block has: 0.4 s, overlapping by three quarters, as in the standard."""

_GATE_LUFS = -85.0
"""Quieter blocks are not counted; the standard has -70."""

_GATE_BELOW_LU = 10.0
"""Nor are those so far below the mean of the rest, as in the standard."""

_LEVEL_BINS = np.arange(-120.0, 40.0, 0.1)
_WORD_RANGE_DB = 12.0
"""What a single word may be off by from the recording that it is from, and"""

_ENOUGH_SECONDS = 2.5
"""how much has to be heard for that to be nothing."""

_LIVE_HALF_LIFE_S = 10.0
"""In a live session what was heard so long ago counts half;"""

_LIVE_LEAST_HEARD_S = 0.4
"""so much is heard before the gain changes, and"""

_LIVE_STEP_DB = 3.0
"""it changes by no more than this in a tenth of a second."""


class LoudnessMeter:
    """Integrated loudness of mono speech that comes in pieces: blocks of 0.4 s, K-weighted, gated.

    The absolute gate lies at -85 LUFS, not at the standard's -70: quiet speech is what this is for.

    Args:
        half_life_s: what was heard so many seconds ago counts half; by default all of it counts the same.
    """

    def __init__(self, half_life_s: float = float("inf")) -> None:
        self._kept = 0.5 ** (_HOP / SAMPLE_RATE / half_life_s)
        self._counts = np.zeros(len(_LEVEL_BINS))
        self._rest = np.zeros(0, dtype=np.float32)
        self._powers: list[float] = []
        self._heard = 0

    def hear(self, samples: np.ndarray) -> None:
        """Take in the next (n,) samples at 16 kHz."""
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) // _HOP * _HOP
        self._rest = joined[whole:]
        for hop in joined[:whole].reshape(-1, _HOP):
            self._powers = [*self._powers[1 - _HOPS_PER_BLOCK :], _weighted_power(hop)]
            self._counts *= self._kept
            level = -0.691 + 10 * np.log10(np.mean(self._powers) + 1e-14)
            self._heard += bool(self._heard or level > _GATE_LUFS)
            self._counts[np.clip(round((level - _LEVEL_BINS[0]) * 10), 0, len(_LEVEL_BINS) - 1)] += 1

    @property
    def loudness(self) -> float:
        """LUFS; minus infinity where nothing audible was heard."""
        counts = self._counts * (_LEVEL_BINS > _GATE_LUFS)
        if not counts.any():
            return float("-inf")
        gate = _mean_level(counts) - _GATE_BELOW_LU
        return _mean_level(counts * (gate < _LEVEL_BINS))

    @property
    def gain_db(self) -> float:
        """What brings speech like that heard so far to ``TARGET_LUFS``; 0 where nothing audible was heard.

        A word may be louder or quieter than the recording that it is from: while little was heard, what one is off by
        as a rule is left as it is.
        """
        loudness = self.loudness
        if loudness == float("-inf"):
            return 0.0
        left = _WORD_RANGE_DB * max(0.0, 1 - self._heard * _HOP / SAMPLE_RATE / _ENOUGH_SECONDS)
        gain = np.clip(TARGET_LUFS - loudness, -MOST_GAIN_DB, MOST_GAIN_DB)
        return float(np.sign(gain) * max(0.0, abs(gain) - left))


def levelled(blocks: Iterable[np.ndarray], gain_db: float) -> Iterator[np.ndarray]:
    """(n,) float32 blocks, each by the same gain."""
    gain = np.float32(10 ** (gain_db / 20))
    for block in blocks:
        yield block * gain


def at_target(samples: np.ndarray) -> np.ndarray:
    """A whole recording, (n,) float32 at 16 kHz, brought to ``TARGET_LUFS``."""
    meter = LoudnessMeter()
    meter.hear(samples)
    return next(levelled([samples], meter.gain_db))


def levelled_live(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """(n,) float32 blocks at 16 kHz, brought to ``TARGET_LUFS`` by what was heard before; none is held back.

    How the sound is cut into blocks makes no difference.
    """
    meter, heard, before_db, gain_db = LoudnessMeter(_LIVE_HALF_LIFE_S), 0, 0.0, 0.0
    for block in blocks:
        pieces = []
        while len(block):
            place = heard % _HOP
            if not place:
                before_db = gain_db
                wanted_db = meter.gain_db if heard >= _LIVE_LEAST_HEARD_S * SAMPLE_RATE else 0.0
                gain_db += float(np.clip(wanted_db - gain_db, -_LIVE_STEP_DB, _LIVE_STEP_DB))
            piece = block[: _HOP - place]
            share = (np.arange(place, place + len(piece)) + 1) / _HOP
            gains = 10 ** ((before_db + share * (gain_db - before_db)) / 20)
            pieces.append((piece * gains).astype(np.float32))
            meter.hear(piece)
            heard += len(piece)
            block = block[len(piece) :]
        if pieces:
            yield np.concatenate(pieces)


def _mean_level(counts: np.ndarray) -> float:
    powers = 10 ** (_LEVEL_BINS / 10)
    return float(10 * np.log10((counts * powers).sum() / max(counts.sum(), 1e-12)))


def _weighted_power(hop: np.ndarray) -> float:
    """Mean square of one hop through the K-weighting filter."""
    power = np.abs(np.fft.rfft(hop.astype(np.float64))) ** 2
    power[1:] *= 2
    return float((power * _weighting()).sum() / len(hop) ** 2)


@cache
def _weighting() -> np.ndarray:
    """Power response of BS.1770's two filters, given for 48 kHz, at the frequencies of a hop's spectrum."""
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(_HOP, 1 / SAMPLE_RATE) / 48_000)
    shelf = _response(
        turn, (1.53512485958697, -2.69169618940638, 1.19839281085285), (-1.69065929318241, 0.73248077421585)
    )
    highpass = _response(turn, (1.0, -2.0, 1.0), (-1.99004745483398, 0.99007225036621))
    return np.abs(shelf * highpass) ** 2


def _response(turn: np.ndarray, above: tuple[float, float, float], below: tuple[float, float]) -> np.ndarray:
    return (above[0] + above[1] * turn + above[2] * turn**2) / (1 + below[0] * turn + below[1] * turn**2)
