"""Time the whole path: ``python benchmarks/generate.py [--seconds 10] [--height 720] [--threads 2] [--steps N]``.

Bundled portrait (scaled to the height) and bundled speech (repeated to the length) → an mp4 in a temporary folder.
Prints one JSON object; the time to load the model stands apart.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import numpy as np
import torch
from PIL import Image

import atldiff
from atldiff.pipeline import ATLDiffPipeline
from atldiff.render import render_video
from atldiff.speech.waveform import SAMPLE_RATE, Speech, read_waveform

ASSETS = Path(atldiff.__file__).parent / "assets"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the whole path on the bundled portrait and speech.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    portrait = Image.open(ASSETS / "portrait.jpg").convert("RGB")
    width = round(portrait.width * arguments.height / portrait.height)
    picture = np.asarray(portrait.resize((width, arguments.height), Image.Resampling.LANCZOS))
    samples = np.resize(read_waveform(ASSETS / "speech.flac"), round(arguments.seconds * SAMPLE_RATE))
    began = time.monotonic()
    pipeline = ATLDiffPipeline.from_pretrained()
    loaded = time.monotonic() - began
    with tempfile.TemporaryDirectory() as folder:
        speech = Speech.from_array(samples, SAMPLE_RATE)
        report = render_video(pipeline, picture, speech, Path(folder) / "out.mp4", steps=arguments.steps)
    result = {
        "seconds_of_speech": report.duration_s,
        "frames": report.frames,
        "picture": [width, arguments.height],
        "steps": arguments.steps or pipeline.config.steps,
        "threads": arguments.threads,
        "device": str(pipeline.device),
        "processor": platform.processor() or platform.machine(),
        "load_seconds": round(loaded, 2),
        "seconds": round(report.seconds, 2),
        "real_time_factor": round(report.real_time_factor, 3),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(result, indent=2))
    pipeline.close()


if __name__ == "__main__":
    main()
