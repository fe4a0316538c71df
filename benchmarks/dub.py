"""How well a dubbed video says what it is given, and how little else of it changes.

Each clip is dubbed with its own sound, with that of the clip after it, and with silence, and held against the true
video: PSNR in the box around the mouth, the correlation of mouth openings (with the truth, with the other clip's
mouth, with the mouth that was there before), flicker in the box, identity, and the pixels outside the face.

    python benchmarks/dub.py --clips DATA/grid/grid_A DATA/grid/grid_B --each 2 --lag 0 --sheets sheets
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from atldiff.dub.dubber import MOUTH_FPS, DubbedVideo, dub_film
from atldiff.dub.options import DubOptions
from atldiff.dub.survey import Survey, survey_film
from atldiff.evaluation.identity import IdentityMeter
from atldiff.evaluation.metrics import cut_box, mouth_correlation, psnr
from atldiff.face.crop import detection_window
from atldiff.face.detection import FaceDetector
from atldiff.face.topology import MOUTH, mouth_opening
from atldiff.media.film import Film
from atldiff.options import GenerationOptions
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import Speech
from common import machine, show

_CELL = 320
_MARGIN = 0.2


@dataclass(frozen=True)
class Clip:
    """A clip as it is: its frames, its face, its sound at the time of its picture."""

    film: Film
    survey: Survey
    frames: np.ndarray
    sound: Speech

    @property
    def opening(self) -> np.ndarray:
        return mouth_opening(self.survey.solid_F683[..., :2])

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Around every mouth point of every frame, with a margin."""
        points = self.survey.solid_F683[:, MOUTH, :2].reshape(-1, 2)
        low, high = points.min(axis=0), points.max(axis=0)
        margin = _MARGIN * (high[0] - low[0])
        most = np.array([self.survey.width, self.survey.height])
        (left, top), (right, bottom) = np.clip([low - margin, high + margin], 0, most).round().astype(int)
        return int(left), int(top), int(right), int(bottom)


def read_clip(path: Path, detector: FaceDetector, lag_s: float) -> Clip:
    """A clip whose sound trails its picture by ``lag_s``."""
    film = Film.open(path)
    survey = survey_film(film, detector)
    frames = np.stack([planes.rgb() for _, planes in film.frames()])
    samples = np.concatenate(list(Speech.open(path).blocks()))[round(lag_s * SAMPLE_RATE) :]
    return Clip(film, survey, frames, Speech.from_array(samples, SAMPLE_RATE))


def dub(pipeline: ATLDiffPipeline, clip: Clip, sound: Speech) -> DubbedVideo:
    """The clip with other sound, as long as the shorter of the two."""
    options = GenerationOptions(fps=MOUTH_FPS, head_motion=0.0, blink="off")
    speak = lambda rest: pipeline._landmarks(rest, sound, options)  # noqa: E731
    return dub_film(clip.film, clip.survey, sound, speak, DubOptions(shorter="keep"))


def tracked(frames: np.ndarray, clip: Clip, detector: FaceDetector) -> np.ndarray:
    """(F, 68, 2) landmarks of dubbed frames, read in the window of the clip's own face."""
    found = []
    for frame, own in zip(frames, clip.survey.solid_F683[..., :2], strict=False):
        window = detection_window(own)
        faces = detector.detect_once(window.cut(frame))
        found.append(window.to_picture(faces[0]) if faces else own)
    return np.stack(found)


def flicker(frames: np.ndarray) -> float:
    """Mean absolute second difference over time, grey levels."""
    return float(np.abs(np.diff(frames.astype(np.float32), 2, axis=0)).mean())


def _partial(made: np.ndarray, old: np.ndarray, new: np.ndarray) -> float:
    """Correlation of two series of openings after what depends on a third has been taken off both."""
    causes = np.column_stack([np.ones(len(new)), new])
    first, second = (each - causes @ np.linalg.lstsq(causes, each, rcond=None)[0] for each in (made, old))
    return float(np.corrcoef(first, second)[0, 1])


