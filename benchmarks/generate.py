"""Time the whole path: ``python benchmarks/generate.py [--seconds 10] [--height 720] [--threads 2] [--steps N]``.

Bundled portrait (scaled to the height) and bundled speech (repeated to the length, from a file) → an mp4 in a
temporary folder. Prints JSON and a table of the stages; the time to load the model stands apart.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

import common
from atldiff.face.detection import FaceDetector
from atldiff.image.animator import FaceAnimator
from atldiff.image.compose import PortraitComposer
from atldiff.image.conditioning import IdentityFace
from atldiff.media.writer import VideoWriter
from atldiff.motion.living import Motion
from atldiff.pipeline import ATLDiffPipeline
from atldiff.render.video import RenderReport, render_video
from atldiff.speech.waveform import Speech
from stopwatch import Stopwatch

WARM_UP_SECONDS = 2.0

BESIDE = "encode (in a thread beside the others)"


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    began = time.monotonic()
    pipeline = ATLDiffPipeline.from_pretrained(device=arguments.device)
    loaded = time.monotonic() - began
    about = common.machine(pipeline.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not arguments.cold:
            render(pipeline, folder, WARM_UP_SECONDS, arguments)
        watch = watched(pipeline)
        began_processor = time.process_time()
        report = render(pipeline, folder, arguments.seconds, arguments)
        processor = time.process_time() - began_processor
    pipeline.close()
    beside = watch.seconds.pop(BESIDE)
    stages = watch.seconds | {"everything else": report.seconds - sum(watch.seconds.values())}
    stages = {name: round(stages[name], 4) for name in sorted(stages, key=lambda name: -stages[name])}
    stages[BESIDE] = round(beside, 4)
    steps = watch.calls["U-Net"]
    result = about | {
        "seconds_of_speech": report.duration_s,
        "frames": report.frames,
        "height": arguments.height,
        "steps": arguments.steps or pipeline.config.steps,
        "load_seconds": round(loaded, 2),
        "seconds": round(report.seconds, 2),
        "real_time_factor": round(report.real_time_factor, 3),
        "frames_per_second": round(report.frames / report.seconds, 1),
        "stage_seconds": stages,
        "unet_seconds_per_step": round(watch.seconds["U-Net"] / steps, 4) if steps else None,
        "processor_seconds": round(processor, 2),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    rows = [
        (name, seconds, 1000 * seconds / report.frames, seconds / report.duration_s)
        for name, seconds in [*stages.items(), ("all", report.seconds)]
    ]
    common.show(result, ("stage", "s", "ms a frame", "s a second of speech"), rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the whole path on the bundled portrait and speech.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cold", action="store_true", help="without two seconds made before, which are not counted")
    return parser.parse_args()


def render(pipeline: ATLDiffPipeline, folder: Path, seconds: float, arguments: argparse.Namespace) -> RenderReport:
    sound = common.write_speech(folder / "speech.wav", seconds)
    return render_video(pipeline, common.portrait(arguments.height), sound, folder / "out.mp4", steps=arguments.steps)


def watched(pipeline: ATLDiffPipeline) -> Stopwatch:
    """A stopwatch on the stages of this process's pipelines."""
    watch = Stopwatch(pipeline.device)
    watch.watch(Speech, "__init__", "decode")
    for reading in ("blocks", "stereo_blocks"):
        watch.watch_iterator(Speech, reading, "decode")
    for part in ("__init__", "detect"):
        watch.watch(FaceDetector, part, "detect the face")
    for part in (FaceAnimator, PortraitComposer):
        watch.watch(part, "__init__", "prepare the portrait")
    watch.watch(type(pipeline.speech_encoder), "forward", "speech")
    watch.watch(Motion, "_window_landmarks", "landmarks")
    watch.watch(IdentityFace, "conditions", "warp")
    watch.watch(type(pipeline.unet), "forward", "U-Net")
    watch.watch_iterator(PortraitComposer, "render", "paste back")
    watch.watch(VideoWriter, "_encode", BESIDE)
    watch.watch(VideoWriter, "write", "wait for the encoder")
    watch.watch(VideoWriter, "_finish", "finish the file")
    return watch


if __name__ == "__main__":
    main()
