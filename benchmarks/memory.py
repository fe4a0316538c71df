"""Measure peak memory against length: ``python benchmarks/memory.py [--seconds 30 600 3600] [--height 720]``.

Every length runs in a process of its own, from a file to an mp4 in a temporary folder. Prints JSON and a table. An
hour of speech takes as long as ``benchmarks/generate.py`` says, times 360.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    arguments = parse_arguments()
    if arguments.alone:
        print(json.dumps(render(arguments.seconds[0], arguments)))
        return
    runs = [run_alone(seconds, arguments) for seconds in arguments.seconds]
    show(runs)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure peak memory against the length of the speech.")
    parser.add_argument("--seconds", type=float, nargs="+", default=[30.0, 600.0, 3600.0])
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--fps", type=float, default=25.0, help="frames a second, fewer are quicker")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--crop-only", action="store_true", help="only the face, which is quicker")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_alone(seconds: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """One length in a new process; this one stays small, for a process begins with its parent's peak."""
    command = [sys.executable, __file__, "--alone", "--seconds", str(seconds), "--height", str(arguments.height)]
    command += ["--threads", str(arguments.threads), "--device", arguments.device, "--fps", str(arguments.fps)]
    command += ["--crop-only"] if arguments.crop_only else []
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def render(seconds: float, arguments: argparse.Namespace) -> dict[str, Any]:
    import resource
    import tempfile

    import torch

    import common
    from atldiff.pipeline import ATLDiffPipeline
    from atldiff.render.video import render_video

    torch.set_num_threads(arguments.threads)
    pipeline = ATLDiffPipeline.from_pretrained(device=arguments.device)
    about = common.machine(pipeline.device)
    with tempfile.TemporaryDirectory() as folder:
        sound = common.write_speech(Path(folder) / "speech.wav", seconds)
        report = render_video(
            pipeline,
            common.portrait(arguments.height),
            sound,
            Path(folder) / "out.mp4",
            crop_only=arguments.crop_only,
            fps=arguments.fps,
        )
    pipeline.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return about | {
        "seconds_of_speech": seconds,
        "height": arguments.height,
        "frames": report.frames,
        "peak_memory_mib": round(peak, 1),
        "seconds": round(report.seconds, 1),
        "real_time_factor": round(report.real_time_factor, 3),
    }


def show(runs: list[dict[str, Any]]) -> None:
    import common

    first = runs[0]["peak_memory_mib"]
    rows = [
        (
            run["seconds_of_speech"],
            run["frames"],
            run["peak_memory_mib"],
            run["peak_memory_mib"] / first,
            run["real_time_factor"],
        )
        for run in runs
    ]
    header = ("seconds of speech", "frames", "peak memory, MiB", "against the first", "real-time factor")
    common.show({"runs": runs}, header, rows)


if __name__ == "__main__":
    main()
