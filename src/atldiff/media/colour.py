"""Pictures of high dynamic range or wide gamut → the sRGB that screens and networks expect."""

from functools import cache

import numpy as np

PQ, HLG = 16, 18
"""Transfer functions by their number in ITU-T H.273: SMPTE ST 2084 and ARIB STD-B67."""

BT2020, DISPLAY_P3 = 9, 12
"""Primaries by their number in ITU-T H.273."""

_WHITE_NITS = 203.0
"""Luminance of diffuse white in HDR, ITU-R BT.2408."""

_HLG_PEAK_NITS = 1000.0
"""Luminance of the nominal display, and"""

_HLG_GAMMA = 1.2
"""its system gamma, ITU-R BT.2100."""

_KNEE = 0.8
"""Light, of diffuse white's, above which highlights are rolled off."""

_TO_BT709 = {
    BT2020: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    DISPLAY_P3: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}
"""Linear light of these primaries → linear light of sRGB's, which are BT.709's (ITU-R BT.2087; SMPTE EG 432)."""

_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)


def needs_conversion(transfer: int, primaries: int) -> bool:
    """Whether a picture has to go through :func:`to_srgb`."""
    return transfer in (PQ, HLG) or primaries in _TO_BT709


def to_srgb(picture: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 RGB → uint8 sRGB; light above diffuse white is rolled off, not cut.

    Args:
        transfer, primaries: by their numbers in ITU-T H.273; others than those named here count as sRGB's.
    """
    rows = [_rows_to_srgb(part, transfer, primaries) for part in np.array_split(picture, -(-len(picture) // 256))]
    return np.concatenate(rows)


def _rows_to_srgb(picture: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    full = 65535 if picture.dtype == np.uint16 else 255
    light = _linear(transfer, full)[picture]
    if transfer == HLG:
        luminance = (light @ _LUMINANCE)[..., None]
        light = light * luminance.clip(1e-6) ** (_HLG_GAMMA - 1) * (_HLG_PEAK_NITS / _WHITE_NITS)
    if primaries in _TO_BT709:
        light = (light @ np.array(_TO_BT709[primaries], dtype=np.float32).T).clip(0, None)
    if transfer in (PQ, HLG):
        brightest = light.max(axis=-1, keepdims=True).clip(1e-6)
        rolled = 1 - (1 - _KNEE) * np.exp(-(brightest - _KNEE) / (1 - _KNEE))
        light = light * np.where(brightest > _KNEE, rolled / brightest, 1)
    light = light.clip(0, 1)
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(signal * 255).astype(np.uint8)


@cache
def _linear(transfer: int, full: int) -> np.ndarray:
    """Light for each level from 0 to ``full``, float32: 1 is diffuse white, but for HLG, where it is the peak."""
    signal = np.arange(full + 1) / full
    if transfer == PQ:
        root = signal ** (32 / 2523)
        nits = 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (16384 / 2610)
        return (nits / _WHITE_NITS).astype(np.float32)
    if transfer == HLG:
        high = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
        return np.where(signal <= 0.5, signal**2 / 3, high).astype(np.float32)
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4).astype(np.float32)