def judge(
    pipeline: ATLDiffPipeline, clip: Clip, other: Clip, detector: FaceDetector, meter: IdentityMeter
) -> tuple[dict[str, float], np.ndarray]:
    """The figures of a clip, and its frames with the other's sound."""
    count = len(clip.frames)
    began, used = time.monotonic(), time.process_time()
    made = dub(pipeline, clip, clip.sound)
    own = np.stack(list(made)[:count])
    seconds, worked = time.monotonic() - began, time.process_time() - used
    silence = Speech.from_array(np.zeros(clip.sound.num_samples, dtype=np.float32), SAMPLE_RATE)
    still = np.stack(list(dub(pipeline, clip, silence))[:count])
    crossed = np.stack(list(dub(pipeline, clip, other.sound))[:count])
    points, crossed_points = tracked(own, clip, detector), tracked(crossed, clip, detector)
    both = min(count, len(other.opening))
    truth, box = clip.opening, clip.box
    with_truth = mouth_correlation(mouth_opening(points), truth)
    with_other = mouth_correlation(mouth_opening(crossed_points)[:both], other.opening[:both])
    embeddings = [
        np.linalg.norm(meter.embed(new, at) - meter.embed(old, before))
        for new, at, old, before in zip(own, points, clip.frames, clip.survey.solid_F683[..., :2], strict=True)
    ][:: max(1, count // 8)]
    low, high = (each(clip.survey.solid_F683[..., :2], axis=(0, 1)) for each in (np.min, np.max))
    outside = np.ones(clip.frames.shape[1:3], dtype=bool)
    reach = 0.5 * float((high - low).max())
    outside[max(0, int(low[1])) : int(high[1] + reach), max(0, int(low[0] - reach)) : int(high[0] + reach)] = False
    return {
        "PSNR": psnr(cut_box(own, box), cut_box(clip.frames, box)),
        "dubbed": made.report.dubbed / made.report.frames,
        "PSNR static": psnr(cut_box(still, box), cut_box(clip.frames, box)),
        "r": with_truth.r_at_zero,
        "r best": with_truth.r_best,
        "lag": with_truth.lag,
        "gain": float(mouth_opening(points).std() / truth.std()),
        "crossed: r new": with_other.r_best,
        "crossed: r old": mouth_correlation(mouth_opening(crossed_points), truth, 0).r_at_zero,
        "crossed: r of the two true mouths": mouth_correlation(truth[:both], other.opening[:both], 0).r_at_zero,
        "crossed: r old, the new taken off": _partial(
            mouth_opening(crossed_points)[:both], truth[:both], other.opening[:both]
        ),
        "shut when silent": float(mouth_opening(tracked(still, clip, detector)).mean()),
        "flicker": flicker(cut_box(own, box)) / flicker(cut_box(clip.frames, box)),
        "identity": float(np.median(embeddings)),
        "outside": float(np.abs(own.astype(np.int16) - clip.frames)[:, outside].max(initial=0)),
        "making, s per s": seconds * clip.film.fps.numerator / clip.film.fps.denominator / count,
        "making, processor ms a frame": 1000 * worked / count,
    }, crossed


def sheet(clip: Clip, made: np.ndarray, detector: FaceDetector) -> Image.Image:
    """The clip above, dubbed below: shut, in between, the widest; and where the old mouth was widest."""
    opening = mouth_opening(tracked(made, clip, detector))
    order, old = np.argsort(opening), np.argsort(clip.opening)
    chosen = [order[0], order[len(order) // 2], order[-2], order[-1], old[-1], old[-3]]
    page = Image.new("RGB", (_CELL * len(chosen), 2 * _CELL))
    for column, number in enumerate(chosen):
        points = clip.survey.solid_F683[number, :, :2]
        low, high = points.min(axis=0), points.max(axis=0)
        middle, half = (low + high) / 2, 0.62 * float((high - low).max())
        (left, top), (right, bottom) = np.round([middle - half, middle + half])
        corners = float(left), float(top), float(right), float(bottom)
        for row, frames in enumerate((clip.frames, made)):
            part = Image.fromarray(frames[number]).crop(corners)
            page.paste(part.resize((_CELL, _CELL), Image.Resampling.LANCZOS), (_CELL * column, _CELL * row))
    return page


def paths(folders: list[Path], each: int) -> Iterator[Path]:
    """Some clips of each folder, people mixed."""
    found = [sorted(folder.rglob("*.mp4")) for folder in folders]
    for number in range(each):
        for clips in found:
            if len(clips) > number:
                yield clips[number * max(1, len(clips) // each)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", type=Path, required=True, help="folders of clips, one a person")
    parser.add_argument("--each", type=int, default=2, help="clips of each folder")
    parser.add_argument("--lag", type=float, default=0.0, help="seconds by which the sound trails the picture")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    meter, rows = IdentityMeter(), {}
    with ATLDiffPipeline.from_pretrained(device="cpu") as pipeline, FaceDetector() as detector:
        clips = [read_clip(path, detector, arguments.lag) for path in paths(arguments.clips, arguments.each)]
        clips = [clip for clip in clips if np.isfinite(clip.survey.solid_F683).all()]
        for clip, other in zip(clips, [*clips[1:], clips[0]], strict=True):
            name = f"{clip.film.path.parent.name}/{clip.film.path.stem}"
            rows[name], crossed = judge(pipeline, clip, other, detector, meter)
            print(json.dumps({name: {key: round(value, 3) for key, value in rows[name].items()}}), flush=True)
            if arguments.sheets is not None:
                arguments.sheets.mkdir(parents=True, exist_ok=True)
                sheet(clip, crossed, detector).save(arguments.sheets / f"{name.replace('/', '-')}.png")
    keys = list(next(iter(rows.values())))
    spread = {key: np.quantile([row[key] for row in rows.values()], [0.5, 0.1, 0.9]) for key in keys}
    result = {"clips": len(rows), "median": {key: float(values[0]) for key, values in spread.items()}}
    show(
        result | machine(torch.device("cpu")),
        ["figure", "median", "p10", "p90"],
        [[k, *v] for k, v in spread.items()],
    )


if __name__ == "__main__":
    main()
