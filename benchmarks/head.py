"""How the head moves against real talkers' heads: ``python benchmarks/head.py prepared --corpus CLOSE-shivangi …``.

Of every clip of the corpora whose names begin so: the true head, and the one that is made for its sound with each
``--strength``. Prints medians over clips; ``--plot`` draws the spectra of roll, yaw and pitch.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.models.loading import DEFAULT_MODEL
from atldiff.motion.head import CHANNELS
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import Speech
from atldiff.storage.files import write_atomically
from judged_head import SPECTRUM_SECONDS, head_spectrum, judge_head

TRUE = "true"
LEAST_SECONDS = 2.5
WITH_VOICE = {
    "speed_r": "speed with loudness, r",
    "brows_r": "brows with loudness, r",
    "lift_pitch_r": "lift with pitch, r",
    "brows_pitch_r": "brows with pitch, r",
}
SEEDS = 4
_WIDTH, _HEIGHT, _MARGIN = 300, 220, 42
_LOWEST_HZ, _HIGHEST_HZ, _DECADES = 0.25, 6.0, 5
_COLOURS = ("#5b6470", "#d1242f", "#2f6fd1", "#2fa36b")


def main() -> None:
    parser = argparse.ArgumentParser(description="How the head moves, true and made.")
    parser.add_argument("data", type=Path, help="folder that atldiff prepare wrote")
    parser.add_argument("--corpus", nargs="+", default=[""], help="beginnings of the names of corpora")
    parser.add_argument("--strength", nargs="+", type=float, default=[0.5], help="of --head-motion")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--plot", type=Path, help="svg to write")
    arguments = parser.parse_args()
    clips = [
        clip
        for clip in PreparedClips.open(arguments.data).clips
        if clip.info.heard
        and clip.info.corpus.startswith(tuple(arguments.corpus))
        and clip.info.frames >= LEAST_SECONDS * clip.info.fps
    ]
    heads = made_heads(ATLDiffPipeline.from_pretrained(arguments.model, device="cpu"), clips, arguments.strength)
    print_table(heads, clips)
    if arguments.plot:
        write_atomically(arguments.plot, spectra(heads, clips).encode())


def made_heads(
    pipeline: ATLDiffPipeline, clips: Sequence[PreparedClip], strengths: Sequence[float]
) -> dict[str, list[np.ndarray]]:
    """By row, the landmarks of every clip; of what is made some seeds one after the other."""
    heads: dict[str, list[np.ndarray]] = {TRUE: [clip.landmarks() for clip in clips]}
    for strength in strengths:
        heads[f"made, {strength:g}"] = [
            pipeline.speech_landmarks(
                true[0],
                Speech.from_array(clip.waveform(), SAMPLE_RATE),
                fps=clip.info.fps,
                head_motion=strength,
                seed=number % SEEDS,
            )[: len(true)]
            for number, (clip, true) in enumerate(zip(clips, heads[TRUE], strict=True))
        ]
    return heads


def print_table(heads: dict[str, list[np.ndarray]], clips: Sequence[PreparedClip]) -> None:
    speakers = {(clip.info.corpus, clip.info.speaker) for clip in clips}
    print(f"{len(clips)} clips, {len(speakers)} speakers; medians over clips: standard deviation / change a second\n")
    print("| | " + " | ".join(CHANNELS) + " | " + " | ".join(WITH_VOICE.values()) + " |")
    print("| --- |" + " ---: |" * (len(CHANNELS) + len(WITH_VOICE)))
    for row, tracks in heads.items():
        values = [
            judge_head(track, clip.waveform(), clip.info.fps) for track, clip in zip(tracks, clips, strict=True)
        ]
        middle = {name: float(np.median([value[name] for value in values])) for name in values[0]}
        cells = [f"{middle[f'{name}_std']:.3g} / {middle[f'{name}_speed']:.3g}" for name in CHANNELS]
        cells += [f"{middle[name]:.2f}" for name in WITH_VOICE]
        print(f"| {row} | " + " | ".join(cells) + " |")


def spectra(heads: dict[str, list[np.ndarray]], clips: Sequence[PreparedClip]) -> str:
    """Median power per hertz of roll, yaw and pitch, one panel each, both axes logarithmic, as an SVG file."""
    fps, curves = clips[0].info.fps, {}
    hertz = np.fft.rfftfreq(round(SPECTRUM_SECONDS * fps), 1 / fps)
    for row, tracks in heads.items():
        found = [head_spectrum(track, fps)[1] for track in tracks if len(track) >= SPECTRUM_SECONDS * fps]
        curves[row] = np.exp(np.median([np.log(power + 1e-9) for power in found], axis=0))
    inside = (hertz >= _LOWEST_HZ) & (hertz <= _HIGHEST_HZ)
    parts = []
    for panel, name in enumerate(CHANNELS[:3]):
        left = panel * _WIDTH
        parts.append(f'<text x="{left + _MARGIN}" y="14">{name}, degrees² per Hz</text>')
        for shown in (0.25, 0.5, 1, 2, 4):
            x = left + _across(shown)
            parts.append(f'<text x="{x:.0f}" y="{_HEIGHT + 16}" text-anchor="middle">{shown:g} Hz</text>')
        for place, (row, power) in enumerate(curves.items()):
            points = " ".join(
                f"{left + _across(f):.1f},{_down(value):.1f}"
                for f, value in zip(hertz[inside], power[inside, panel], strict=True)
            )
            colour = _COLOURS[place % len(_COLOURS)]
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
            y = 30 + 14 * place
            parts.append(f'<text x="{left + _WIDTH - 90}" y="{y}" fill="{colour}">{row}</text>')
    size = f'viewBox="0 0 {3 * _WIDTH} {_HEIGHT + 24}" width="{3 * _WIDTH}" height="{_HEIGHT + 24}"'
    style = "<style>text { font: 11px system-ui, sans-serif; fill: #5b6470 }</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{style}\n' + "\n".join(parts) + "\n</svg>\n"


def _across(hertz: float) -> float:
    share = np.log(hertz / _LOWEST_HZ) / np.log(_HIGHEST_HZ / _LOWEST_HZ)
    return float(_MARGIN + share * (_WIDTH - _MARGIN - 12))


def _down(power: float) -> float:
    """From 100 at the top down by :data:`_DECADES` powers of ten."""
    return float(np.clip((2 - np.log10(power)) / _DECADES, 0, 1) * (_HEIGHT - 24) + 24)


if __name__ == "__main__":
    main()
