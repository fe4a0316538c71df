"""How cost grows: ``python benchmarks/growth.py [--longest 600] [--plots docs/images]``.

Seconds of work against the length of the speech (1 s to --longest), against the portrait's height (256 to 4096 px,
the bundled portrait cut to four fifths and scaled) and against the sampler's steps (1 to 8), everything included but
loading the model, from a file to an mp4 in a temporary folder. Prints JSON and a table; with --plots it writes an SVG
for each.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import common
from atldiff.errors import InputError
from atldiff.pipeline import ATLDiffPipeline
from atldiff.render.video import render_video
from atldiff.storage.files import write_atomically

LENGTHS_S = (1, 3, 10, 30, 100, 300, 600, 1800, 3600)
HEIGHTS_PX = (256, 512, 720, 1080, 2048, 4096)
STEPS = (1, 2, 4, 8)
UNITS = {"length": "s of speech", "height": "px of portrait height", "steps": "sampler steps"}

_WIDTH, _HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 16, 44
_STYLE = (
    "text { font: 12px system-ui, sans-serif; fill: #5b6470 } .grid { stroke: #5b6470; stroke-opacity: .25 } "
    ".line { fill: none; stroke: #2a6fdb; stroke-width: 2 } .dot { fill: #2a6fdb } "
    ".real { stroke: #5b6470; stroke-dasharray: 5 4 }"
)


@dataclass(frozen=True)
class Measurement:
    """One video that was made.

    Attributes:
        against: what is varied, a key of :data:`UNITS`.
        value: of that.
        speech_s: length of the speech.
        seconds: of work.
        real_time_factor: seconds of work for a second of speech.
    """

    against: str
    value: float
    speech_s: float
    seconds: float
    real_time_factor: float


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    pipeline = ATLDiffPipeline.from_pretrained(device=arguments.device)
    about = common.machine(pipeline.device)
    with tempfile.TemporaryDirectory() as name:
        measure(pipeline, Path(name), "length", 2, 2, common.portrait(arguments.height), 1)
        measurements = list(measured(pipeline, Path(name), arguments))
    pipeline.close()
    if arguments.plots is not None:
        arguments.plots.mkdir(parents=True, exist_ok=True)
        for against in UNITS:
            chosen = [each for each in measurements if each.against == against]
            write_atomically(arguments.plots / f"growth-{against}.svg", plot(chosen).encode())
    common.show(
        about | {"height": arguments.height, "measurements": [asdict(each) for each in measurements]},
        ("against", "value", "s of speech", "s", "s a second of speech"),
        [tuple(asdict(each).values()) for each in measurements],
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how cost grows with length, portrait size and steps.")
    parser.add_argument("--longest", type=float, default=600.0, help="seconds of speech, 1 to 3600")
    parser.add_argument("--seconds", type=float, default=4.0, help="of speech for the heights and the steps")
    parser.add_argument("--height", type=int, default=720, help="of the portrait for the lengths and the steps")
    parser.add_argument("--tallest", type=int, default=HEIGHTS_PX[-1])
    parser.add_argument("--plots", type=Path, help="folder for the plots")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    if not LENGTHS_S[0] <= arguments.longest <= LENGTHS_S[-1]:
        raise InputError(f"--longest is {arguments.longest:g}; expected {LENGTHS_S[0]} to {LENGTHS_S[-1]} seconds")
    return arguments


def measured(pipeline: ATLDiffPipeline, folder: Path, arguments: argparse.Namespace) -> Iterator[Measurement]:
    """Make all the videos, the cheapest of each kind first."""
    picture, steps = common.portrait(arguments.height), pipeline.config.steps
    for length in up_to(LENGTHS_S, arguments.longest):
        yield measure(pipeline, folder, "length", length, length, picture, steps)
    for height in up_to(HEIGHTS_PX, arguments.tallest):
        yield measure(pipeline, folder, "height", height, arguments.seconds, closer_portrait(int(height)), steps)
    for steps in STEPS:
        yield measure(pipeline, folder, "steps", steps, arguments.seconds, picture, steps)


def closer_portrait(height: int) -> np.ndarray:
    """The bundled portrait without a fifth of its height and width, in which the face is large enough at 256 px."""
    whole = common.portrait(round(1.25 * height))
    left = whole.shape[1] // 10
    return np.ascontiguousarray(whole[:height, left : whole.shape[1] - left])


def up_to(values: Sequence[float], largest: float) -> list[float]:
    """The values below the largest, and that."""
    return [*(value for value in values if value < largest), largest]


def measure(
    pipeline: ATLDiffPipeline,
    folder: Path,
    against: str,
    value: float,
    seconds: float,
    picture: np.ndarray,
    steps: int,
) -> Measurement:
    sound = common.write_speech(folder / "speech.wav", seconds)
    report = render_video(pipeline, picture, sound, folder / "out.mp4", steps=steps)
    factor = round(report.real_time_factor, 4)
    return Measurement(against, value, report.duration_s, round(report.seconds, 3), factor)


def plot(measurements: Sequence[Measurement]) -> str:
    """Seconds of work against what was varied, on logarithmic axes, as an SVG file; dashed: as long as it plays."""
    values = [each.value for each in measurements]
    lowest = min(min(each.seconds, each.speech_s) for each in measurements)
    highest = max(max(each.seconds, each.speech_s) for each in measurements)
    x_ends, y_ends = (values[0], values[-1]), decades(lowest, highest)

    def place(value: float, seconds: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * share(value, *x_ends)
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share(seconds, *y_ends)
        return f"{x:.1f},{y:.1f}"

    parts = []
    for exponent in range(round(math.log10(y_ends[0])), round(math.log10(y_ends[1])) + 1):
        left, right = (place(value, 10.0**exponent) for value in x_ends)
        parts.append(f'<polyline class="grid" points="{left} {right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{float(left.split(",")[1]) + 4:.1f}" text-anchor="end">')
        parts[-1] += f"{10.0**exponent:g} s</text>"
    real = " ".join(place(each.value, each.speech_s) for each in measurements)
    work = [place(each.value, each.seconds) for each in measurements]
    parts.append(f'<polyline class="real" fill="none" points="{real}"/>')
    parts.append(f'<polyline class="line" points="{" ".join(work)}"/>')
    for each, point in zip(measurements, work, strict=True):
        x, y = point.split(",")
        parts.append(f'<circle class="dot" cx="{x}" cy="{y}" r="3"/>')
        parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{each.value:g}</text>')
    unit = UNITS[measurements[0].against]
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{unit}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" aria-label="seconds of work against {unit}">\n<style>{_STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def share(value: float, low: float, high: float) -> float:
    """Where a value lies between two others on a logarithmic axis, 0 to 1; in the middle if they are the same."""
    return math.log(value / low) / math.log(high / low) if high > low else 0.5


def decades(low: float, high: float) -> tuple[float, float]:
    """The powers of ten around two values."""
    return 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high) + 1e-9)


if __name__ == "__main__":
    main()
