"""Contact sheet: validation speakers at their widest open mouth, out of the first frame of the clip.

A row a speaker: the portrait, the landmark warp alone, the generated frame and the true one, from true landmarks.

    python benchmarks/widest_mouths.py prepared --corpus GRID -o widest.png
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.face.topology import mouth_opening
from atldiff.models.loading import DEFAULT_MODEL
from atldiff.pipeline import ATLDiffPipeline


def main() -> None:
    parser = argparse.ArgumentParser(description="Validation speakers at their widest open mouth.")
    parser.add_argument("data", type=Path, help="folder that `atldiff prepare` made")
    parser.add_argument("--corpus", help="only this one")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    parser.add_argument("--steps", type=int, help="sampler steps (default: the model's own)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    pipeline = ATLDiffPipeline.from_pretrained(arguments.model, device="cpu")
    clips = PreparedClips.open(arguments.data).split("val")
    clips = [clip for clip in clips if arguments.corpus in (None, clip.info.corpus)]
    rows = [_row(pipeline, clip, arguments.steps) for clip in widest_by_speaker(clips)]
    Image.fromarray(np.concatenate(rows)).save(arguments.output)
    print(f"{arguments.output}: {len(rows)} speakers; portrait, warp, generated, true")


def widest_by_speaker(clips: list[PreparedClip]) -> list[PreparedClip]:
    """Each speaker's clip whose mouth opens widest beyond its first frame."""
    widest: dict[str, tuple[float, PreparedClip]] = {}
    for clip in clips:
        openings = mouth_opening(clip.landmarks())
        gain = float(openings.max() - openings[0])
        if gain > widest.get(clip.info.speaker, (-np.inf, clip))[0]:
            widest[clip.info.speaker] = gain, clip
    return [widest[speaker][1] for speaker in sorted(widest)]


def _row(pipeline: ATLDiffPipeline, clip: PreparedClip, steps: int | None) -> np.ndarray:
    landmarks, frames = clip.landmarks(), clip.frames()
    at = int(mouth_opening(landmarks).argmax())
    made = [pipeline.animate(frames[0], landmarks[0], landmarks, number)[at] for number in (0, steps)]
    return np.concatenate([frames[0], *made, frames[at]], axis=1)


if __name__ == "__main__":
    main()
