"""Several channels → two for the sound track, and one for the ear of the networks."""

import numpy as np

_STEREO_WEIGHTS = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (0.7071, 0.7071),
    "LFE": (0.0, 0.0),
    "BL": (0.7071, 0.0),
    "BR": (0.0, 0.7071),
    "SL": (0.7071, 0.0),
    "SR": (0.0, 0.7071),
    "FLC": (0.7071, 0.3536),
    "FRC": (0.3536, 0.7071),
    "BC": (0.5, 0.5),
}
"""(left, right) weight of each loudspeaker, after ITU-R BS.775 with the rear channels at -3 dB."""

_UNNAMED_LAYOUTS = {
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}

_CANCELS_BELOW = 0.25
"""Share of the channels' power that their sum keeps, where strangers keep all of it, under which they cancel out."""


def track_weights(names: tuple[str, ...]) -> np.ndarray:
    """(1 or 2, channels): one and two channels stay, more are mixed by where their loudspeakers stand."""
    if len(names) <= 2:
        return np.eye(len(names), dtype=np.float32)
    if not set(names) <= _STEREO_WEIGHTS.keys():
        names = _UNNAMED_LAYOUTS.get(len(names), ("FC",) * len(names))
    weights = np.array([_STEREO_WEIGHTS[name] for name in names], dtype=np.float32).T
    return weights / weights.sum(axis=1, keepdims=True).clip(1e-6)


def mono_weights(names: tuple[str, ...], products: np.ndarray) -> np.ndarray:
    """(1, channels): the mean of the track's channels, or the loudest channel where they cancel each other out.

    Args:
        names: where each channel's loudspeaker stands.
        products: (channels, channels) mean product of each two of the recording's channels.
    """
    weights = track_weights(names).mean(axis=0, keepdims=True)
    power = products.diagonal() * (weights[0] > 0)
    kept = float(weights[0] @ products @ weights[0])
    if kept >= _CANCELS_BELOW * float(weights[0] ** 2 @ power):
        return weights
    return np.eye(len(names), dtype=np.float32)[[int(power.argmax())]]


def mixed(samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(channels, n) by (mixes, channels) → (mixes, n) float32; a channel taken alone stays as it is, bit for bit."""
    if len(weights) == len(samples) and np.array_equal(weights, np.eye(len(samples))):
        return samples
    with np.errstate(invalid="ignore"):
        return (weights @ samples).astype(np.float32, copy=False)
