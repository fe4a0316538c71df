"""What each part of the image network is worth: models that animate the same clips from their true landmarks.

A row a model, beside the portrait repeated and the landmark warp alone: a table over validation clips by corpus,
and a contact sheet of the speakers at their widest open mouth (portraits, a row for each model, true frames).

    python benchmarks/ablation.py prepared -o ablation --model "no maps=runs/no-maps" --model "2 steps=compact:2"
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.evaluation.identity import IdentityMeter
from atldiff.evaluation.judge import Judge
from atldiff.evaluation.protocol import choose_clips, load_material
from atldiff.face.detection import FaceDetector
from atldiff.face.topology import mouth_opening
from atldiff.models.loading import DEFAULT_MODEL
from atldiff.pipeline import ATLDiffPipeline
from widest_mouths import widest_by_speaker

STATIC, WARP = "static portrait", "warp alone"
_HEADER = (
    "| | PSNR, dB ↑ | PSNR mouth, dB ↑ | above static | above warp | SSIM mouth ↑ | SSIM above warp's, clips "
    "| identity, median ↓ | worst clip ↓ | flicker ratio |\n| --- |" + " ---: |" * 9
)
Scores = dict[str, dict[str, float]]
"""Row → metric → value, of one clip."""


@dataclass(frozen=True)
class Row:
    """A pipeline under the name that the table gives it; no steps: those of the model's own."""

    name: str
    pipeline: ATLDiffPipeline
    steps: int | None

    def animate(self, frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """(F, 128, 128, 3) uint8 made of the first frame and (F, 68, 2) landmarks."""
        return self.pipeline.animate(frames[0], landmarks[0], landmarks, self.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description="Models that animate the same clips from true landmarks.")
    parser.add_argument("data", type=Path, help="folder that `atldiff prepare` made")
    parser.add_argument("--model", action="append", required=True, type=_named, metavar="NAME=MODEL[:STEPS]")
    parser.add_argument("--per-speaker", type=int, default=4, help="clips of each speaker (default: %(default)s)")
    parser.add_argument("--sheet-corpus", help="only this corpus on the contact sheet")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for table.md and sheet.jpg")
    arguments = parser.parse_args()
    base = ATLDiffPipeline.from_pretrained(DEFAULT_MODEL, device="cpu")
    rows = [Row(WARP, base, 0)]
    rows += [Row(name, ATLDiffPipeline.from_pretrained(model, device="cpu"), n) for name, model, n in arguments.model]
    clips = PreparedClips.open(arguments.data).split("val")
    arguments.output.mkdir(parents=True, exist_ok=True)
    shown = [clip for clip in clips if arguments.sheet_corpus in (None, clip.info.corpus)]
    _sheet(rows, widest_by_speaker(shown)).save(arguments.output / "sheet.jpg", quality=88)
    table = _tables([row.name for row in rows], list(_judged(rows, choose_clips(clips, None, arguments.per_speaker))))
    (arguments.output / "table.md").write_text(table)
    print(table)


def _named(text: str) -> tuple[str, str, int | None]:
    match = re.fullmatch(r"([^=]+)=(.+?)(?::(\d+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected NAME=MODEL or NAME=MODEL:STEPS")
    name, model, steps = match.groups()
    return name, model, int(steps) if steps else None


def _judged(rows: list[Row], clips: list[PreparedClip]) -> Iterator[tuple[str, Scores]]:
    """Corpus and scores of each clip."""
    with FaceDetector() as detector:
        meter = IdentityMeter()
        for number, clip in enumerate(clips, start=1):
            material = load_material(clip)
            judge = Judge(material.frames, detector, meter)
            still = np.repeat(material.frames[:1], len(material.frames), axis=0)
            scores = {STATIC: judge.score(still).values}
            for row in rows:
                scores[row.name] = judge.score(row.animate(material.frames, material.landmarks)).values
            print(f"{number} of {len(clips)} clips", flush=True)
            yield clip.info.corpus, scores


def _tables(names: list[str], judged: list[tuple[str, Scores]]) -> str:
    texts = []
    for corpus in sorted({corpus for corpus, _ in judged}):
        own = [scores for name, scores in judged if name == corpus]
        lines = [_line(name, own) for name in (STATIC, *names)]
        texts.append(f"### {corpus}: {len(own)} clips\n\n{_HEADER}\n" + "\n".join(lines) + "\n")
    return "\n".join(texts)


def _line(name: str, scores: list[Scores]) -> str:
    def values(metric: str, row: str = name) -> np.ndarray:
        return np.array([clip[row][metric] for clip in scores])

    mouth, similar = values("psnr_mouth"), values("ssim_mouth")
    identity = values("identity_median")
    cells = [
        f"{np.nanmedian(values('psnr')):.2f}",
        f"{np.nanmedian(mouth):.2f}",
        f"{np.nanmedian(mouth - values('psnr_mouth', STATIC)):+.2f}",
        f"{np.nanmedian(mouth - values('psnr_mouth', WARP)):+.2f}",
        f"{np.nanmedian(similar):.3f}",
        f"{np.mean(similar > values('ssim_mouth', WARP)):.0%}",
        f"{np.nanmedian(identity):.2f}",
        f"{np.nanmax(identity):.2f}",
        f"{np.nanmedian(values('flicker_ratio')):.2f}",
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _sheet(rows: list[Row], clips: list[PreparedClip]) -> Image.Image:
    columns = []
    for clip in clips:
        frames, landmarks = clip.frames(), clip.landmarks()
        at = int(mouth_opening(landmarks).argmax())
        made = [row.animate(frames, landmarks)[at] for row in rows]
        columns.append(np.concatenate([frames[0], *made, frames[at]]))
    return Image.fromarray(np.concatenate(columns, axis=1))


if __name__ == "__main__":
    main()
